"""What is linear per pixel joins the convolution that reads it, and moves behind averages."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeseg.graph.passes import ComposeConvs, ShrinkFirst
from tests.graph.passes.tools import build, in_double, kinds, normal, proved


def _norm(channels: int) -> dict[str, np.ndarray]:
    return {
        "s": normal(channels, seed=1),
        "t": normal(channels, seed=2),
        "m": normal(channels, seed=3),
        "v": np.abs(normal(channels, seed=4)) + 0.5,
    }


@pytest.mark.parametrize("group", [1, 2, 4])
def test_a_norm_before_an_unpadded_convolution_folds(group: int) -> None:
    body = f"r = Relu(x) n = BatchNormalization(r, s, t, m, v) y = Conv<group={group}>(n, w, b)"
    model = build(
        f"g (float[1,4,8,8] x) => (float[1,8,6,6] y) {{ {body} }}",
        w=normal(8, 4 // group, 3, 3),
        b=normal(8),
        **_norm(4),
    )
    assert kinds(proved(model, ComposeConvs())[0]) == ["Relu", "Conv"]
    assert in_double(model, ComposeConvs()) < 1e-12


def test_a_norm_before_a_padded_convolution_stays_and_says_why() -> None:
    body = "r = Relu(x) n = BatchNormalization(r, s, t, m, v) y = Conv<pads=[1,1,1,1]>(n, w)"
    model = build(f"g (float[1,4,8,8] x) => (float[1,8,8,8] y) {{ {body} }}", w=normal(8, 4, 3, 3), **_norm(4))
    result = ComposeConvs()(model)
    assert not result.modified
    assert result.report.declined


def test_scale_and_shift_before_a_padded_convolution_leave_only_a_shift() -> None:
    body = "a = Mul(x, s) n = Add(a, t) y = Conv<pads=[1,1,1,1]>(n, w)"
    model = build(
        f"g (float[1,3,16,16] x) => (float[1,8,16,16] y) {{ {body} }}",
        w=normal(8, 3, 3, 3),
        s=normal(1, 3, 1, 1, seed=1),
        t=normal(1, 3, 1, 1, seed=2),
    )
    assert kinds(proved(model, ComposeConvs())[0]) == ["Add", "Conv"]
    assert in_double(model, ComposeConvs()) < 1e-12


@pytest.mark.parametrize(
    ("conv", "weight", "shape"),
    [
        ("Conv<pads=[1,1,1,1]>", normal(8, 4, 3, 3), "1,8,8,8"),
        ("Conv<pads=[1,1,1,1], group=4>", normal(4, 1, 3, 3), "1,4,8,8"),
        ("ConvTranspose<strides=[2,2]>", normal(4, 4, 2, 2), "1,4,16,16"),
        ("ConvTranspose<strides=[2,2], group=2>", normal(4, 2, 2, 2), "1,4,16,16"),
    ],
)
def test_a_scale_folds_whatever_the_padding(conv: str, weight: np.ndarray, shape: str) -> None:
    body = f"r = Relu(x) n = Mul(r, s) y = {conv}(n, w)"
    model = build(f"g (float[1,4,8,8] x) => (float[{shape}] y) {{ {body} }}", w=weight, s=normal(4, 1, 1))
    assert len(kinds(proved(model, ComposeConvs())[0])) == 2
    if "Transpose" not in conv or "group" not in conv:  # ONNX's reference fails on groups of a ConvTranspose
        assert in_double(model, ComposeConvs()) < 1e-12


def _pair(pads: int, bias: bool, *, middle: int = 16, group: int = 1) -> onnx.ModelProto:
    out = 12 - 2 + 2 * pads
    body = (
        f"r = Relu(x) a = Conv(r, w1{', b1' if bias else ''}) "
        f"y = Conv<pads=[{pads},{pads},{pads},{pads}], group={group}>(a, w3, b3)"
    )
    constants = {"b1": normal(middle)} if bias else {}
    return build(
        f"g (float[1,4,12,12] x) => (float[1,{middle},{out},{out}] y) {{ {body} }}",
        w1=normal(middle, 4, 1, 1),
        w3=normal(middle, middle // group, 3, 3),
        b3=normal(middle),
        **constants,
    )


@pytest.mark.parametrize(("pads", "bias"), [(0, False), (0, True), (1, False)])
def test_a_pointwise_convolution_joins_the_next_one(pads: int, bias: bool) -> None:
    assert kinds(proved(_pair(pads, bias), ComposeConvs())[0]) == ["Relu", "Conv"]
    assert in_double(_pair(pads, bias), ComposeConvs()) < 1e-12


def test_a_bias_at_a_padded_border_forbids_it() -> None:
    result = ComposeConvs()(_pair(1, True))
    assert not result.modified
    assert "padded border" in result.report.declined[0]


def test_a_depthwise_convolution_is_not_made_dense() -> None:
    assert not ComposeConvs()(_pair(0, False, group=16)).modified


def test_a_bottleneck_that_costs_less_apart_stays() -> None:
    body = "r = Relu(x) a = Conv(r, w1) y = Conv<pads=[1,1,1,1]>(a, w3)"
    model = build(
        f"g (float[1,64,32,32] x) => (float[1,8,32,32] y) {{ {body} }}", w1=normal(8, 64, 1, 1), w3=normal(8, 8, 3, 3)
    )
    result = ComposeConvs()(model)
    assert not result.modified
    assert "costs more" in result.report.declined[0]


def test_a_convolution_read_twice_stays() -> None:
    body = "r = Relu(x) a = Conv(r, w1) y = Conv<pads=[1,1,1,1]>(a, w3) z = Exp(a)"
    model = build(
        f"g (float[1,16,16,16] x) => (float[1,8,16,16] y, float[1,8,16,16] z) {{ {body} }}",
        w1=normal(8, 16, 1, 1),
        w3=normal(8, 8, 3, 3),
    )
    assert not ComposeConvs()(model).modified


@pytest.mark.parametrize(
    "mean",
    ["GlobalAveragePool(a)", "ReduceMean<keepdims=1>(a, axes)", "AveragePool<kernel_shape=[16,16]>(a)"],
)
def test_a_mean_is_taken_before_the_map(mean: str) -> None:
    body = f"r = Relu(x) a = Conv(r, w, b) p = {mean} y = Sigmoid(p)"
    model = build(
        f"g (float[1,8,16,16] x) => (float[1,32,1,1] y) {{ {body} }}",
        w=normal(32, 8, 1, 1),
        b=normal(32),
        axes=np.array([2, 3], np.int64),
    )
    assert kinds(proved(model, ShrinkFirst())[0])[2:] == ["Conv", "Sigmoid"]
    assert in_double(model, ShrinkFirst()) < 1e-12


def test_a_shrinking_resize_is_done_before_the_map() -> None:
    body = 'r = Relu(x) a = Conv(r, w, b) y = Resize<mode="linear">(a, , , to)'
    model = build(
        f"g (float[1,8,32,32] x) => (float[1,8,16,16] y) {{ {body} }}",
        w=normal(8, 8, 1, 1),
        b=normal(8),
        to=np.array([1, 8, 16, 16], np.int64),
    )
    assert kinds(proved(model, ShrinkFirst())[0]) == ["Relu", "Resize", "Conv"]


@pytest.mark.parametrize(
    "pool",
    [
        "AveragePool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>(a)",
        "MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1]>(a)",
        "ReduceMean<keepdims=1>(a, axes)",
    ],
)
def test_other_pools_stay(pool: str) -> None:
    shape = "1,8,9,9" if "Pool" in pool else "1,8,1,16"
    model = build(
        f"g (float[1,8,16,16] x) => (float[{shape}] y) {{ r = Relu(x) a = Conv(r, w, b) y = {pool} }}",
        w=normal(8, 8, 1, 1),
        b=normal(8),
        axes=np.array([2], np.int64),
    )
    assert not ShrinkFirst()(model).modified
