"""What doctor says of ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg.bundle import Bundle
from edgeseg.runtimes.ort import engine as ort_engine
from edgeseg.runtimes.ort.engine import ORT
from edgeseg.runtimes.ort.passes import FLOAT_PASSES, INT8_PASSES
from tests.runtimes.bundles import make_tiny_bundle


def test_its_providers_are_listed() -> None:
    found = ORT.look()
    assert (found.usable, found.reason, found.advice) == (True, "", "")
    assert found.engine.startswith("onnxruntime ")
    assert "CPUExecutionProvider" in found.devices


def test_several_onnxruntimes_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_engine, "package_version", lambda *names: "1.23.0" if "onnxruntime" in names[0] else "")
    found = ORT.look()
    assert found.usable
    assert "keep one of them" in found.advice


def test_its_form_of_a_graph_depends_on_the_precision() -> None:
    assert ORT.passes is not None
    assert ORT.passes("fp32") == FLOAT_PASSES
    assert ORT.passes("int8") == INT8_PASSES
    assert ORT.passes("fp16") == ()


def test_its_own_graph_goes_before_the_shared_one(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    assert ORT.files_in(bundle) == ("model.onnx",)
    own = Bundle(bundle.path, replace(bundle.manifest, files={**bundle.manifest.files, "ort/model.onnx": "0" * 64}))
    assert ORT.files_in(own) == ("ort/model.onnx",)
