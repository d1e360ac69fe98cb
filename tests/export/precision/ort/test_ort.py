"""ONNX Runtime's writing of int8 graphs: the same numbers, more operators in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.export.passes import run_graph
from edgeseg.export.precision.int8 import quantise
from edgeseg.export.precision.ort import for_onnxruntime
from edgeseg.export.precision.ort.depthwise import pools_as_convolutions, repeat_for_depthwise
from edgeseg.export.precision.ort.grids import quantise_grids
from edgeseg.export.precision.ort.pixels import widen_shifts
from edgeseg.export.precision.ort.products import classifiers_as_products
from edgeseg.export.precision.qdq import as_uint8, tidy
from tests.export.passes.tools import build, kinds
from tests.export.precision.ort.quantised import kernels
from tests.export.precision.pictures import images, smooth, tiny_graph, write_pictures

_SCALE, _ZERO = np.array(0.05, np.float32), np.array(128, np.uint8)


def _numbers(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0.0, 2.0, shape).astype(np.float32)


def _quantised(name: str, out: str) -> str:
    return f"{out}_q = QuantizeLinear({name}, s, z) {out} = DequantizeLinear({out}_q, s, z)"


def _convolved(join: str, *, channels: int, end: str = "o", scale: NDArray[np.float32] = _SCALE) -> onnx.ModelProto:
    """Two quantised maps, what joins them to ``m``, and a quantised convolution of it."""
    weight = np.random.default_rng(1).integers(-127, 128, (16, channels, 3, 3)).astype(np.int8)
    body = (
        f"{_quantised('x', 'a')} b_q = QuantizeLinear(y, t, z) b = DequantizeLinear(b_q, t, z) {join} "
        f"w = DequantizeLinear(w_q, ws, wz) c = Conv<pads=[1,1,1,1]>(m, w) {_quantised('c', 'o')} "
    )
    body += f"{end}" if end != "o" else "r = Relu(o)"
    constants: dict[str, NDArray[Any]] = {
        "s": _SCALE,
        "t": scale,
        "z": _ZERO,
        "w_q": weight,
        "ws": np.array(0.002, np.float32),
        "wz": np.array(0, np.int8),
    }
    if "axes" in join:
        constants["axes"] = np.array([1], np.int64)
    model = build(f"g (float[1,8,6,10] x, float[1,8,6,10] y) => (float[1,16,6,10] r) {{ {body} }}", **constants)
    return tidy(model)  # some joins read one map only


FEEDS = {"x": _numbers(2, 1, 8, 6, 10), "y": _numbers(3, 1, 8, 6, 10)}


@pytest.mark.parametrize(
    ("join", "channels"),
    [
        ("m = Concat<axis=1>(a, b)", 16),
        ("p = ReduceMax(a, axes) m = Concat<axis=1>(p, b)", 9),
        ("p = Concat<axis=1>(a, b) q = Concat<axis=1>(a, a) m = Concat<axis=1>(p, q)", 32),
        ("p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a) m = Relu(p)", 8),
    ],
    ids=["concat", "largest", "concats", "pool and relu"],
)
def test_a_joined_map_is_quantised_and_no_number_changes(join: str, channels: int, tmp_path: Path) -> None:
    model = _convolved(join, channels=channels)
    rewritten = quantise_grids(model)
    onnx.checker.check_model(rewritten)
    assert kinds(rewritten).count("QuantizeLinear") == kinds(model).count("QuantizeLinear") + 1
    assert np.array_equal(run_graph(model, FEEDS)[0], run_graph(rewritten, FEEDS)[0])
    assert "QLinearConv" not in kernels(model, tmp_path)
    assert "QLinearConv" in kernels(rewritten, tmp_path)


@pytest.mark.parametrize(
    "model",
    [
        _convolved("m = Concat<axis=1>(a, b)", channels=16, scale=np.array(0.07, np.float32)),
        _convolved("p = Exp(b) m = Concat<axis=1>(a, p)", channels=16),
        _convolved("m = Identity(a) n = Relu(b)", channels=8, end="k = Sigmoid(c) r = Add(k, o)"),
        _convolved("m = DequantizeLinear(a_q, s, z) n = Relu(b)", channels=8),
    ],
    ids=["two scales", "not quantised", "float reader", "nothing to do"],
)
def test_elsewhere_nothing_is_quantised(model: onnx.ModelProto) -> None:
    assert kinds(quantise_grids(model)).count("QuantizeLinear") == kinds(model).count("QuantizeLinear")


def test_a_sum_is_quantised_where_both_sides_are() -> None:
    def model(other: str) -> onnx.ModelProto:
        body = f"{_quantised('x', 'a')} m = Relu(a) {_quantised('y', 'b')} c = Add(m, {other}) {_quantised('c', 'r')}"
        whole = f"g (float[1,8,6,10] x, float[1,8,6,10] y) => (float[1,8,6,10] r) {{ {body} }}"
        return tidy(build(whole, s=_SCALE, z=_ZERO))

    both, one = model("b"), model("y")
    assert kinds(quantise_grids(both)).count("QuantizeLinear") == 4
    assert kinds(quantise_grids(one)) == kinds(one)
    assert np.array_equal(run_graph(both, FEEDS)[0], run_graph(quantise_grids(both), FEEDS)[0])


def _pooled(attributes: str, *, height: int = 6, width: int | str = 10, shape: str = "1,8,8,12") -> onnx.ModelProto:
    body = f"{_quantised('x', 'a')} c = AveragePool<{attributes}>(a) {_quantised('c', 'r')}"
    return build(
        f"g (float[{shape}] x) => (float[1,8,{height},{width}] r) {{ {body} }}",
        s=_SCALE,
        z=_ZERO,
    )


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.booleans(),
    counted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_an_average_pool_becomes_a_convolution(
    kernel: tuple[int, int], stride: tuple[int, int], pad: bool, counted: bool, seed: int
) -> None:
    border = [min(1, side - 1) * pad for side in kernel]
    size = [(side + 2 * b - k) // s + 1 for side, b, k, s in zip((8, 12), border, kernel, stride, strict=True)]
    attributes = (
        f"kernel_shape={list(kernel)}, strides={list(stride)}, pads={border * 2}, count_include_pad={int(counted)}"
    )
    model = _pooled(attributes, height=size[0], width=size[1])
    rewritten = pools_as_convolutions(model)
    assert "AveragePool" not in kinds(rewritten)
    feed = {"x": _numbers(seed, 1, 8, 8, 12)}
    difference = np.abs(run_graph(model, feed)[0] - run_graph(rewritten, feed)[0]) / _SCALE
    assert difference.max() <= (1.01 if counted or not pad else 3.01)  # a border's windows are multiplied by up to 4
    assert difference[..., 1:-1, 1:-1].max(initial=0) <= 1.01
    assert ("Mul" in kinds(rewritten)) == (not counted and any(border))


@pytest.mark.parametrize(
    "model",
    [
        _pooled("kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1]", height=8, width="W", shape="1,8,8,W"),
        _pooled("kernel_shape=[4,4], strides=[1,1]", height=5, width=9),
        _pooled("kernel_shape=[2,2], strides=[3,3], ceil_mode=1", height=3, width=5, shape="1,8,7,13"),
        build(
            f"g (float[1,8,8,12] x) => (float[1,8,7,11] r) "
            f"{{ {_quantised('x', 'a')} c = AveragePool<kernel_shape=[2,2]>(a) r = Relu(c) }}",
            s=_SCALE,
            z=_ZERO,
        ),
    ],
    ids=["border left out, free width", "large", "rounded up", "float reader"],
)
def test_other_pools_stay(model: onnx.ModelProto) -> None:
    assert "AveragePool" in kinds(pools_as_convolutions(model))


def _conv(
    outputs: int, attributes: str, *, inputs: int = 8, side: int = 1, end: str = "", bias: bool = True, own: int = 0
) -> onnx.ModelProto:
    """A convolution of a quantised map with weights quantised per tensor, or per output where `own` says how many."""
    rng = np.random.default_rng(8)
    weight = rng.integers(-127, 128, (outputs, inputs, side, side)).astype(np.int8)
    body = (
        f"{_quantised('x', 'a')} w = DequantizeLinear{'<axis=0>' if own else ''}(w_q, ws, wz) "
        f"c = Conv<{attributes}>(a, w{', b' if bias else ''}) {end or 'r = Sigmoid(c)'}"
    )
    constants: dict[str, NDArray[Any]] = {"s": _SCALE, "z": _ZERO, "w_q": weight}
    constants["ws"] = rng.uniform(0.001, 0.002, own or ()).astype(np.float32)
    constants["wz"] = np.zeros(own or (), np.int8)
    if bias:
        constants["b"] = _numbers(9, outputs)
    return build(f"g (float[1,8,6,10] x) => (float[1,{outputs},6,10] r) {{ {body} }}", **constants)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("own", [0, 3])
def test_a_classifier_becomes_a_product_of_integers(bias: bool, own: int) -> None:
    model = _conv(3, "kernel_shape=[1,1]", bias=bias, own=own)
    rewritten = classifiers_as_products(model)
    onnx.checker.check_model(rewritten)
    assert "Conv" not in kinds(rewritten)
    assert "MatMulInteger" in kinds(rewritten)
    feed = {"x": FEEDS["x"]}
    np.testing.assert_allclose(run_graph(rewritten, feed)[0], run_graph(model, feed)[0], atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        _conv(3, "kernel_shape=[1,1]", end=_quantised("c", "r")),
        _conv(8, "kernel_shape=[1,1]"),
        _conv(3, "kernel_shape=[3,3], pads=[1,1,1,1]", side=3),
        _conv(4, "kernel_shape=[1,1], group=2", inputs=4),
    ],
    ids=["quantised output", "as many outputs", "3x3", "groups"],
)
def test_other_convolutions_stay(model: onnx.ModelProto) -> None:
    assert kinds(classifiers_as_products(model)) == kinds(model)


@pytest.mark.parametrize("own", [0, 24])
@pytest.mark.parametrize("bias", [True, False])
def test_channels_are_repeated_for_a_depthwise_convolution(own: int, bias: bool) -> None:
    attributes = "kernel_shape=[3,3], pads=[1,1,1,1], group=8"
    model = _conv(24, attributes, inputs=1, side=3, end=_quantised("c", "r"), bias=bias, own=own)
    rewritten = repeat_for_depthwise(model)
    onnx.checker.check_model(rewritten)
    groups = [attribute.i for node in rewritten.graph.node for attribute in node.attribute if attribute.name == "group"]
    assert groups == [24]
    feed = {"x": FEEDS["x"]}
    assert np.abs(run_graph(rewritten, feed)[0] - run_graph(model, feed)[0]).max() <= _SCALE * 1.01  # a rounding tie


@pytest.mark.parametrize(
    "model",
    [
        _conv(8, "kernel_shape=[3,3], pads=[1,1,1,1], group=8", inputs=1, side=3, end=_quantised("c", "r")),
        _conv(24, "kernel_shape=[3,3], pads=[1,1,1,1], group=8", inputs=1, side=3),
        _conv(24, "kernel_shape=[3,3], pads=[1,1,1,1], group=4", inputs=2, side=3, end=_quantised("c", "r")),
    ],
    ids=["one output each", "float output", "two inputs each"],
)
def test_elsewhere_nothing_is_repeated(model: onnx.ModelProto) -> None:
    assert kinds(repeat_for_depthwise(model)) == kinds(model)


@pytest.mark.parametrize(("width", "wide"), [("10", True), ("W", False)])
def test_a_shift_of_the_picture_is_repeated_for_every_column(width: str, wide: bool) -> None:
    body = "f = Cast<to=1>(image) t = Transpose<perm=[0,3,1,2]>(f) k = Mul(t, factor) r = Add(k, shift)"
    model = build(
        f"g (uint8[1,6,{width},3] image) => (float[1,3,6,{width}] r) {{ {body} }}",
        factor=_numbers(4, 1, 3, 1, 1),
        shift=_numbers(5, 1, 3, 1, 1),
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    rewritten = widen_shifts(model)
    shapes = {tuple(tensor.dims) for tensor in rewritten.graph.initializer}
    assert shapes == ({(1, 3, 1, 10)} if wide else {(1, 3, 1, 1)})
    feed = {"image": np.random.default_rng(6).integers(0, 256, (1, 6, 10, 3), dtype=np.uint8)}
    assert np.array_equal(run_graph(model, feed)[0], run_graph(rewritten, feed)[0])


def test_a_network_keeps_its_labels(tmp_path: Path) -> None:
    model, _ = tiny_graph()
    quantised = quantise(model, images(write_pictures(tmp_path / "calib", 4)))
    feed: dict[str, Any] = {"image": smooth(20)[None]}
    before, after = run_graph(as_uint8(quantised), feed)[0], run_graph(for_onnxruntime(quantised), feed)[0]
    assert np.mean(before.argmax(1) == after.argmax(1)) >= 0.99
    assert "_wide" in str([tensor.name for tensor in for_onnxruntime(quantised).graph.initializer])


def test_a_float_graph_is_left_alone() -> None:
    model, _ = tiny_graph()
    assert kinds(for_onnxruntime(model)) == kinds(model)


@pytest.mark.parametrize(("outputs", "group"), [(3, 1), (16, 8), (12, 4), (8, 8), (16, 1)])
@pytest.mark.parametrize("end", ["r = Sigmoid(c)", _quantised("c", "r"), f"p = PRelu(c, k) {_quantised('p', 'r')}"])
def test_convolutions_along_one_axis_keep_their_numbers(outputs: int, group: int, end: str) -> None:
    weight = np.random.default_rng(8).integers(-127, 128, (outputs, 8 // group, 1)).astype(np.int8)
    body = f"{_quantised('x', 'a')} w = DequantizeLinear(w_q, ws, wz) c = Conv<group={group}>(a, w) {end}"
    model = build(
        f"g (float[1,8,10] x) => (float[1,{outputs},10] r) {{ {body} }}",
        s=_SCALE,
        z=_ZERO,
        w_q=weight,
        ws=np.array(0.002, np.float32),
        wz=np.array(0, np.int8),
        k=np.full((outputs, 1), 0.25, np.float32),
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    feed = {"x": _numbers(3, 1, 8, 10)}
    steps = np.abs(run_graph(model, feed)[0] - run_graph(for_onnxruntime(model), feed)[0]) / _SCALE
    assert steps.max() <= 1.01
    assert np.mean(steps > 0.01) <= 0.02  # ties of rounding
