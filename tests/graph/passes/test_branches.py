"""Added branches of the same map become one convolution, exact at the border too; others stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.graph.passes import SumBranches
from tests.graph.passes.drawn import drawn, kinds, left_alone, proved, rewritten


def _repvgg(kind: str = "float") -> onnx.ModelProto:
    body = f"""g ({kind}[1,4,7,6] x, {kind}[4,4,3,3] v, {kind}[4] vb, {kind}[4,4,1,1] w, {kind}[4] f)
    => ({kind}[1,4,7,6] y) {{ a = Conv<pads = [1, 1, 1, 1]>(x, v, vb) b = Conv(x, w)
    c = BatchNormalization<epsilon = 0.001>(x, f, f, f, f) d = Add(a, b) e = Add(d, c) y = Relu(e) }}"""
    return drawn(body, f=np.array([0.5, 2.0, 1.0, 3.0]))


def test_repvgg_becomes_one_convolution() -> None:
    assert kinds(rewritten(_repvgg(), SumBranches())) == {"Conv": 1, "Relu": 1}


def test_it_is_exact_in_float64() -> None:
    proved(_repvgg("double"), SumBranches())


def test_a_residual_depthwise_convolution_takes_the_identity() -> None:
    body = """g (float[1,4,7,6] x, float[4,1,3,3] v) => (float[1,4,7,6] y)
    { r = Relu(x) a = Conv<group = 4, pads = [1, 1, 1, 1]>(r, v) y = Add(r, a) }"""
    assert kinds(rewritten(drawn(body), SumBranches())) == {"Relu": 1, "Conv": 1}


def test_a_scaled_map_is_a_branch() -> None:
    body = """g (float[1,4,7,6] x, float[4,2,3,3] v, float[1,4,1,1] s) => (float[1,4,7,6] y)
    { r = Mul(x, s) a = Conv<group = 2, pads = [1, 1, 1, 1]>(x, v) y = Add(a, r) }"""
    assert kinds(rewritten(drawn(body), SumBranches())) == {"Conv": 1}


def test_a_branch_that_is_needed_elsewhere_stays_for_it() -> None:
    body = """g (float[1,4,7,6] x, float[4,1,3,3] v, float[4,1,3,3] w) => (float[1,4,7,6] y, float[1,4,7,6] z)
    { a = Conv<group = 4, pads = [1, 1, 1, 1]>(x, v) z = Relu(a)
      b = Conv<group = 4, pads = [1, 1, 1, 1]>(x, w) y = Add(a, b) }"""
    model = drawn(body)
    changed = rewritten(model, SumBranches())
    assert kinds(changed) == {"Conv": 2, "Relu": 1}


@settings(max_examples=12, deadline=None)
@given(
    kernel=st.sampled_from([(1, 3), (3, 3), (3, 5), (1, 5)]),
    stride=st.integers(1, 2),
    extra=st.integers(0, 1),
    size=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    group=st.sampled_from([1, 2]),
)
def test_paddings_need_not_agree(
    kernel: tuple[int, int], stride: int, extra: int, size: tuple[int, int], group: int
) -> None:
    small, large = kernel
    pads = [[k // 2 + extra] * 4 for k in kernel]
    out = [(side + 2 * extra - 1) // stride + 1 for side in size]
    convs = [f"Conv<group = {group}, strides = [{stride}, {stride}], pads = {pad}>" for pad in pads]
    body = f"""g (float[1,4,{size[0]},{size[1]}] x, float[6,{4 // group},{small},{small}] v,
    float[6,{4 // group},{large},{large}] w, float[6] wb) => (float[1,6,{out[0]},{out[1]}] y)
    {{ a = {convs[0]}(x, v) b = {convs[1]}(x, w, wb) y = Add(a, b) }}"""
    assert kinds(rewritten(drawn(body), SumBranches())) == {"Conv": 1}


@pytest.mark.parametrize(
    ("first", "second", "weights"),
    [
        (
            "Conv<pads = [1, 1, 1, 1]>(x, v)",
            "Conv<group = 4, pads = [1, 1, 1, 1]>(x, w)",
            "[4,4,3,3] v, float[4,1,3,3] w",
        ),
        ("Conv<pads = [1, 1, 1, 1]>(x, v)", "Conv<pads = [1, 1, 1, 1]>(r, w)", "[4,4,3,3] v, float[4,4,3,3] w"),
        ('Conv<auto_pad = "SAME_UPPER">(x, v)', "Conv(x, w)", "[4,4,3,3] v, float[4,4,1,1] w"),
        ("Conv<pads = [1, 1, 1, 1]>(x, k)", "Conv(x, w)", "[4,4,3,3] v, float[4,4,1,1] w"),
        ("Conv<pads = [1, 1, 1, 1]>(x, v)", "Relu(x)", "[4,4,3,3] v, float[4,4,1,1] w"),
    ],
)
def test_other_sums_stay(first: str, second: str, weights: str) -> None:
    body = f"""g (float[1,4,6,6] x, float{weights}) => (float[1,4,6,6] y)
    {{ r = Relu(x) k = Relu(v) a = {first} b = {second} y = Add(a, b) }}"""
    left_alone(drawn(body), SumBranches())


def test_strides_must_agree() -> None:
    body = """g (float[1,4,6,1] x, float[4,4,1,1] v, float[4,4,4,1] w) => (float[1,4,3,1] y)
    { a = Conv<strides = [2, 1]>(x, v) b = Conv(x, w) y = Add(a, b) }"""
    left_alone(drawn(body), SumBranches())


def test_a_union_that_is_mostly_zeros_is_not_made() -> None:
    body = """g (float[1,4,16,16] x, float[4,1,3,3] v, float[4,1,3,3] w) => (float[1,4,16,16] y)
    { a = Conv<group = 4, pads = [1, 1, 1, 1]>(x, v)
      b = Conv<group = 4, dilations = [3, 3], pads = [3, 3, 3, 3]>(x, w) y = Add(a, b) }"""
    (sentence,) = left_alone(drawn(body), SumBranches()).declined
    assert "7x7" in sentence


def test_free_sizes_are_declined() -> None:
    body = """g (float[1,4,H,W] x, float[4,4,1,1] v, float[4,4,1,1] w) => (float[1,4,H,W] y)
    { a = Conv(x, v) b = Conv(x, w) y = Add(a, b) }"""
    left_alone(drawn(body), SumBranches())
