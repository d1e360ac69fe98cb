"""Small average pools as depthwise convolutions: at most a step of rounding inside."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.pools import PoolsAsConvolutions
from tests.graph.passes.tools import build, kinds
from tests.runtimes.ort.passes.quantised import SCALE, ZERO, numbers, quantised, rewritten_by


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
    rewritten = rewritten_by(PoolsAsConvolutions, model)
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
    assert "AveragePool" in kinds(rewritten_by(PoolsAsConvolutions, model))
    assert PoolsAsConvolutions()(model).report.declined
