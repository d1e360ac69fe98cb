"""What doctor says of OpenVINO, and what its record says of a bundle."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeseg.runtimes.openvino import session
from edgeseg.runtimes.openvino.engine import OPENVINO
from edgeseg.runtimes.openvino.session import cause
from tests.runtimes.bundles import make_tiny_bundle

pytest.importorskip("openvino")


def test_its_devices_are_listed() -> None:
    found = OPENVINO.look()
    assert (found.usable, found.reason) == (True, "")
    assert found.engine.startswith("openvino 2")
    assert "CPU" in found.devices


def test_a_machine_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "shared_core", lambda: SimpleNamespace(available_devices=[]))
    found = OPENVINO.look()
    assert (found.usable, found.reason) == (False, "OpenVINO finds no device on this machine")


def test_a_look_that_breaks_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def explodes() -> None:
        raise ValueError("odd driver\nand a page of its state")

    monkeypatch.setattr(session, "shared_core", explodes)
    found = OPENVINO.look()
    assert (found.usable, found.reason) == (False, "looking at it failed: ValueError: odd driver")


def test_graph_and_weights_are_its_files(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("openvino",))
    assert sorted(OPENVINO.files_in(bundle)) == ["openvino/model.bin", "openvino/model.xml"]


def test_the_cause_of_an_error_is_behind_its_source_files() -> None:
    told = "Exception from src/core.cpp:97:\nCheck 'false' failed at src/ir.cpp:3:\nUnable to read the model\nmore\n"
    assert cause(RuntimeError(told)) == "Unable to read the model"
    assert cause(RuntimeError("Exception from src/core.cpp:97:\n")) == "Exception from src/core.cpp:97:"
