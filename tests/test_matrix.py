"""The matrix: one small network per system on every target, every fourth of them in the fast tier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import matrix
from edgeseg.models import list_models
from tests.goldens.runner import fitting_size

for _package in ("onnxruntime", "openvino", "tensorrt_rtx_bindings", "onnxsim", "onnxscript"):
    pytest.importorskip(_package)


SYSTEMS = matrix.smallest_of_each_system()
FAST = SYSTEMS[1::4]
"""An export takes seconds, and there are as many as all other tests together: ``make test-matrix`` runs all systems."""


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in SYSTEMS]
)
def test_one_network_of_each_system_on_every_target(name: str) -> None:
    row = matrix.check(name, size=fitting_size(name, (64, 96)))
    assert set(row["cells"]) == set(matrix.TARGETS)
    assert matrix.holds(row), row


def test_a_cell_below_the_bound_is_reported_with_its_reason() -> None:
    cell = {"ok": False, "ran": True, "differing": 5, "agreement": 0.99, "logit_error": 0.01}
    row = {"name": "x", "system": "X", "size": [64, 96], "cells": {"ort": cell}}
    assert not matrix.holds(row)
    explained = {**row, "rounding": {"agreement": 0.98, "logit_error": 0.02}}
    assert matrix.holds(explained)
    assert not matrix.holds({**row, "rounding": {"agreement": 1.0, "logit_error": 0.0}})
    table = matrix.write_table([explained])
    assert "0 of 1 networks hold every bound" in table
    assert "99.0000%, 1e-02 **below the bound**" in table
    assert "- x: 98.0000% of the labels agree" in table


def test_a_refusal_keeps_the_engine_s_words_and_fails_the_row() -> None:
    row = {"name": "x", "system": "X", "size": [64, 96], "cells": {"trt-rtx": {"ok": False, "words": "no such node"}}}
    assert not matrix.holds(row)
    assert "| no such node |" in matrix.write_table([row])


@pytest.mark.slow
def test_every_network_on_every_target(tmp_path: Path) -> None:
    assert matrix.main(["--json", str(tmp_path / "matrix.json"), "--table", str(tmp_path / "matrix.md")]) == 0
    assert len(json.loads((tmp_path / "matrix.json").read_text())) == len(list_models())
