"""Resizes alone: merged, moved and dropped where that is the same map, left where it is not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.graph.passes import SimplifyResizes
from tests.graph.passes.tools import build, in_double, kinds, normal, proved


def _sizes(*shape: int) -> np.ndarray:
    return np.array(shape, np.int64)


def _resize(given: str, out: str, sizes: str = "to", mode: str = "linear", transform: str = "half_pixel") -> str:
    rounding = ', nearest_mode="floor"' if transform == "asymmetric" else ""
    words = f'mode="{mode}", coordinate_transformation_mode="{transform}"{rounding}'
    return f"{out} = Resize<{words}>({given}, , , {sizes})"


def test_a_resize_to_the_same_size_vanishes() -> None:
    body = f"{_resize('x', 'a', transform='align_corners')} y = Relu(a)"
    model = build(f"g (float[1,3,4,6] x) => (float[1,3,4,6] y) {{ {body} }}", to=_sizes(1, 3, 4, 6))
    assert kinds(proved(model, SimplifyResizes())[0]) == ["Relu"]


def test_a_resize_to_the_same_size_between_input_and_output_keeps_the_names() -> None:
    model = build(f"g (float[1,3,4,6] x) => (float[1,3,4,6] y) {{ {_resize('x', 'y')} }}", to=_sizes(1, 3, 4, 6))
    rewritten, _ = proved(model, SimplifyResizes())
    assert kinds(rewritten) == ["Identity"]


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_a_single_pixel_is_broadcast_by_what_adds_it(mode: str) -> None:
    body = f"g = GlobalAveragePool(x) {_resize('g', 'a', mode=mode)} y = Add(x, a)"
    model = build(f"g (float[1,3,4,6] x) => (float[1,3,4,6] y) {{ {body} }}", to=_sizes(1, 3, 4, 6))
    assert kinds(proved(model, SimplifyResizes())[0]) == ["GlobalAveragePool", "Add"]


def test_a_single_pixel_is_expanded_where_its_shape_counts() -> None:
    body = f"g = GlobalAveragePool(x) {_resize('g', 'a')} y = Concat<axis=1>(x, a)"
    model = build(f"g (float[1,3,4,6] x) => (float[1,6,4,6] y) {{ {body} }}", to=_sizes(1, 3, 4, 6))
    assert kinds(proved(model, SimplifyResizes())[0]) == ["GlobalAveragePool", "Expand", "Concat"]


def test_whole_nearest_enlargements_merge() -> None:
    body = f"{_resize('x', 'a', 'half', 'nearest')} {_resize('a', 'y', 'to', 'nearest', 'asymmetric')}"
    model = build(
        f"g (float[1,3,4,6] x) => (float[1,3,24,24] y) {{ {body} }}", half=_sizes(1, 3, 8, 12), to=_sizes(1, 3, 24, 24)
    )
    assert kinds(proved(model, SimplifyResizes())[0]) == ["Resize"]


@pytest.mark.parametrize(("mode", "size"), [("nearest", (11, 13)), ("linear", (16, 24))])
def test_other_chains_stay(mode: str, size: tuple[int, int]) -> None:
    body = f"{_resize('x', 'a', 'half', mode)} {_resize('a', 'y', 'to', mode)}"
    model = build(
        f"g (float[1,3,4,6] x) => (float[1,3,{size[0]},{size[1]}] y) {{ {body} }}",
        half=_sizes(1, 3, 8, 12),
        to=_sizes(1, 3, *size),
    )
    assert proved(model, SimplifyResizes())[0] == model


@pytest.mark.parametrize(("join", "channels"), [("Add(a, b)", 4), ("Concat<axis=1>(a, b)", 8)])
def test_maps_resized_alike_are_joined_first(join: str, channels: int) -> None:
    body = f"t = Relu(x) {_resize('x', 'a')} {_resize('t', 'b')} y = {join}"
    model = build(f"g (float[1,4,16,24] x) => (float[1,{channels},64,96] y) {{ {body} }}", to=_sizes(1, 4, 64, 96))
    assert kinds(proved(model, SimplifyResizes())[0]) == ["Relu", join.partition("(")[0].partition("<")[0], "Resize"]


def test_maps_resized_by_other_rules_are_not_joined() -> None:
    body = f"t = Relu(x) {_resize('x', 'a')} {_resize('t', 'b', transform='align_corners')} y = Add(a, b)"
    model = build(f"g (float[1,4,16,24] x) => (float[1,4,64,96] y) {{ {body} }}", to=_sizes(1, 4, 64, 96))
    assert proved(model, SimplifyResizes())[0] == model


def _gated(mode: str = "linear", attributes: str = "") -> onnx.ModelProto:
    resize = f'a = Resize<mode="{mode}"{attributes}>(x, , , to)'
    body = f"g = GlobalAveragePool(x) s = Sigmoid(g) {resize} y = Mul(a, s)"
    return build(f"g (float[1,4,16,24] x) => (float[1,4,64,96] y) {{ {body} }}", to=_sizes(1, 4, 64, 96))


def test_a_gate_per_channel_is_applied_before_the_enlargement() -> None:
    assert kinds(proved(_gated(), SimplifyResizes())[0])[-2:] == ["Mul", "Resize"]
    assert in_double(_gated(), SimplifyResizes()) < 1e-12


@pytest.mark.parametrize(
    "model",
    [
        _gated("cubic"),
        _gated(attributes=", antialias=1"),
        _gated(attributes=", exclude_outside=0, axes=[0,1,2,3]"),
    ],
)
def test_other_resizes_are_left_alone(model: onnx.ModelProto) -> None:
    assert proved(model, SimplifyResizes())[0] == model


@pytest.mark.parametrize(("mode", "moves"), [("nearest", True), ("linear", False)])
def test_only_a_nearest_resize_commutes_with_an_activation(mode: str, moves: bool) -> None:
    body = f"{_resize('x', 'a', mode=mode)} y = Relu(a)"
    model = build(f"g (float[1,4,16,24] x) => (float[1,4,64,96] y) {{ {body} }}", to=_sizes(1, 4, 64, 96))
    assert kinds(proved(model, SimplifyResizes())[0]) == (["Relu", "Resize"] if moves else ["Resize", "Relu"])


def test_free_sizes_are_left_alone() -> None:
    body = f"{_resize('x', 'a')} y = Relu(a)"
    model = build(f"g (float[1,4,H,W] x) => (float[1,4,A,B] y) {{ {body} }}", to=_sizes(1, 4, 5, 5))
    assert not SimplifyResizes()(model).modified


@settings(max_examples=40, deadline=None)
@given(
    source=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    factors=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    again=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    transform=st.sampled_from(["half_pixel", "pytorch_half_pixel", "asymmetric"]),
)
def test_nearest_repeats_merge_exactly(
    source: tuple[int, int], factors: tuple[int, int], again: tuple[int, int], transform: str
) -> None:
    half = tuple(s * f for s, f in zip(source, factors, strict=True))
    full = tuple(s * f for s, f in zip(half, again, strict=True))
    body = f"{_resize('x', 'a', 'half', 'nearest', transform)} {_resize('a', 'y', 'to', 'nearest', transform)}"
    model = build(
        f"g (float[1,2,{source[0]},{source[1]}] x) => (float[1,2,{full[0]},{full[1]}] y) {{ {body} }}",
        half=_sizes(1, 2, *half),
        to=_sizes(1, 2, *full),
    )
    rewritten, reports = proved(model, SimplifyResizes())
    assert len(rewritten.graph.node) == 1
    assert all(report.error in (None, 0.0) for report in reports)


def test_numbers_are_those_of_the_reference() -> None:
    body = f"t = Tanh(x) {_resize('x', 'a')} {_resize('t', 'b')} y = Add(a, b)"
    model = build(f"g (float[1,2,16,16] x) => (float[1,2,48,48] y) {{ {body} }}", to=_sizes(1, 2, 48, 48))
    assert in_double(model, SimplifyResizes()) < 1e-12
    assert normal(2).dtype == np.float32
