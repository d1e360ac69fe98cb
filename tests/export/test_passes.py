"""Every pass is listed, declares how it proves itself, and can be left out by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.errors import UnknownNameError
from edgeseg.export.passes import PassEntry, default_passes, engine_passes, list_passes, pass_names
from edgeseg.runtimes.openvino.engine import OPENVINO
from edgeseg.runtimes.ort.engine import ORT
from edgeseg.runtimes.ort.passes import FLOAT_PASSES, INT8_PASSES
from edgeseg.runtimes.tensorrt.engine import TRT, TRT_RTX

ENTRIES = list_passes()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_pass_says_what_it_is(entry: PassEntry) -> None:
    assert entry.kind in ("exact", "rounding")
    assert (entry.kind == "rounding") is (entry.step.allowed_drop > 0.0)
    assert "__doc__" in vars(entry.step)
    assert entry.summary.endswith(".")
    assert len(entry.summary) <= 120
    assert entry.step().name == entry.name


def test_names_are_unique_and_those_of_classes() -> None:
    steps = {entry.step for entry in ENTRIES}
    assert len({step.__name__ for step in steps}) == len(steps) == len(ENTRIES)
    assert {*FLOAT_PASSES, *INT8_PASSES} <= steps
    assert pass_names() == tuple(entry.name for entry in ENTRIES)


def test_a_pass_for_all_engines_is_listed_as_such() -> None:
    engines = {entry.name: entry.engine for entry in ENTRIES}
    assert engines["FlushTiny"] == engines["PushLinear"] == ""
    assert engines["SplitNorms"] == engines["AlignChannels"] == "ort"
    assert engines["HalfLogits"] == engines["FuseResiduals"] == "trt"


def test_both_engines_of_nvidia_have_the_same_passes_and_none_in_fp32() -> None:
    for precision in ("fp32", "fp16", "int8"):
        names = [[step.name for step in engine_passes(record, precision)] for record in (TRT, TRT_RTX)]
        assert names[0] == names[1]
        assert bool(names[0]) == (precision != "fp32")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_pass_can_be_left_out(entry: PassEntry) -> None:
    skip = [entry.name]
    chosen = list(default_passes(skip=skip))
    for record in (ORT, TRT):
        for precision in ("fp32", "fp16", "int8"):
            chosen += engine_passes(record, precision, skip=skip)
    names = [step.name for step in chosen]
    assert {*names, entry.name} == {*pass_names()}
    assert entry.name not in names


def test_without_rewrites_an_engine_has_no_passes() -> None:
    assert not engine_passes(ORT, "fp32", rewrites=False)
    assert not engine_passes(ORT, "int8", rewrites=False)
    assert not engine_passes(OPENVINO, "fp32")


def test_an_unknown_name_is_refused() -> None:
    for choose in (default_passes, lambda skip: engine_passes(ORT, "fp32", skip=skip)):
        with pytest.raises(UnknownNameError, match="unknown pass 'AlignChanels': did you mean 'AlignChannels'"):
            choose(skip=["AlignChanels"])


def test_listing_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not there')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from edgeseg.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "export", "--passes"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in pass_names())
