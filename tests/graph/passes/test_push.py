"""Per-pixel linear maps move to where they cost least, through what they commute with and nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.graph.passes import PushLinear, SimplifyResizes
from tests.graph.passes.tools import build, in_double, kinds, normal, proved


def _to(*shape: int) -> np.ndarray:
    return np.array(shape, np.int64)


def _after_resize(
    mode: str = "linear",
    transform: str = "half_pixel",
    more: str = "",
    between: str = "",
    size: tuple[int, int] = (64, 64),
    out: int = 4,
) -> onnx.ModelProto:
    """A 1x1 convolution from 16 to `out` channels after a resize of 16x16."""
    options = f'mode="{mode}", coordinate_transformation_mode="{transform}"{more}'
    body = f"a = Relu(x) b = Resize<{options}>(a, , , to) c = {between or 'Identity'}(b) y = Conv(c, w, bias)"
    body = body if between else body.replace("c = Identity(b) ", "").replace("Conv(c", "Conv(b")
    return build(
        f"g (float[1,16,16,16] x) => (float[1,{out},{size[0]},{size[1]}] y) {{ {body} }}",
        to=_to(1, 16, *size),
        w=normal(out, 16, 1, 1),
        bias=normal(out, seed=1),
    )


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("transform", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
def test_a_convolution_moves_before_an_enlargement(mode: str, transform: str) -> None:
    rewritten, _ = proved(_after_resize(mode, transform), PushLinear())
    assert kinds(rewritten) == ["Relu", "Conv", "Resize"]


def test_in_real_arithmetic_nothing_changes() -> None:
    assert in_double(_after_resize(), PushLinear()) < 1e-12
    assert in_double(_after_resize(transform="align_corners"), PushLinear()) < 1e-12


@pytest.mark.parametrize(
    "model",
    [
        _after_resize("cubic"),
        _after_resize(more=", antialias=1"),
        _after_resize(more=', keep_aspect_ratio_policy="not_larger"'),
        _after_resize(between="Relu"),
        _after_resize(size=(8, 8), out=16),
    ],
    ids=["cubic", "antialiased", "aspect kept", "activation between", "shrinking"],
)
def test_it_stays_where_it_does_not_commute_or_pay(model: onnx.ModelProto) -> None:
    assert not PushLinear()(model).modified


def test_a_map_others_read_stays_and_the_reason_is_told() -> None:
    body = 'a = Relu(x) b = Resize<mode="linear">(a, , , to) y = Conv(b, w) z = Exp(b)'
    model = build(
        f"g (float[1,4,16,16] x) => (float[1,16,32,32] y, float[1,4,32,32] z) {{ {body} }}",
        to=_to(1, 4, 32, 32),
        w=normal(16, 4, 1, 1),
    )
    result = PushLinear()(model)
    assert not result.modified
    assert "before Resize costs more" in result.report.declined[0]


@pytest.mark.parametrize("conv", ["Conv<pads=[1,1,1,1]>(b, w3)", "Conv<strides=[2,2]>(b, w)", "Conv<group=2>(b, wg)"])
def test_other_convolutions_stay(conv: str) -> None:
    body = f'a = Relu(x) b = Resize<mode="linear">(a, , , to) y = {conv}'
    side = 16 if "strides" in conv else 32
    model = build(
        f"g (float[1,4,8,8] x) => (float[1,2,{side},{side}] y) {{ {body} }}",
        to=_to(1, 4, 32, 32),
        w=normal(2, 4, 1, 1),
        w3=normal(2, 4, 3, 3),
        wg=normal(2, 2, 1, 1),
    )
    assert not PushLinear()(model).modified


def test_weights_that_are_inputs_stay() -> None:
    body = 'a = Relu(x) b = Resize<mode="linear">(a, , , to) y = Conv(b, w)'
    head = "g (float[1,8,8,8] x, float[2,8,1,1] w) => (float[1,2,32,32] y)"
    assert not PushLinear()(build(f"{head} {{ {body} }}", to=_to(1, 8, 32, 32))).modified


def _head(*, activation: bool = False) -> onnx.ModelProto:
    """SegFormer's head in small: linear maps per level, resized, concatenated, fused, normalised, activated."""
    e, size = 16, 32
    nodes: list[str] = []
    constants: dict[str, np.ndarray] = {}
    for index, channels in enumerate((4, 8, 12)):
        constants |= {f"w{index}": normal(e, channels, 1, 1, seed=index), f"b{index}": normal(e, seed=9 + index)}
        source = f"l{index}"
        nodes.append(f"f{index} = Tanh(x{index}) {source} = Conv(f{index}, w{index}, b{index})")
        if activation:
            nodes.append(f"m{index} = Relu({source})")
            source = f"m{index}"
        nodes.append(f'r{index} = Resize<mode="linear">({source}, , , to)')
    constants |= {"s": normal(e, seed=20), "t": normal(e, seed=21), "m": normal(e, seed=22)}
    nodes.append("c = Concat<axis=1>(r0, r1, r2) u = Conv(c, wf) n = BatchNormalization(u, s, t, m, v) h = Relu(n)")
    heads = ", ".join(f"float[1,{c},{s},{s}] x{i}" for i, (c, s) in enumerate(((4, 32), (8, 16), (12, 8))))
    constants |= {"wf": normal(e, 3 * e, 1, 1, seed=30), "wc": normal(5, e, 1, 1, seed=31)}
    constants |= {"v": np.abs(normal(e, seed=23)) + 0.5, "to": _to(1, e, size, size)}
    return build(
        f"g ({heads}) => (float[1,5,{size},{size}] y) {{ {' '.join(nodes)} y = Conv(h, wc) }}",
        **constants,
    )


