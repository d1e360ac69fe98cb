"""Orders of channels: whole groups of a convolution may change places, transposed convolutions are written right."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgeseg.graph.passes import AbsorbShuffles, run_passes
from tests.graph.passes.drawn import drawn, kinds, left_alone, rewritten
from tests.graph.passes.tools import build


def _flipped(after: str, weights: str, out: str, order: list[int]) -> onnx.ModelProto:
    body = f"""g (float[1,4,6,6] x, int64[4] order, {weights}) => (float[{out}] y)
    {{ a = Relu(x) b = Gather<axis = 1>(a, order) {after} }}"""
    return drawn(body, order=np.array(order))


def test_groups_change_places_on_both_sides() -> None:
    after = "c = Conv<group = 2>(b, v) d = Relu(c) y = Conv(d, w)"
    model = _flipped(after, "float[6,2,1,1] v, float[3,6,1,1] w", "1,3,6,6", [3, 2, 0, 1])
    assert "Gather" not in kinds(rewritten(model, AbsorbShuffles()))


def test_groups_that_mix_stay() -> None:
    after = "c = Conv<group = 2>(b, v) y = Conv(c, w)"
    model = _flipped(after, "float[6,2,1,1] v, float[3,6,1,1] w", "1,3,6,6", [0, 2, 1, 3])
    assert "mixes the groups" in left_alone(model, AbsorbShuffles()).declined[0]


@pytest.mark.parametrize("group", [1, 2, 4])
def test_transposed_convolutions_and_resizes(group: int) -> None:
    after = f"""r = Resize<mode = "linear">(b, , scales) c = ConvTranspose<group = {group}, strides = [2, 2]>(r, v, vb)
    y = Conv(c, w)"""
    width = 8 // group
    weights = f"float[4] scales, float[4,{width},2,2] v, float[8] vb, float[3,8,1,1] w"
    body = f"""g (float[1,4,6,6] x, int64[4] order, {weights}) => (float[1,3,24,24] y)
    {{ a = Relu(x) b = Gather<axis = 1>(a, order) {after} }}"""
    model = drawn(body, order=np.array([3, 2, 1, 0]), scales=np.array([1.0, 1.0, 2.0, 2.0]))
    assert "Gather" not in kinds(rewritten(model, AbsorbShuffles()))


def test_padding_slices_and_reshapes_of_places_pass_an_order_on() -> None:
    after = """p = Pad(b, pads) s = Slice(p, starts, ends, axes) f = Reshape(s, flat) u = Reshape(f, back)
    y = Conv(u, w)"""
    weights = "int64[8] pads, int64[1] starts, int64[1] ends, int64[1] axes, int64[3] flat, int64[4] back"
    body = f"""g (float[1,4,6,6] x, int64[4] order, {weights}, float[3,4,1,1] w) => (float[1,3,6,7] y)
    {{ a = Relu(x) b = Gather<axis = 1>(a, order) {after} }}"""
    numbers = {"pads": [0, 0, 0, 1, 0, 0, 1, 0], "starts": [0], "ends": [6], "axes": [2], "flat": [1, 4, 42]}
    given = {name: np.array(value) for name, value in numbers.items()}
    model = drawn(body, order=np.array([1, 0, 3, 2]), back=np.array([1, 4, 6, 7]), **given)
    assert "Gather" not in kinds(rewritten(model, AbsorbShuffles()))


def test_products_with_pooling_matrices_pass_an_order_on() -> None:
    after = "p = MatMul(b, across) q = MatMul(down, p) y = Conv(q, w)"
    model = _flipped(after, "float[6,2] across, float[3,6] down, float[5,4,1,1] w", "1,5,3,2", [2, 3, 1, 0])
    assert "Gather" not in kinds(rewritten(model, AbsorbShuffles()))


@pytest.mark.parametrize(
    ("after", "weights", "out", "reason"),
    [
        ("c = Pad(b, pads) y = Relu(c)", "int64[8] pads", "1,5,6,6", "Pad adds channels"),
        (
            "y = Slice(b, zero, two, one)",
            "int64[1] zero, int64[1] two, int64[1] one",
            "1,2,6,6",
            "some of the channels",
        ),
        ("y = ReduceMean<keepdims = 1>(b, zero)", "int64[1] zero", "1,4,6,6", "the batch"),
        ("c = Transpose<perm = [0, 2, 3, 1]>(b) y = Relu(c)", "float[1] w", "1,6,6,4", "Transpose needs"),
    ],
)
def test_what_needs_its_channels_in_order_keeps_them(after: str, weights: str, out: str, reason: str) -> None:
    body = f"""g (float[1,4,6,6] x, int64[4] order, {weights}) => (float[{out}] y)
    {{ a = Relu(x) b = Gather<axis = 1>(a, order) {after} }}"""
    numbers = {"pads": [0, 1, 0, 0, 0, 0, 0, 0], "zero": [0], "one": [1], "two": [2], "order": [1, 0, 3, 2]}
    given = {name: np.array(value) for name, value in numbers.items()}
    report = left_alone(drawn(body, **given), AbsorbShuffles())
    assert any(reason in sentence for sentence in report.declined), report.declined


@pytest.mark.parametrize("scales", [(), (6,)])
def test_quantised_weights_are_written_in_an_order_with_their_scales(scales: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    numbers: dict[str, NDArray[Any]] = {
        "s": np.array(0.0625, np.float32),
        "z": np.array(0, np.int8),
        "w_q": rng.integers(-127, 128, (6, 4, 1, 1)).astype(np.int8),
        "w_s": (2.0 ** -rng.integers(9, 12, scales)).astype(np.float32),
        "w_z": np.zeros(scales, np.int8),
        "order": np.array([3, 2, 0, 1, 5, 4]),
        "v": rng.normal(size=(3, 6, 1, 1)).astype(np.float32),
    }
    body = """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) w = DequantizeLinear<axis = 0>(w_q, w_s, w_z)
    c = Conv(d, w) e = QuantizeLinear(c, s, z) f = DequantizeLinear(e, s, z) g = Gather<axis = 1>(f, order)
    y = Conv(g, v)"""
    model = build(f"g (float[1,4,6,6] x) => (float[1,3,6,6] y) {{ {body} }}", **numbers)
    step = AbsorbShuffles()
    changed, (report,) = run_passes(model, [step], {"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)})
    assert report.modified, report.declined
    assert "Gather" not in kinds(changed)
