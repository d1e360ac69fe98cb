"""Channel shuffles vanish into weights where they can, and stay, with the reason, where they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.graph.passes import AbsorbShuffles
from tests.graph.passes.drawn import drawn, kinds, left_alone, proved, rewritten

SHUFFLE = "s1 = Reshape(a, apart) s2 = Transpose<perm = [0, 2, 1, 3, 4]>(s1) b = Reshape(s2, together)"
SHAPES = "int64[5] apart, int64[4] together"


def _shapes(channels: int = 6, groups: int = 2, size: tuple[int, int] = (5, 4)) -> dict[str, NDArray[Any]]:
    return {
        "apart": np.array([1, groups, channels // groups, *size]),
        "together": np.array([1, channels, *size]),
    }


def _graph(before: str, after: str, weights: str, *, out: int = 3, kind: str = "float") -> onnx.ModelProto:
    return drawn(
        f"g ({kind}[1,6,5,4] x, {weights}, {SHAPES}) => ({kind}[1,{out},5,4] y) {{ {before} {SHUFFLE} {after} }}",
        **_shapes(),
    )


def test_a_shuffle_between_convolutions_vanishes() -> None:
    model = _graph("a = Conv(x, v)", "r = Relu(b) y = Conv(r, w)", "float[6,3,1,1] v, float[3,6,1,1] w")
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("group", 2))
    assert kinds(rewritten(model, AbsorbShuffles())) == {"Conv": 2, "Relu": 1}


def test_it_passes_what_treats_channels_alike() -> None:
    after = """
    d = Conv<group = 6, pads = [1, 1, 1, 1]>(b, k, kb) p = PRelu(d, slope) n = BatchNormalization(p, f, f, f, f)
    m = Mul(n, scale) q = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(m) y = Conv<pads = [1,1,1,1]>(q, w)
    """
    weights = "float[6,1,3,3] k, float[6] kb, float[6,1,1] slope, float[6] f, float[1,6,1,1] scale, float[3,6,3,3] w"
    shuffled = f"g (float[1,6,5,4] x, {weights}, {SHAPES}) => (float[1,3,5,4] y) {{ a = Relu(x) {SHUFFLE} {after} }}"
    model = drawn(shuffled, f=np.array([0.5, 2.0, 1.0, 3.0, 1.5, 0.7]), **_shapes())
    changed = rewritten(model, AbsorbShuffles())
    assert not {"Reshape", "Transpose"} & set(kinds(changed))


def test_no_number_is_computed_anew() -> None:
    model = _graph("a = Relu(x)", "y = Conv(b, w)", "double[3,6,1,1] w", kind="double")
    proved(model, AbsorbShuffles())
    result = AbsorbShuffles()(model).model
    old, new = (
        onnx.numpy_helper.to_array(each.graph.initializer[-1 if i else 0]) for i, each in enumerate((model, result))
    )
    np.testing.assert_array_equal(np.sort(old.ravel()), np.sort(new.ravel()))


def test_the_shuffle_goes_into_the_convolution_before_where_the_way_out_is_closed() -> None:
    model = _graph("a = Conv(x, w)", "y = Tanh(b)", "float[6,6,1,1] w", out=6)
    changed = rewritten(model, AbsorbShuffles())
    assert kinds(changed) == {"Conv": 1, "Tanh": 1}


def test_a_chain_of_residual_units_loses_every_shuffle() -> None:
    second = SHUFFLE.replace("s1", "t1").replace("s2", "t2").replace("(a,", "(e,").replace("b =", "f =")
    after = f"r = Relu(b) c = Conv(r, v) e = Add(c, b) {second} y = Conv(f, w)"
    model = _graph("a = Relu(x)", after, "float[6,6,1,1] v, float[3,6,1,1] w")
    assert kinds(rewritten(model, AbsorbShuffles())) == {"Relu": 2, "Conv": 2, "Add": 1}


def test_attention_over_channels_is_permuted_along() -> None:
    after = """m = ReduceMean(b, axes) h = Conv(m, v) g = Sigmoid(h) e = Mul(b, g) top = ReduceMax(e, axis)
    z = Mul(e, top) y = Conv(z, w)"""
    shuffled = f"""g (float[1,6,5,4] x, int64[2] axes, int64[1] axis, float[6,6,1,1] v, float[3,6,1,1] w, {SHAPES})
    => (float[1,3,5,4] y) {{ a = Relu(x) {SHUFFLE} {after} }}"""
    model = drawn(shuffled, axes=np.array([2, 3]), axis=np.array([1]), **_shapes())
    assert "Transpose" not in kinds(rewritten(model, AbsorbShuffles()))


def test_concatenated_maps_keep_their_blocks() -> None:
    after = "c = Concat<axis = 1>(x, b) y = Conv(c, w)"
    model = _graph("a = Relu(x)", after, "float[3,12,1,1] w")
    assert kinds(rewritten(model, AbsorbShuffles())) == {"Relu": 1, "Concat": 1, "Conv": 1}


@pytest.mark.parametrize(
    "flip",
    [
        "r, g, b = Split<axis = 1, num_outputs = 3>(a) c = Concat<axis = 1>(b, g, r)",
        "c = Gather<axis = 1>(a, order)",
    ],
)
def test_a_flip_of_colours_goes_into_the_first_convolution(flip: str) -> None:
    body = f"""g (float[1,3,8,8] x, float[1,3,1,1] mean, int64[3] order, float[4,3,3,3] w) => (float[1,4,6,6] y)
    {{ a = Relu(x) {flip} d = Sub(c, mean) y = Conv(d, w) }}"""
    changed = rewritten(drawn(body, order=np.array([2, 1, 0])), AbsorbShuffles())
    assert kinds(changed) == {"Relu": 1, "Sub": 1, "Conv": 1}


def test_free_sizes_are_no_hindrance() -> None:
    body = """g (float[1,3,H,W] x, int64[3] order, float[4,3,1,1] w) => (float[1,4,H,W] y)
    { a = Relu(x) b = Gather<axis = 1>(a, order) y = Conv(b, w) }"""
    assert "Gather" not in kinds(rewritten(drawn(body, order=np.array([1, 2, 0])), AbsorbShuffles()))


@pytest.mark.parametrize(
    ("before", "after", "weights", "out", "reason"),
    [
        ("a = Relu(x)", "y = Tanh(b)", "float[1] w", 6, "input or output of the graph"),
        ("a = Relu(x)", "y = Conv<group = 2>(b, w)", "float[4,3,1,1] w", 4, "mixes the groups"),
        ("a = Relu(x)", "h, y = Split<axis = 1, num_outputs = 2>(b)", "float[1] w", 3, "parts of a Concat or Split"),
        ("a = Relu(x)", "k = Relu(w) y = Conv(b, k)", "float[3,6,1,1] w", 3, "not constant"),
        (
            "a = Relu(x)",
            "t = Reshape(b, w) u = Relu(t) y = Reshape(u, together)",
            "int64[2] w",
            6,
            "mixes the channels",
        ),
        ("a = Relu(x)", "c = Add(b, x) y = Conv(c, w)", "float[3,6,1,1] w", 3, "input or output of the graph"),
        ("a = Relu(x)", "c = CumSum(b, w) y = Relu(c)", "int64[1] w", 6, "CumSum needs"),
    ],
)
def test_it_stays_where_the_channels_must_lie_as_they_do(
    before: str, after: str, weights: str, out: int, reason: str
) -> None:
    body = f"g (float[1,6,5,4] x, {weights}, {SHAPES}) => (float[1,{out},5,4] y) {{ {before} {SHUFFLE} {after} }}"
    given = {"w": np.array([1, 120])} if "int64[2]" in weights else {"w": np.array([1])} if "int64" in weights else {}
    report = left_alone(drawn(body, **_shapes(), **given), AbsorbShuffles())
    assert any(reason in sentence for sentence in report.declined), report.declined


@pytest.mark.parametrize("perm", ["[0, 2, 1, 4, 3]", "[0, 3, 2, 1, 4]"])
def test_a_transpose_that_moves_places_is_no_shuffle(perm: str) -> None:
    body = f"""g (float[1,4,2,2] x, {SHAPES}, float[3,4,1,1] w) => (float[1,3,2,2] y)
    {{ s1 = Reshape(x, apart) s2 = Transpose<perm = {perm}>(s1) b = Reshape(s2, together) y = Conv(b, w) }}"""
    assert not left_alone(drawn(body, **_shapes(4, 2, (2, 2))), AbsorbShuffles()).declined


def test_a_value_inside_that_is_read_elsewhere_keeps_the_shuffle() -> None:
    after = "y = Conv(b, w) z = Relu(s2)"
    body = f"""g (float[1,6,5,4] x, float[3,6,1,1] w, {SHAPES}) => (float[1,3,5,4] y, float[1,3,2,5,4] z)
    {{ a = Relu(x) {SHUFFLE} {after} }}"""
    assert not left_alone(drawn(body, **_shapes()), AbsorbShuffles()).declined


@settings(max_examples=8, deadline=None)
@given(groups=st.sampled_from([2, 3, 4]), width=st.integers(2, 4), group=st.sampled_from([1, 2]))
def test_any_number_of_groups(groups: int, width: int, group: int) -> None:
    channels = groups * width * 2
    body = f"""g (float[1,{channels},3,2] x, float[{channels},{channels // group},1,1] v, float[{channels},1,3,3] k,
    float[5,{channels},1,1] w, {SHAPES}) => (float[1,5,3,2] y) {{ a = Conv<group = {group}>(x, v) {SHUFFLE}
    d = Conv<group = {channels}, pads = [1, 1, 1, 1]>(b, k) r = Relu(d) y = Conv(r, w) }}"""
    model = drawn(body, **_shapes(channels, groups, (3, 2)))
    assert "Transpose" not in kinds(rewritten(model, AbsorbShuffles()))