def test_the_head_of_segformer_becomes_one_small_convolution_a_level() -> None:
    rewritten, _ = proved(_head(), SimplifyResizes(), PushLinear())
    found = kinds(rewritten)
    assert found.count("Conv") == 4
    assert found.count("Resize") == 2
    assert "Concat" not in found
    assert "BatchNormalization" not in found
    shapes = sorted(tuple(t.dims) for t in rewritten.graph.initializer if len(t.dims) == 4)
    assert shapes == [(5, 16, 1, 1), (16, 4, 1, 1), (16, 8, 1, 1), (16, 12, 1, 1)]


def test_with_activations_between_the_levels_only_the_fusion_moves() -> None:
    found = kinds(proved(_head(activation=True), SimplifyResizes(), PushLinear())[0])
    assert found.count("Conv") == 7
    assert "Concat" not in found


def test_the_head_is_exact_in_double() -> None:
    assert in_double(_head(), PushLinear()) < 1e-12


def test_a_pooled_pixel_becomes_a_bias() -> None:
    body = (
        "p = GlobalAveragePool(x) q = Relu(p) e = Expand(q, to) t = Tanh(x) c = Concat<axis=1>(t, e) y = Conv(c, w, b)"
    )
    model = build(
        f"g (float[1,16,24,24] x) => (float[1,8,24,24] y) {{ {body} }}",
        to=_to(1, 16, 24, 24),
        w=normal(8, 32, 1, 1),
        b=normal(8),
    )
    rewritten, _ = proved(model, PushLinear())
    found = kinds(rewritten)
    assert "Concat" not in found
    assert "Expand" not in found
    assert found.count("Conv") == 2
    assert in_double(model, PushLinear()) < 1e-12


def test_parts_that_stay_keep_one_convolution_and_equal_resizes_merge() -> None:
    resizes = "".join(f'r{i} = Resize<mode="linear">({v}, , , to) ' for i, v in enumerate(("s", "u")))
    body = (
        f"t = Tanh(x) v = Exp(x) u = Relu(z) s = Sigmoid(z) {resizes} c = Concat<axis=1>(t, r0, v, r1) y = Conv(c, w)"
    )
    model = build(
        f"g (float[1,8,32,32] x, float[1,8,8,8] z) => (float[1,8,32,32] y) {{ {body} }}",
        to=_to(1, 8, 32, 32),
        w=normal(8, 32, 1, 1),
    )
    found = kinds(proved(model, PushLinear())[0])
    assert found.count("Resize") == 1
    assert found.count("Add") <= 2


def test_a_norm_after_a_concat_folds_into_every_part() -> None:
    body = (
        "a = Conv<pads=[1,1,1,1]>(x, w3, b) d = Conv<group=4, pads=[1,1,1,1]>(x, wd) c = Concat<axis=1>(a, d) "
        "n = BatchNormalization(c, s, t, m, v) y = Relu(n)"
    )
    model = build(
        f"g (float[1,4,12,12] x) => (float[1,10,12,12] y) {{ {body} }}",
        w3=normal(6, 4, 3, 3),
        b=normal(6),
        wd=normal(4, 1, 3, 3),
        s=normal(10),
        t=normal(10, seed=1),
        m=normal(10, seed=2),
        v=np.abs(normal(10, seed=3)) + 0.5,
    )
    rewritten, _ = proved(model, PushLinear())
    assert kinds(rewritten) == ["Conv", "Conv", "Concat", "Relu"]
    assert in_double(model, PushLinear()) < 1e-12


