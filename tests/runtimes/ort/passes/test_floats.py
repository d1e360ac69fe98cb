"""Operators without an int8 kernel read float weights and unrounded maps; everything else stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.floats import KeepFloats
from tests.graph.passes.tools import build, kinds
from tests.runtimes.ort.passes.quantised import constants, convolution, numbers, quantised, rewritten_by


def _graph(body: str, outputs: int = 8, **more: NDArray[Any]) -> onnx.ModelProto:
    held = constants(8, 8) | more
    return build(f"g (float[1,8,6,10] x) => (float[1,{outputs},6,10] r) {{ {body} }}", **held)


W = "w = DequantizeLinear<axis=0>(w_q, w_s, w_z)"


def test_a_float_convolution_has_float_weights_and_the_same_numbers() -> None:
    model = convolution((1, 8, 6, 10), 8, (3, 3), pads=(1, 1, 1, 1), end="Sigmoid")
    rewritten = rewritten_by(KeepFloats, model)
    assert kinds(rewritten) == ["QuantizeLinear", "DequantizeLinear", "Conv", "Sigmoid"]
    feed = {"x": numbers(5, 1, 8, 6, 10)}
    np.testing.assert_allclose(run_graph(rewritten, feed)[0], run_graph(model, feed)[0], atol=1e-6)


def test_a_map_that_floats_alone_read_is_not_rounded() -> None:
    model = _graph(f"e = Exp(x) {quantised('e', 'a')} {W} c = Conv<kernel_shape=[1,1]>(a, w) r = Sigmoid(c)")
    assert kinds(rewritten_by(KeepFloats, model)) == ["Exp", "Conv", "Sigmoid"]


@pytest.mark.parametrize(
    "body",
    [
        f"e = Exp(x) {quantised('e', 'a')} {W} c = Conv<kernel_shape=[1,1]>(a, w) {quantised('c', 'd')} r = Neg(d)",
        f"{quantised('x', 'a')} {W} c = Conv<kernel_shape=[1,1]>(a, w) {quantised('c', 'd')} r = Exp(d)",
        f"e = Exp(x) {quantised('e', 'a')} k = Exp(a) {W} c = Conv<kernel_shape=[1,1]>(a, w) {quantised('c', 'd')} "
        "r = Add(k, d)",
    ],
    ids=["before an int8 convolution", "after one", "for one of two readers"],
)
def test_a_quantiser_that_int8_needs_stays(body: str) -> None:
    model = _graph(body)
    assert kinds(rewritten_by(KeepFloats, model)) == kinds(model)


def test_what_the_graph_gives_stays_rounded() -> None:
    model = _graph(f"e = Exp(x) {quantised('e', 'r')}")
    assert kinds(rewritten_by(KeepFloats, model)) == kinds(model)


def test_a_product_of_two_maps_is_float_and_one_with_weights_is_not() -> None:
    both = build(
        f"g (float[1,8,8] x) => (float[1,8,8] r) {{ e = Exp(x) {quantised('e', 'a')} k = Neg(x) {quantised('k', 'b')} "
        f"m = MatMul(a, b) {quantised('m', 'd')} r = Exp(d) }}",
        s=constants(8, 8)["s"],
        z=constants(8, 8)["z"],
    )
    assert kinds(rewritten_by(KeepFloats, both)) == ["Exp", "Neg", "MatMul", "Exp"]
    rng = np.random.default_rng(1)
    one = build(
        f"g (float[1,8,8] x) => (float[1,8,8] r) {{ e = Exp(x) {quantised('e', 'a')} "
        "w = DequantizeLinear(w_q, w_s, w_z) r = MatMul(a, w) }",
        s=constants(8, 8)["s"],
        z=constants(8, 8)["z"],
        w_q=rng.integers(-127, 128, (8, 8)).astype(np.int8),
        w_s=np.array(0.01, np.float32),
        w_z=np.array(0, np.int8),
    )
    assert kinds(rewritten_by(KeepFloats, one)) == kinds(one)
