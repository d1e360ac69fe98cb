"""Acceptance: its sentences, from figures, and its measurement, with a clock of the test's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.errors import ExportError, ParityError
from edgeseg.export.config import ExportConfig
from edgeseg.export.precision import Latency, PrecisionReport, TargetFigures, acceptance
from edgeseg.export.precision.acceptance import aimed_targets, measure_pair, next_precisions, objections
from edgeseg.labelled import LabelledPictures

INT8 = ExportConfig(precision="int8", calib=Path("c"))
BOTH = INT8.but(targets=("ort", "openvino"))
GOOD = TargetFigures("ort", "int8", "e", "int8", 0.99, latency=Latency(10.0, 5.0, 0, 5))
SLOW = Latency(10.0, 12.5, 5, 5)


def _report(*rows: TargetFigures) -> PrecisionReport:
    return PrecisionReport(precision="int8", miou_fp32=0.57, targets=rows)


def _decided(config: ExportConfig, *rows: TargetFigures) -> tuple[dict[str, str], tuple[str, ...]]:
    return next_precisions(config, _report(*rows), {row.target: row.precision for row in rows})


def test_good_figures_pass() -> None:
    assert _decided(INT8, GOOD) == ({"ort": "int8"}, ())
    assert Latency(10.0, 5.0, 0, 5).speedup == 2.0


def test_too_few_equal_labels() -> None:
    with pytest.raises(ParityError, match=r"97\.000% of the labels equal .* at least 98\.00% must"):
        _decided(INT8, replace(GOOD, agreement=0.97))


def test_too_large_a_drop_of_miou() -> None:
    config = INT8.but(calib=LabelledPictures("c", "l"), max_miou_drop=0.005)
    assert _decided(config, replace(GOOD, miou=0.566)) == ({"ort": "int8"}, ())
    with pytest.raises(ParityError, match=r"mIoU is 56\.00% against fp32's 57\.00%, 1\.00 points lower, at most 0\.5"):
        _decided(config, replace(GOOD, miou=0.56))
    with pytest.raises(ParityError):
        _decided(config, replace(GOOD, miou=float("nan")))


def test_slower_is_refused_with_the_figures_and_forced_with_a_note() -> None:
    slow = replace(GOOD, latency=SLOW)
    with pytest.raises(ExportError, match=r"slower than fp32 on ort here: 12\.50 against 10\.00 ms .*5 of 5.*--force"):
        _decided(INT8, slow)
    precisions, notes = _decided(INT8.but(force=True), slow)
    assert precisions == {"ort": "int8"}
    assert "forced: int8 is slower" in notes[0]


@pytest.mark.parametrize("latency", [Latency(10.0, 10.2, 5, 5), Latency(10.0, 12.0, 2, 5), None])
def test_not_called_slower(latency: Latency | None) -> None:
    assert not objections(INT8, _report(replace(GOOD, latency=latency)))


def test_only_the_targets_it_is_for_are_looked_at() -> None:
    assert not objections(INT8.but(targets=("openvino",)), _report(replace(GOOD, latency=SLOW)))
    fp16 = ExportConfig(precision="fp16", targets=("ort", "trt", "torch"))
    assert aimed_targets(fp16) == ("trt",)
    assert aimed_targets(fp16.but(targets=("ort", "openvino"))) == ("ort", "openvino")
    assert aimed_targets(ExportConfig(precision="bf16", targets=("ort", "openvino"))) == ("openvino",)


def test_one_of_several_targets_gets_the_fastest_precision_that_holds() -> None:
    openvino = replace(GOOD, target="openvino")
    precisions, notes = _decided(BOTH, replace(GOOD, latency=SLOW), openvino)
    assert precisions == {"ort": "fp32", "openvino": "int8"}
    assert notes == (
        "ort has fp32 in this bundle: " + str(objections(BOTH, _report(replace(GOOD, latency=SLOW)))["ort"][0]),
    )
    precisions, _ = _decided(BOTH, GOOD, replace(openvino, agreement=0.5))
    assert precisions == {"ort": "int8", "openvino": "bf16"}
    emulated = replace(openvino, precision="bf16", arithmetic="fp32")
    precisions, notes = _decided(BOTH, GOOD, emulated)
    assert precisions == {"ort": "int8", "openvino": "fp32"}
    assert "openvino computes in fp32 here, not in bf16" in notes[0]
    held = replace(openvino, precision="bf16", arithmetic="bf16", agreement=0.995)
    assert _decided(BOTH, GOOD, held) == ({"ort": "int8", "openvino": "bf16"}, ())


def test_below_the_budget_of_bf16_it_becomes_fp32() -> None:
    openvino = replace(GOOD, target="openvino", precision="bf16", arithmetic="bf16", agreement=0.985)
    precisions, notes = _decided(BOTH, GOOD, openvino)
    assert precisions["openvino"] == "fp32"
    assert "at least 99.00% must" in notes[0]


def test_where_no_target_accepts_it_the_export_is_refused() -> None:
    rows = (replace(GOOD, latency=SLOW), replace(GOOD, target="openvino", agreement=0.5))
    with pytest.raises(ParityError, match=r"slower than fp32 on ort .*below its budget on openvino"):
        _decided(BOTH, *rows)


def test_targets_that_share_a_graph_change_together() -> None:
    config = INT8.but(targets=("ort", "trt", "trt-rtx"))
    rows = (GOOD, replace(GOOD, target="trt", latency=SLOW), replace(GOOD, target="trt-rtx", latency=None))
    assert _decided(config, *rows)[0] == {"ort": "int8", "trt": "fp32", "trt-rtx": "fp32"}


class _Fake:
    """A session whose runs take the time the test says."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def run(self, image: Any, names: Any = None) -> dict[str, Any]:
        self.clock[0] += self.seconds
        return {}


def test_medians_of_alternating_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "_GAP_S", 0.0)
    now = [0.0]
    fp32: Any = _Fake(now, 0.010)
    low: Any = _Fake(now, 0.004)
    found = measure_pair(fp32, low, np.zeros((1, 2, 2, 3), np.uint8), clock=lambda: now[0])
    assert found.fp32 == pytest.approx(10.0)
    assert found.low == pytest.approx(4.0)
    assert (found.slower_blocks, found.blocks) == (0, 5)
    swapped = measure_pair(low, fp32, np.zeros((1, 2, 2, 3), np.uint8), clock=lambda: now[0])
    assert swapped.slower_blocks == 5
