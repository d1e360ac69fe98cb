"""Channels of zeros beside the network's own: no number of the network changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.align import AlignChannels
from tests.graph.passes.tools import build, kinds
from tests.runtimes.ort.passes.quantised import constants, numbers, quantised, weights_of

FEED = {"x": numbers(4, 1, 8, 6, 10)}


def _chain(middle: str, *, channels: int = 12, reads: int | None = None, **more: NDArray[Any]) -> onnx.ModelProto:
    """``x`` convolved to ``a`` of some channels, what is done to it (to ``m``), and a convolution of that."""
    given = constants(channels, 8) | constants(16, reads or channels, stem="v", seed=2) | more
    given["b"] = np.random.default_rng(5).integers(-64, 64, channels).astype(np.float32) / 64
    body = (
        f"{quantised('x', 'x0')} w = DequantizeLinear<axis=0>(w_q, w_s, w_z) "
        f"c = Conv<kernel_shape=[1,1]>(x0, w, b) {quantised('c', 'a')} {middle} "
        f"v = DequantizeLinear<axis=0>(v_q, v_s, v_z) d = Conv<kernel_shape=[1,1]>(m, v) {quantised('d', 'r')}"
    )
    model = build(f"g (float[1,8,6,10] x) => (float[1,16,H,W] r) {{ {body} }}", **given)
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    return model


def _aligned(model: onnx.ModelProto, feed: dict[str, NDArray[Any]] = FEED) -> onnx.ModelProto:
    before = model.SerializeToString()
    rewritten = AlignChannels()(model).model
    assert model.SerializeToString() == before
    onnx.checker.check_model(rewritten, full_check=True)
    assert np.array_equal(run_graph(model, feed)[0], run_graph(rewritten, feed)[0])
    return rewritten


DEPTHWISE = "u = DequantizeLinear<axis=0>(u_q, u_s, u_z) "
NORM = {"g": numbers(11, 12), "h": numbers(12, 12), "k": numbers(13, 12), "t": np.abs(numbers(14, 12)) + 0.5}
KEPT: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "nothing": ("m = Identity(a)", {}, None),
    "relu and pool": ("e = Relu(a) m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(e)", {}, None),
    "depthwise": (
        f"{DEPTHWISE} e = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=12>(a, u, b) {quantised('e', 'm')}",
        constants(12, 1, (3, 3), stem="u"),
        None,
    ),
    "float depthwise": (
        "e = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=12>(a, u) f = Sigmoid(e) " + quantised("f", "m"),
        {"u": numbers(3, 12, 1, 3, 3)},
        None,
    ),
    "sum with itself": (f"e = Relu(a) f = Add(a, e) {quantised('f', 'm')}", {}, None),
    "scaled": (
        f"e = Mul(a, k) f = Add(e, h) {quantised('f', 'm')}",
        {"k": numbers(1, 1, 12, 1, 1), "h": numbers(2, 12, 1, 1)},
        None,
    ),
    "scaled by one number": (f"e = Mul(a, k) {quantised('e', 'm')}", {"k": np.array(0.5, np.float32)}, None),
    "mean": (
        f"e = ReduceMean<keepdims=1>(a, axes) f = Mul(a, e) {quantised('f', 'm')}",
        {"axes": np.array([2, 3], np.int64)},
        None,
    ),
    "batch norm and prelu": (
        f"e = BatchNormalization(a, g, h, k, t) f = PRelu(e, p) {quantised('f', 'm')}",
        {**NORM, "p": numbers(15, 12, 1, 1)},
        None,
    ),
    "resized by scales": (
        f'e = Resize<mode="linear">(a, , scales) {quantised("e", "m")}',
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        None,
    ),
    "resized to sizes": (
        f'e = Resize<mode="linear">(a, , , sizes) {quantised("e", "m")}',
        {"sizes": np.array([1, 12, 9, 7], np.int64)},
        None,
    ),
    "joined": ("m = Concat<axis=1>(a, x0, a)", {}, 32),
    "joined as numbers": ("m_q = Concat<axis=1>(a_q, x0_q) m = DequantizeLinear(m_q, s, z)", {}, 20),
    "joined as floats": (f"e = Exp(x0) m0 = Concat<axis=1>(a, e) {quantised('m0', 'm')}", {}, 20),
}


@pytest.mark.parametrize("case", list(KEPT))
def test_twelve_channels_become_sixteen(case: str) -> None:
    middle, more, reads = KEPT[case]
    shapes = weights_of(_aligned(_chain(middle, reads=reads, **more)))
    assert shapes[0] == (16, 8, 1, 1)
    assert shapes[-1][1] % 16 == 0


@settings(max_examples=40, deadline=None)
@given(channels=st.integers(1, 40), seed=st.integers(0, 99), twice=st.booleans())
def test_any_number_of_channels(channels: int, seed: int, twice: bool) -> None:
    middle = "m = Concat<axis=1>(a, a)" if twice else "m = Relu(a)"
    model = _chain(middle, channels=channels, reads=channels * (2 if twice else 1))
    first, last = weights_of(_aligned(model, {"x": numbers(seed, 1, 8, 6, 10)}))
    assert first[0] == (
        channels if channels < 3 else -(-channels // 4) * 4 if channels < 8 else -(-channels // 16) * 16
    )
    assert last[1] >= first[0]


@pytest.mark.parametrize(
    ("middle", "more", "reads"),
    [
        (
            "e = Reshape(a, shape) m = Reshape(e, back)",
            {"shape": np.array([1, 3, 4, 60]), "back": np.array([1, 12, 6, 10])},
            None,
        ),
        ("e = Exp(x0) f = ReduceMax<keepdims=1>(a, axes) m = Concat<axis=1>(e, f)", {"axes": np.array([1])}, 9),
        ("e = Transpose<perm=[0,2,3,1]>(a) m = Transpose<perm=[0,3,1,2]>(e)", {}, None),
        (
            "e = Slice(x0, zero, two, one) f = Concat<axis=1>(x0, e, e) m = Add(a, f)",
            {"zero": np.array([0]), "two": np.array([2]), "one": np.array([1])},
            None,
        ),
        ("m = Add(a, k)", {"k": numbers(1, 1, 12, 6, 10)}, None),
    ],
    ids=["reshape", "maximum over channels", "transpose", "sum with other channels", "sum with a map"],
)
def test_channels_that_are_needed_as_they_are_stay(middle: str, more: dict[str, Any], reads: int | None) -> None:
    shapes = weights_of(_aligned(_chain(middle, reads=reads, **more)))
    assert shapes[0][0] == (16 if middle.startswith("m = Add(a, k)") else 12)


def test_the_graphs_output_stays() -> None:
    held = constants(12, 8)
    body = f"{quantised('x', 'x0')} w = DequantizeLinear<axis=0>(w_q, w_s, w_z) c = Conv(x0, w) {quantised('c', 'r')}"
    model = build(f"g (float[1,8,6,10] x) => (float[1,12,6,10] r) {{ {body} }}", **held)
    assert kinds(_aligned(model)) == kinds(model)


def test_a_transposed_convolution_reads_more_channels() -> None:
    held = constants(12, 8) | {"t": numbers(6, 12, 5, 2, 2)}
    body = (
        f"{quantised('x', 'x0')} w = DequantizeLinear<axis=0>(w_q, w_s, w_z) c = Conv(x0, w) {quantised('c', 'a')} "
        "r = ConvTranspose<strides=[2,2]>(a, t)"
    )
    model = build(f"g (float[1,8,6,10] x) => (float[1,5,12,20] r) {{ {body} }}", **held)
    assert weights_of(_aligned(model)) == [(16, 8, 1, 1)]


def test_a_float_graph_stays() -> None:
    weights = {"w": numbers(1, 12, 8, 1, 1), "v": numbers(2, 5, 12, 1, 1)}
    body = "a = Conv(x, w) b = Relu(a) r = Conv(b, v)"
    model = build(f"g (float[1,8,6,10] x) => (float[1,5,6,10] r) {{ {body} }}", **weights)
    result = AlignChannels()(model)
    assert result.model is model
    assert result.report.reason == "the graph is not quantised"
