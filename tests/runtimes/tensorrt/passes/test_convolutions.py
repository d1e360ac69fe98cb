"""Quantisers stand where NVIDIA's engines want them, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeseg.graph.passes import Pass
from edgeseg.graph.passes._base import apply_passes
from edgeseg.graph.run import run_graph
from edgeseg.runtimes.tensorrt.passes.convolutions import FuseResiduals, KeepConvolutionsInt8, QuantiseConvolutions
from tests.graph.passes.tools import build, kinds
from tests.runtimes.ort.passes.quantised import constants, numbers, quantised, rewritten_by

W = "w = DequantizeLinear<axis=0>(w_q, w_s, w_z)"
CONV = "Conv<kernel_shape=[1,1]>"


def _graph(body: str) -> onnx.ModelProto:
    held = {**constants(8, 8), "z": np.array(0, np.int8)}
    return build(f"g (float[1,8,6,10] x) => (float[1,8,6,10] r) {{ {body} }}", **held)


def _reads(model: onnx.ModelProto, kind: str) -> list[list[str]]:
    """What gives the maps that operators of a kind read, for each of them."""
    given = {out: node.op_type for node in model.graph.node for out in node.output}
    return [[given.get(name, "") for name in node.input] for node in model.graph.node if node.op_type == kind]


def _same(before: onnx.ModelProto, after: onnx.ModelProto, most: float) -> None:
    feed = {"x": numbers(5, 1, 8, 6, 10)}
    np.testing.assert_allclose(run_graph(after, feed)[0], run_graph(before, feed)[0], atol=most)


@pytest.mark.parametrize("moved", ["Relu(a)", "Concat<axis=1>(a1, a2)"])
def test_a_convolution_reads_int8_where_its_map_was_only_moved(moved: str) -> None:
    split = "a1, a2 = Split<axis=1, num_outputs=2>(a)"
    model = _graph(f"{quantised('x', 'a')} {split} m = {moved} {W} c = {CONV}(m, w) {quantised('c', 'r')}")
    made = rewritten_by(QuantiseConvolutions, model)
    assert _reads(made, "Conv")[0] == ["DequantizeLinear", "DequantizeLinear"]
    _same(model, made, 0.0)


def test_a_convolution_of_a_float_map_has_float_weights() -> None:
    model = _graph(f"e = Exp(x) {W} r = {CONV}(e, w)")
    made = rewritten_by(QuantiseConvolutions, model)
    assert kinds(made) == ["Exp", "Conv"]
    _same(model, made, 1e-4)


def test_a_product_has_float_weights() -> None:
    body = f"{quantised('x', 'a')} w = DequantizeLinear(m_q, s, z) r = MatMul(a, w)"
    held = {"m_q": np.random.default_rng(1).integers(-127, 128, (10, 10)).astype(np.int8)}
    model = build(
        f"g (float[1,8,6,10] x) => (float[1,8,6,10] r) {{ {body} }}",
        **held,
        s=constants(8, 8)["s"],
        z=np.array(0, np.int8),
    )
    made = apply_passes(model, [QuantiseConvolutions(), KeepConvolutionsInt8()])
    assert kinds(made) == ["MatMul"]


_RESIDUAL = (
    f"{quantised('x', 'a')} {W} c = {CONV}(a, w) {quantised('c', 'd')} {{other}} "
    f"p = Add(d, {{added}}) {quantised('p', 'e')} k = {CONV}(e, w) {quantised('k', 'r')}"
)


@pytest.mark.parametrize(
    ("other", "added"),
    [("", "a"), (f"f = {CONV}(e2, w) {quantised('f', 'b')}", "b"), ("", "x")],
    ids=["its own input", "another convolution", "a float map that is quantised for others"],
)
def test_a_sum_reads_its_convolution_as_it_is_and_the_residual_in_int8(other: str, added: str) -> None:
    other = other and f"{quantised('x', 'e2')} {other}"
    model = _graph(_RESIDUAL.format(other=other, added=added))
    made = rewritten_by(FuseResiduals, model)
    assert sorted(_reads(made, "Add")[0]) == ["Conv", "DequantizeLinear"]
    _same(model, made, 0.7)
    assert _reads(apply_passes(made, [KeepConvolutionsInt8()]), "Add") == _reads(made, "Add")


def test_of_two_convolutions_the_later_one_goes_into_the_sum() -> None:
    body = (
        f"{quantised('x', 'a')} {W} c = {CONV}(a, w) {quantised('c', 'd')} k = {CONV}(a, w) t = Relu(k) "
        f"{quantised('t', 'e')} f = {CONV}(e, w) {quantised('f', 'b')} p = Add(d, b) {quantised('p', 'r')}"
    )
    made = rewritten_by(FuseResiduals, _graph(body))
    (add,) = [node for node in made.graph.node if node.op_type == "Add"]
    assert list(add.input) == ["d", "f"]


@pytest.mark.parametrize(
    "body",
    [
        f"e = Exp(x) {quantised('x', 'a')} {W} c = {CONV}(a, w) r = Add(c, e)",
        f"{quantised('x', 'a')} {W} c = {CONV}(a, w) {quantised('c', 'd')} r = Add(a, a)",
    ],
    ids=["a residual nobody quantised", "no convolution"],
)
def test_other_sums_stay(body: str) -> None:
    model = _graph(body)
    assert kinds(rewritten_by(FuseResiduals, model)) == kinds(model)


@pytest.mark.parametrize(
    "body",
    [
        f"e = Sigmoid(x) {quantised('e', 'a')} r = Mul(a, a)",
        f"e = Exp(x) {quantised('e', 'a')} r = Softmax<axis=1>(a)",
        f"e = Exp(x) {quantised('e', 'a')} p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a) "
        f"{quantised('p', 'q')} r = Sigmoid(q)",
    ],
)
def test_quantisers_that_serve_no_convolution_go(body: str) -> None:
    made = rewritten_by(KeepConvolutionsInt8, _graph(body))
    assert "QuantizeLinear" not in kinds(made)


def test_what_a_convolution_reads_through_a_pool_stays_int8() -> None:
    body = (
        f"e = Exp(x) {quantised('e', 'a')} m = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a) {quantised('m', 'b')} "
        f"{W} c = {CONV}(b, w) r = Sigmoid(c)"
    )
    model = _graph(body)
    assert kinds(rewritten_by(KeepConvolutionsInt8, model)) == kinds(model)


def test_each_pass_says_how_it_proves_itself() -> None:
    steps: list[type[Pass]] = [QuantiseConvolutions, FuseResiduals, KeepConvolutionsInt8]
    assert [step.kind for step in steps] == ["exact", "rounding", "rounding"]