@pytest.mark.parametrize(
    "conv", ["ConvTranspose<strides=[2,2]>(x, w, b)", "ConvTranspose<strides=[2,2], group=2>(x, wg, b)"]
)
def test_a_norm_folds_into_a_transposed_convolution(conv: str) -> None:
    body = f"a = {conv} n = BatchNormalization(a, s, t, m, v) y = Relu(n)"
    grouped = "group" in conv
    model = build(
        f"g (float[1,4,6,6] x) => (float[1,6,12,12] y) {{ {body} }}",
        w=normal(4, 6, 2, 2),
        wg=normal(4, 3, 2, 2),
        b=normal(6),
        s=normal(6),
        t=normal(6, seed=1),
        m=normal(6, seed=2),
        v=np.abs(normal(6, seed=3)) + 0.5,
    )
    found = kinds(proved(model, PushLinear())[0])
    assert found == (["ConvTranspose", "BatchNormalization", "Relu"] if grouped else ["ConvTranspose", "Relu"])


def test_two_convolutions_in_a_row_become_one_where_that_costs_less() -> None:
    def pair(middle: int) -> onnx.ModelProto:
        return build(
            "g (float[1,16,16,16] x) => (float[1,16,16,16] y) { a = Tanh(x) b = Conv(a, w1, b1) y = Conv(b, w2) }",
            w1=normal(middle, 16, 1, 1),
            b1=normal(middle),
            w2=normal(16, middle, 1, 1),
        )

    assert kinds(proved(pair(32), PushLinear())[0]) == ["Tanh", "Conv"]
    wide = build(
        "g (float[1,64,64,64] x) => (float[1,64,64,64] y) { a = Tanh(x) b = Conv(a, w1) y = Conv(b, w2) }",
        w1=normal(2, 64, 1, 1),
        w2=normal(64, 2, 1, 1),
    )
    assert not PushLinear()(wide).modified


def test_a_projection_moves_into_the_convolution_before_it() -> None:
    model = build(
        "g (float[1,4,16,16] x) => (float[1,4,16,16] y) { a = Conv<pads=[1,1,1,1]>(x, w3, b) y = Conv(a, w1, c) }",
        w3=normal(32, 4, 3, 3),
        b=normal(32),
        w1=normal(4, 32, 1, 1),
        c=normal(4),
    )
    assert kinds(proved(model, PushLinear())[0]) == ["Conv"]
    assert in_double(model, PushLinear()) < 1e-12


@pytest.mark.parametrize(("padding", "moves"), [("", True), (", pads=[1,1,1,1], count_include_pad=1", False)])
def test_an_average_commutes_unless_it_counts_padding(padding: str, moves: bool) -> None:
    side, before = (17, 16) if padding else (16, 17)
    body = f"t = Tanh(x) k = Conv(t, w0) p = AveragePool<kernel_shape=[2,2]{padding}>(k) y = Conv(p, w1, b)"
    model = build(
        f"g (float[1,2,{before},{before}] x) => (float[1,2,{side},{side}] y) {{ {body} }}",
        w0=normal(64, 2, 1, 1),
        w1=normal(2, 64, 1, 1),
        b=normal(2),
    )
    assert PushLinear()(model).modified is moves
    proved(model, PushLinear())


def test_the_constants_of_an_activation_stay() -> None:
    body = "a = Conv(x, w) e = Erf(a) p = Add(e, one) q = Mul(a, p) h = Mul(q, half) y = Conv(h, w2)"
    model = build(
        f"g (float[1,4,8,8] x) => (float[1,4,8,8] y) {{ {body} }}",
        w=normal(8, 4, 1, 1),
        w2=normal(4, 8, 1, 1),
        one=np.array(1, np.float32),
        half=np.array(0.5, np.float32),
    )
    assert not PushLinear()(model).modified


