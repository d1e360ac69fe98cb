"""What doctor says of TensorRT and TensorRT for RTX."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg.bundle import Bundle
from edgeseg.runtimes.tensorrt import engine as tensorrt_engine
from edgeseg.runtimes.tensorrt.engine import TRT, TRT_RTX
from tests.runtimes.bundles import make_tiny_bundle
from tests.runtimes.fakes import FakeTensorRT


def test_tensorrt_on_a_gpu(tensorrt: FakeTensorRT) -> None:
    found = TRT.look()
    assert (found.usable, found.engine, found.devices) == (True, "tensorrt 10.3.0", ("Fake A, sm_87",))
    assert tensorrt.calls == []


@pytest.mark.usefixtures("tensorrt", "no_gpu")
def test_tensorrt_without_a_gpu_says_what_is_missing() -> None:
    found = TRT.look()
    assert (found.usable, found.engine) == (False, "tensorrt 10.3.0")
    assert "no NVIDIA driver" in found.reason
    assert "install the driver" in found.advice


@pytest.mark.usefixtures("fake_gpu")
def test_rtx_is_asked_for_its_version_without_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_engine, "package_version", lambda *names: "1.7.1")
    for module in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    found = TRT_RTX.look()
    assert (found.usable, found.engine, found.devices) == (True, "tensorrt-rtx 1.7.1", ("Fake A, sm_87",))


def test_their_files_in_a_bundle(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("trt", "trt-rtx"))
    assert TRT.files_in(bundle) == ("model.onnx",)
    assert TRT_RTX.files_in(bundle) == ()  # of a bundle written by hand
    more = ("tensorrt/rtx-1.7.1.engine", "tensorrt/model.onnx", "tensorrt-notes.txt")
    files = {**bundle.manifest.files, **dict.fromkeys(more, "0" * 64)}
    built = Bundle(bundle.path, replace(bundle.manifest, files=files))
    assert TRT_RTX.files_in(built) == ("tensorrt/rtx-1.7.1.engine",)
    assert TRT.files_in(built) == ("tensorrt/model.onnx",)
