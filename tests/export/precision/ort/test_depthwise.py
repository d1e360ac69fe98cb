"""Average pools, repeated channels and a few groups as convolutions that have a kernel."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.export.graph.run import run_graph
from edgeseg.export.precision.ort.depthwise import full_for_grouped, pools_as_convolutions, repeat_for_depthwise
from tests.export.passes.tools import build, kinds
from tests.export.precision.ort.quantised import SCALE, ZERO, convolution, numbers, quantised, weights_of


def _pooled(attributes: str, *, height: int = 6, width: int | str = 10, shape: str = "1,8,8,12") -> onnx.ModelProto:
    body = f"{quantised('x', 'a')} c = AveragePool<{attributes}>(a) {quantised('c', 'r')}"
    return build(
        f"g (float[{shape}] x) => (float[1,8,{height},{width}] r) {{ {body} }}",
        s=SCALE,
        z=ZERO,
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
    feed = {"x": numbers(seed, 1, 8, 8, 12)}
    difference = np.abs(run_graph(model, feed)[0] - run_graph(rewritten, feed)[0]) / SCALE
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
            f"{{ {quantised('x', 'a')} c = AveragePool<kernel_shape=[2,2]>(a) r = Relu(c) }}",
            s=SCALE,
            z=ZERO,
        ),
    ],
    ids=["border left out, free width", "large", "rounded up", "float reader"],
)
def test_other_pools_stay(model: onnx.ModelProto) -> None:
    assert "AveragePool" in kinds(pools_as_convolutions(model))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_channels_are_repeated_for_a_depthwise_convolution(own: bool, bias: bool) -> None:
    model = convolution((1, 8, 6, 10), 24, (3, 3), pads=(1, 1, 1, 1), group=8, own=own, bias=bias)
    rewritten = repeat_for_depthwise(model)
    onnx.checker.check_model(rewritten)
    groups = [attribute.i for node in rewritten.graph.node for attribute in node.attribute if attribute.name == "group"]
    assert groups == [24]
    feed = {"x": numbers(2, 1, 8, 6, 10)}
    assert np.array_equal(run_graph(rewritten, feed)[0], run_graph(model, feed)[0])


@pytest.mark.parametrize(
    "model",
    [
        convolution((1, 8, 6, 10), 8, (3, 3), pads=(1, 1, 1, 1), group=8),
        convolution((1, 8, 6, 10), 24, (3, 3), pads=(1, 1, 1, 1), group=8, end="Sigmoid"),
        convolution((1, 8, 6, 10), 24, (3, 3), pads=(1, 1, 1, 1), group=4),
    ],
    ids=["one output each", "float output", "two inputs each"],
)
def test_elsewhere_nothing_is_repeated(model: onnx.ModelProto) -> None:
    assert kinds(repeat_for_depthwise(model)) == kinds(model)


@settings(max_examples=20, deadline=None)
@given(channels=st.integers(2, 4), own=st.booleans())
def test_a_few_depthwise_channels_become_full_ones(channels: int, own: bool) -> None:
    model = convolution((1, channels, 8, 16), channels, (3, 3), pads=(1, 1, 1, 1), group=channels, own=own)
    rewritten = full_for_grouped(model)
    assert weights_of(rewritten) == [(channels, channels, 3, 3)]
    feed = {"x": numbers(4, 1, channels, 8, 16)}
    assert np.array_equal(run_graph(model, feed)[0], run_graph(rewritten, feed)[0])


@settings(max_examples=20, deadline=None)
@given(group=st.integers(2, 8), inputs=st.integers(2, 4), outputs=st.integers(1, 3), own=st.booleans())
def test_a_few_groups_become_a_full_convolution(group: int, inputs: int, outputs: int, own: bool) -> None:
    model = convolution((1, group * inputs, 5, 6), group * outputs, (3, 3), pads=(1, 1, 1, 1), group=group, own=own)
    rewritten = full_for_grouped(model)
    assert weights_of(rewritten) == [(group * outputs, group * inputs, 3, 3)]
    feed = {"x": numbers(4, 1, group * inputs, 5, 6)}
    assert np.array_equal(run_graph(model, feed)[0], run_graph(rewritten, feed)[0])


@pytest.mark.parametrize(("channels", "group"), [(8, 8), (32, 16)])
def test_other_grouped_convolutions_stay(channels: int, group: int) -> None:
    model = convolution((1, channels, 8, 16), group, (3, 3), pads=(1, 1, 1, 1), group=group)
    assert weights_of(full_for_grouped(model)) == weights_of(model)