def test_free_sizes_are_left_alone() -> None:
    body = 'a = Relu(x) b = Resize<mode="linear">(a, , scales) y = Conv(b, w)'
    model = build(
        f"g (float[1,8,H,W] x) => (float[1,2,A,B] y) {{ {body} }}",
        scales=np.array([1, 1, 2, 2], np.float32),
        w=normal(2, 8, 1, 1),
    )
    assert not PushLinear()(model).modified


@settings(max_examples=20, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)),
    source=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    target=st.tuples(st.integers(6, 14), st.integers(6, 14)),
    mode=st.sampled_from(["linear", "nearest"]),
    transform=st.sampled_from(["half_pixel", "align_corners"]),
    extra=st.sampled_from(["direct", "pooled", "resized"]),
)
def test_any_concat_of_resized_maps_keeps_its_numbers(
    channels: tuple[int, int, int],
    source: tuple[int, int],
    target: tuple[int, int],
    mode: str,
    transform: str,
    extra: str,
) -> None:
    first, second, out = channels
    words = f'mode="{mode}", coordinate_transformation_mode="{transform}"'
    parts = {
        "direct": "e = Tanh(z)",
        "pooled": "p = GlobalAveragePool(z) e = Expand(p, too)",
        "resized": f"p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(z) e = Resize<{words}>(p, , , too)",
    }
    body = f"a = Tanh(x) r = Resize<{words}>(a, , , to) {parts[extra]} c = Concat<axis=1>(r, e) y = Conv(c, w, b)"
    model = build(
        f"g (float[1,{first},{source[0]},{source[1]}] x, float[1,{second},{target[0]},{target[1]}] z) => "
        f"(float[1,{out},{target[0]},{target[1]}] y) {{ {body} }}",
        to=_to(1, first, *target),
        too=_to(1, second, *target),
        w=normal(out, first + second, 1, 1),
        b=normal(out),
    )
    proved(model, PushLinear())


@pytest.mark.parametrize("channels", [(16, 16, 16), (20, 18, 18), (24, 24, 32)])
def test_a_scale_behind_a_residual_stays_where_moving_gains_nothing(channels: tuple[int, int, int]) -> None:
    """ExtremeC3's blocks: one branch would take the scale in, the other would need one of its own."""
    wide = sum(channels)
    convs = " ".join(f"a{i} = Conv(t, w{i}) d{i} = Tanh(a{i}) b{i} = Conv(d{i}, v{i})" for i in range(3))
    body = f"t = Tanh(x) {convs} c = Concat<axis=1>(b0, b1, b2) s = Add(t, c) y = BatchNormalization(s, g, h, m, v)"
    weights = {f"w{i}": normal(18, wide, 1, 1, seed=i) for i in range(3)}
    weights |= {f"v{i}": normal(out, 18, 1, 1, seed=i) for i, out in enumerate(channels)}
    model = build(
        f"g (float[1,{wide},56,56] x) => (float[1,{wide},56,56] y) {{ {body} }}",
        g=normal(wide),
        h=normal(wide, seed=1),
        m=normal(wide, seed=2),
        v=np.abs(normal(wide, seed=3)) + 1,
        **weights,
    )
    assert not PushLinear()(model).modified


_LARGER = 'Resize<mode="linear">(v, , , large)'


@pytest.mark.parametrize(
    ("last", "pooled", "moves"),
    [("Neg(v)", (3, 3), True), (_LARGER, (3, 3), False), (_LARGER, (2, 2), True)],
    ids=["an operator of its own layout", "a resize", "a resize, behind whole factors"],
)
def test_a_sum_stays_away_from_a_convolution_whose_layout_is_worth_more(
    last: str, pooled: tuple[int, int], moves: bool
) -> None:
    """A pooling pyramid, whose sum saves little: what is resized behind it would leave the blocked layout."""
    body = (
        'p = Tanh(z) t = Tanh(x) r = Resize<mode="linear">(p, , , to) c = Concat<axis=1>(t, r) '
        f"u = Conv(c, w) v = Relu(u) y = {last}"
    )
    height, width = (64, 128) if last == _LARGER else (8, 16)
    inputs = f"float[1,256,8,16] x, float[1,256,{pooled[0]},{pooled[1]}] z"
    model = build(
        f"g ({inputs}) => (float[1,64,{height},{width}] y) {{ {body} }}",
        to=_to(1, 256, 8, 16),
        large=_to(1, 64, 64, 128),
        w=normal(64, 512, 1, 1),
    )
    result = PushLinear()(model)
    assert result.modified == moves
    assert any("layout" in reason for reason in result.report.declined) != moves
