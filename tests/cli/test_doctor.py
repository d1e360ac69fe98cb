"""`edgeseg doctor`: says what is there and what is not, and never fails for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgeseg.targets import TARGETS
from tests.cli.conftest import Edgeseg


def test_every_target_has_a_line(edgeseg: Edgeseg) -> None:
    done = edgeseg("doctor")
    assert done.code == 0
    words = [line.split()[:2] for line in done.out.splitlines() if line.split()]
    for target in TARGETS:
        assert [target, "yes"] in words or [target, "no"] in words
    assert ["ort", "yes"] in words
    assert done.out.rstrip().endswith("Nothing was installed or changed.")
    assert done.err == ""


def test_one_line_on_telemetry(edgeseg: Edgeseg) -> None:
    (line,) = (line for line in edgeseg("doctor").out.splitlines() if line.startswith("telemetry: "))
    for package in ("onnxruntime", "nncf", "openvino"):
        assert f"{package} off (" in line


def test_json_is_json(edgeseg: Edgeseg) -> None:
    found = json.loads(edgeseg("doctor", "--json").out)
    assert set(found) == {"machine", "targets", "bundles"}
    assert [target["target"] for target in found["targets"]][: len(TARGETS)] == list(TARGETS)
    assert found["machine"]["python"] == sys.version.split()[0]


def test_what_is_missing_comes_with_advice(edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = {entry["target"]: entry for entry in json.loads(edgeseg("doctor", "--json").out)["targets"]}
    assert not found["openvino"]["usable"]
    assert "not installed" in found["openvino"]["reason"]
    assert "edgeseg[openvino]" in found["openvino"]["advice"]
    assert found["ort"]["usable"]


def test_nothing_is_written(edgeseg: Edgeseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    edgeseg("doctor")
    assert list(tmp_path.iterdir()) == []
