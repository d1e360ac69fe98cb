"""Channels of zeros: where they may be added, and that nothing changes by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from edgeseg.graph.channel_constants import reordered
from edgeseg.graph.channel_padding import pad_channels, padded_orders
from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.run import run_graph
from tests.graph.passes.tools import build, feeds, normal

WEIGHTS: dict[str, NDArray[Any]] = {
    "w": normal(6, 3, 1, 1),
    "b": normal(6, seed=1),
    "d": normal(6, 1, 3, 3, seed=2),
    "v": normal(5, 6, 1, 1, seed=3),
}


def _width(node: ir.Node, count: int) -> int:
    """Two channels more of a convolution."""
    return count + 2 * (node.op_type == "Conv")


def _model(middle: str, **more: NDArray[Any]) -> onnx.ModelProto:
    """``x`` convolved to ``a`` of six channels, what is done to it (to ``m``), and a convolution of that."""
    given = {name: array for name, array in WEIGHTS.items() if name != "d" or "a, d" in middle} | more
    return build(f"g (float[1,3,5,6] x) => (float[1,5,5,6] y) {{ a = Conv(x, w, b) {middle} y = Conv(m, v) }}", **given)


def _orders(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {value.name or "": order for value, order in padded_orders(GraphEditor(model), _width).items()}


PADDED = (0, 1, 2, 3, 4, 5, -1, -1)
NORM = {"s": normal(6), "h": normal(6, seed=4), "k": normal(6, seed=5), "t": np.abs(normal(6, seed=6))}


@pytest.mark.parametrize(
    ("middle", "more", "values"),
    [
        ("m = Relu(a)", {}, "am"),
        ("m = Conv<group=6, pads=[1,1,1,1]>(a, d)", {}, "am"),
        ("e = BatchNormalization(a, s, h, k, t) m = Sigmoid(e)", NORM, "aem"),
        ("e = Mul(a, k) m = Add(e, a)", {"k": normal(1, 6, 1, 1)}, "aem"),
        ("m = PRelu(a, k)", {"k": normal(6, 1, 1)}, "am"),
        ("m = Sub(a, k)", {"k": normal(1, 6, 5, 6)}, "am"),
    ],
    ids=["activation", "depthwise", "batch norm", "product", "prelu", "a constant map"],
)
def test_what_treats_channels_alike_has_them(middle: str, more: dict[str, NDArray[Any]], values: str) -> None:
    model = _model(middle, **more)
    assert _orders(model) == dict.fromkeys(values, PADDED)
    editor = GraphEditor(model)
    pad_channels(editor, _width)
    padded = editor.to_proto()
    onnx.checker.check_model(padded, full_check=True)
    shapes = {tuple(tensor.dims) for tensor in padded.graph.initializer}
    assert {(8, 3, 1, 1), (8,), (5, 8, 1, 1)} <= shapes
    assert np.array_equal(run_graph(model, feeds(model))[0], run_graph(padded, feeds(model))[0])


@pytest.mark.parametrize(
    ("middle", "more"),
    [
        ("m = Softmax<axis=1>(a)", {}),
        ("e = Exp(a) m = Relu(e)", {}),
        ("m = Reciprocal(a)", {}),
        ("e = Reshape(a, to) m = Reshape(e, back)", {"to": np.array([1, 6, 30]), "back": np.array([1, 6, 5, 6])}),
        ("l, r = Split<axis=1, num_outputs=2>(a) m = Concat<axis=1>(r, l)", {}),
        ("m = Conv<group=2>(a, u)", {"u": normal(6, 3, 1, 1)}),
    ],
    ids=["softmax", "exponential", "reciprocal", "reshape", "split", "groups"],
)
def test_what_needs_its_channels_keeps_them(middle: str, more: dict[str, NDArray[Any]]) -> None:
    assert not _orders(_model(middle, **more))


def test_one_branch_in_the_way_leaves_the_others_padded() -> None:
    body = "a = Conv(x, w) c = Conv(x, w) e = Exp(c) f = Relu(a) m = Concat<axis=1>(f, e) y = Conv(m, v)"
    model = build(
        f"g (float[1,3,5,6] x) => (float[1,5,5,6] y) {{ {body} }}", w=WEIGHTS["w"], v=normal(5, 12, 1, 1, seed=3)
    )
    assert _orders(model) == {"a": PADDED, "f": PADDED, "m": (*PADDED, 6, 7, 8, 9, 10, 11)}
    editor = GraphEditor(model)
    pad_channels(editor, _width)
    assert np.allclose(run_graph(model, feeds(model))[0], run_graph(editor.to_proto(), feeds(model))[0], atol=1e-6)


def test_an_output_of_the_graph_keeps_its_channels() -> None:
    model = build("g (float[1,3,5,6] x) => (float[1,6,5,6] y) { a = Conv(x, w) y = Relu(a) }", w=WEIGHTS["w"])
    assert not _orders(model)


def test_constants_are_filled_where_a_channel_is_of_zeros() -> None:
    array = np.arange(6).reshape(2, 3)
    assert reordered(array, (2, -1, 0), 1, 7.0).tolist() == [[2, 7, 0], [5, 7, 3]]
    assert reordered(array, None, 1) is array
