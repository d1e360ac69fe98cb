"""Acceptance: its sentences, from figures, and its measurement, with a clock of the test's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.errors import ExportError, ParityError
from edgeseg.export.precision import Latency, PrecisionConfig, PrecisionReport, TargetFigures, acceptance
from edgeseg.export.precision.acceptance import aimed_targets, hold, measure_pair, objections

INT8 = PrecisionConfig(precision="int8", calib=Path("c"))
GOOD = TargetFigures("ort", "e", "int8", 0.99, latency=Latency(10.0, 5.0, 0, 5))


def _report(*rows: TargetFigures) -> PrecisionReport:
    return PrecisionReport("int8", miou_fp32=0.57, targets=rows)


def test_good_figures_pass() -> None:
    report = _report(GOOD)
    hold(INT8, report, ("ort",))
    assert not report.notes
    assert Latency(10.0, 5.0, 0, 5).speedup == 2.0


def test_too_few_equal_labels() -> None:
    with pytest.raises(ParityError, match=r"97\.000% of the labels equal .* at least 98\.00% must"):
        hold(INT8, _report(replace(GOOD, agreement=0.97)), ("ort",))


def test_too_large_a_drop_of_miou() -> None:
    config = PrecisionConfig(precision="int8", calib=Path("c"), calib_labels=Path("l"), max_miou_drop=0.005)
    hold(config, _report(replace(GOOD, miou=0.566)), ("ort",))
    with pytest.raises(ParityError, match=r"mIoU is 56\.00% against fp32's 57\.00%, 1\.00 points lower, at most 0\.5"):
        hold(config, _report(replace(GOOD, miou=0.56)), ("ort",))
    with pytest.raises(ParityError):
        hold(config, _report(replace(GOOD, miou=float("nan"))), ("ort",))


def test_slower_is_refused_with_the_figures_and_forced_with_a_note() -> None:
    report = _report(replace(GOOD, latency=Latency(10.0, 12.5, 5, 5)))
    with pytest.raises(ExportError, match=r"slower than fp32 on ort here: 12\.50 against 10\.00 ms .*5 of 5.*--force"):
        hold(INT8, report, ("ort",))
    hold(replace(INT8, force=True), report, ("ort",))
    assert "forced: int8 is slower" in report.notes[0]


@pytest.mark.parametrize("latency", [Latency(10.0, 10.2, 5, 5), Latency(10.0, 12.0, 2, 5), None])
def test_not_called_slower(latency: Latency | None) -> None:
    assert not objections(INT8, _report(replace(GOOD, latency=latency)), ("ort",))


def test_only_the_targets_it_is_for_are_judged() -> None:
    slow = replace(GOOD, latency=Latency(10.0, 20.0, 5, 5))
    assert not objections(replace(INT8, aims=("openvino",)), _report(slow), ("ort", "openvino"))
    assert aimed_targets(PrecisionConfig(precision="fp16"), ("ort", "trt", "torch")) == ("trt",)
    assert aimed_targets(PrecisionConfig(precision="fp16"), ("ort", "openvino")) == ("ort", "openvino")
    assert aimed_targets(PrecisionConfig(precision="bf16"), ("ort", "openvino")) == ("openvino",)
    assert aimed_targets(INT8, ("ort", "openvino", "trt", "trt-rtx", "torch")) == ("ort", "openvino", "trt", "trt-rtx")


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
