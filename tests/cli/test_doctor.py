"""`edgeseg doctor`: says what is there and what is not, and never fails for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgeseg.runtimes import Engine
from edgeseg.runtimes.openvino.engine import OPENVINO
from edgeseg.runtimes.registry import BUILT_IN, GROUP
from tests.cli.conftest import Edgeseg
from tests.packages import install


def test_every_target_has_a_line(edgeseg: Edgeseg) -> None:
    done = edgeseg("doctor")
    assert done.code == 0
    words = [line.split()[:2] for line in done.out.splitlines() if line.split()]
    for record in BUILT_IN:
        assert [record.name, "yes"] in words or [record.name, "no"] in words
    assert ["ort", "yes"] in words
    assert done.out.rstrip().endswith("Nothing was installed or changed.")
    assert done.err == ""


def test_one_line_on_telemetry(edgeseg: Edgeseg) -> None:
    (line,) = (line for line in edgeseg("doctor").out.splitlines() if line.startswith("telemetry: "))
    for package in ("onnxruntime", "nncf", "openvino"):
        assert f"{package} off (" in line


def test_json_is_json(edgeseg: Edgeseg) -> None:
    found = json.loads(edgeseg("doctor", "--json").out)
    assert set(found) == {"machine", "targets", "bundles", "proofs"}
    assert [target["target"] for target in found["targets"]][: len(BUILT_IN)] == [record.name for record in BUILT_IN]
    assert found["machine"]["python"] == sys.version.split()[0]


def test_what_is_missing_comes_with_advice(edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = {entry["target"]: entry for entry in json.loads(edgeseg("doctor", "--json").out)["targets"]}
    assert not found["openvino"]["usable"]
    assert "not installed" in found["openvino"]["reason"]
    assert "edgeseg[openvino]" in found["openvino"]["advice"]
    assert found["openvino"]["description"] == OPENVINO.description
    (line,) = (line for line in edgeseg("doctor").out.splitlines() if line.startswith("openvino "))
    assert OPENVINO.description.split()[0] in line.split()
    assert found["ort"]["usable"]


def test_nothing_is_written(edgeseg: Edgeseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    edgeseg("doctor")
    assert list(tmp_path.iterdir()) == []


def test_an_engine_of_another_package_has_a_line(edgeseg: Edgeseg, toy_engine: Engine) -> None:
    found = json.loads(edgeseg("doctor", "--json").out)["targets"][-1]
    assert (found["target"], found["usable"], found["devices"]) == ("Toy", True, ["CPU"])
    assert found["engine"].startswith("toy on onnx ")


def test_a_package_that_is_broken_has_a_line_and_breaks_no_other(edgeseg: Edgeseg, site: Path) -> None:
    for name, source in (("lost", "import no_such_module"), ("odd", "ENGINE = 3")):
        install(site, f"edgeseg-{name}", {GROUP: {name: f"{name}_engine:ENGINE"}}, modules={f"{name}_engine": source})
    done = edgeseg("doctor", "--json")
    assert (done.code, done.err) == (0, "")
    found = {entry["target"]: entry for entry in json.loads(done.out)["targets"]}
    sentence = "the target 'lost' of edgeseg-lost 0.1.0 cannot be used: 'lost_engine:ENGINE' failed (ModuleNotFoundErr"
    assert found["lost"]["reason"].startswith(sentence)
    assert "'odd_engine:ENGINE' gave int, expected an edgeseg Engine" in found["odd"]["reason"]
    assert [found[name]["usable"] for name in ("ort", "lost", "odd")] == [True, False, False]
    lines = [line.split()[:2] for line in edgeseg("doctor").out.splitlines()]
    assert [["ort", "yes"] in lines, ["lost", "no"] in lines, ["odd", "no"] in lines] == [True] * 3
