"""Denormal weights become zero, and nothing else does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeseg.export.passes import default_passes, engine_passes
from edgeseg.graph.passes import FlushTiny
from edgeseg.runtimes.ort.engine import ORT
from tests.graph.passes.tools import build, normal, proved


def _constant(model: onnx.ModelProto, name: str) -> NDArray[np.float32]:
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name)


def _weights(*shape: int) -> NDArray[np.float32]:
    weight = normal(*shape)
    weight.reshape(-1)[::3] *= np.float32(1e-39)
    weight.reshape(-1)[1::3] *= np.float32(1e-34)
    return weight


@pytest.mark.parametrize(
    ("body", "shape", "out"),
    [
        ("y = Conv(x, w, b)", (4, 8, 1, 1), "float[1,4,6,6] y"),
        ("y = ConvTranspose(x, w, b)", (8, 4, 1, 1), "float[1,4,6,6] y"),
        ("f = Flatten(x) y = Gemm(f, w, b)", (288, 4), "float[1,4] y"),
        ("m = MatMul(x, w) y = Relu(m)", (6, 4), "float[1,8,6,4] y"),
    ],
    ids=["Conv", "ConvTranspose", "Gemm", "MatMul"],
)
def test_tiny_weights_and_biases_become_zero(body: str, shape: tuple[int, ...], out: str) -> None:
    constants = {"w": _weights(*shape)} | ({"b": _weights(4)} if " b)" in body else {})
    model = build(f"g (float[1,8,6,6] x) => ({out}) {{ {body} }}", **constants)
    rewritten, _ = proved(model, FlushTiny(), cheaper=False)
    for name, given in constants.items():
        found = _constant(rewritten, name)
        assert np.array_equal(found[np.abs(given) >= 1e-30], given[np.abs(given) >= 1e-30])
        assert not found[np.abs(given) < 1e-30].any()
    assert not FlushTiny()(rewritten).modified


@pytest.mark.parametrize(
    ("body", "constant"),
    [
        ("y = Add(x, w)", np.full((1, 8, 6, 6), 1e-38, np.float32)),
        ("n = Max(x, w) y = Div(x, n)", np.array(1e-35, np.float32)),
        ("p = Mul(x, w) y = MatMul(p, w)", np.full((6, 6), 1e-36, np.float32)),  # also read by another operator
        ("y = MatMul(x, w)", normal(6, 6)),
    ],
    ids=["sum", "floor of a divisor", "shared", "nothing tiny"],
)
def test_other_constants_stay(body: str, constant: NDArray[np.float32]) -> None:
    model = build(f"g (float[1,8,6,6] x) => (float[1,8,6,6] y) {{ {body} }}", w=constant)
    assert not FlushTiny()(model).modified


def test_it_runs_after_every_pass_that_makes_weights() -> None:
    assert default_passes()[-2].name == "FlushTiny"
    assert engine_passes(ORT, "fp32")[-1].name == "FlushTiny"
    assert "FlushTiny" not in [step.name for step in default_passes(rewrites=False)]
