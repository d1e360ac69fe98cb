"""Target names, aliases and suggestions."""

from __future__ import annotations

import pytest

from edgeseg.cli import spread_targets
from edgeseg.errors import UnknownNameError
from edgeseg.targets import resolve_target


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("ort", "ort"),
        ("ONNXRuntime", "ort"),
        ("onnx", "ort"),
        ("ov", "openvino"),
        ("openvino", "openvino"),
        ("tensorrt", "trt"),
        ("engine", "trt"),
        ("rtx", "trt-rtx"),
        (" trt-rtx ", "trt-rtx"),
        ("pytorch", "torch"),
    ],
)
def test_aliases(word: str, name: str) -> None:
    assert resolve_target(word) == name


@pytest.mark.parametrize(
    ("word", "suggestion"), [("opnvino", "openvino"), ("onxruntime", "onnxruntime"), ("tensort", "tensorrt")]
)
def test_unknown_words_get_a_suggestion(word: str, suggestion: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean .*'{suggestion}'"):
        resolve_target(word)


@pytest.mark.parametrize(
    ("given", "spread"),
    [
        (
            "export n --target ort openvino trt-rtx --out b",
            "export n --target ort --target openvino --target trt-rtx --out b",
        ),
        ("predict --target ort bundle picture", "predict --target ort bundle picture"),
        ("predict b p --target openvino", "predict b p --target openvino"),
        ("benchmark b -t ort ov --json f", "benchmark b -t ort --target ov --json f"),
        ("export n --target ort opnvino", "export n --target ort --target opnvino"),
        ("verify --target ort --target ov b", "verify --target ort --target ov b"),
    ],
)
def test_several_words_after_one_flag(given: str, spread: str) -> None:
    assert spread_targets(given.split()) == spread.split()
