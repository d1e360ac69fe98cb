"""Start weights taken from the official ONNX file compute what the file computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edgeseg.models import create_model

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "init_from_onnx.py"


@pytest.mark.real
def test_calibrated_weights_compute_the_same(
    shared: Path, real_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (shared / "people").is_dir():
        pytest.skip("the photographs are not beside the checkout")
    spec = importlib.util.spec_from_file_location("init_from_onnx_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script.photographs, "__defaults__", (16,))
    file, out = real_weights / "ppseg_lite_portrait_398x224_softmax.onnx", tmp_path / "init.safetensors"
    assert script.main(["--onnx", str(file), "--data", str(shared / "people"), "--out", str(out)]) == 0
    image = torch.randn(1, 3, 224, 398, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    network = create_model("pphumanseg_lite", num_classes=2, weights=out)
    with torch.inference_mode():
        logits = torch.nn.functional.interpolate(network(image), size=(224, 398), mode="bilinear")
    wanted = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": image.numpy()})
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), np.asarray(wanted[0]), rtol=0, atol=1e-4)
