"""PReLU as the sum of convolutions cut off at 0: the same numbers but for ties of rounding, all in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.prelus import SplitPRelus
from tests.graph.passes.tools import build, kinds
from tests.runtimes.ort.passes.quantised import (
    SCALE,
    ZERO,
    constants,
    formed,
    kernels,
    numbers,
    quantised,
    rewritten_by,
)

W = "w = DequantizeLinear<axis=0>(w_q, w_s, w_z)"
SIGNED = np.array(0, np.int8)
CONV = f"{quantised('x', 'a')} {W} c = Conv<kernel_shape=[1,1]>(a, w, b)"


def _slopes(channels: int, seed: int = 3, low: float = 0.0) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).uniform(low, 1.5, (channels, 1, 1)).astype(np.float32)
    drawn[0] = max(low, 0.0)
    return drawn


def _graph(body: str, channels: int = 8, **more: NDArray[Any]) -> onnx.ModelProto:
    held: dict[str, NDArray[Any]] = constants(8, 8)
    held["b"] = numbers(7, 8)
    held["k"] = _slopes(channels)
    norm: dict[str, NDArray[Any]] = {"g": numbers(11, channels), "h": numbers(12, channels), "m": numbers(13, channels)}
    held |= norm | {"v": np.abs(numbers(14, channels)) + 0.5, "t": np.array(0.03, np.float32)} | more
    model = build(f"g (float[1,8,6,10] x, float[1,8,6,10] y) => (float[1,{channels},6,10] r) {{ {body} }}", **held)
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    return model


FEED = {"x": numbers(4, 1, 8, 6, 10), "y": numbers(5, 1, 8, 6, 10)}
OTHER = "e_q = QuantizeLinear(y, t, z) e = DequantizeLinear(e_q, t, z)"
END = f"p = PRelu(n, k) {quantised('p', 'r')}"
CASES = {
    "convolution": (f"{CONV} p = PRelu(c, k) {quantised('p', 'r')}", 8),
    "batch norm": (f"{quantised('x', 'a')} n = BatchNormalization(a, g, h, m, v) {END}", 8),
    "batch norm of two": (
        f"{quantised('x', 'a')} {OTHER} j = Concat<axis=1>(a, e) n = BatchNormalization(j, g, h, m, v) {END}",
        16,
    ),
    "sum": (f"{quantised('x', 'a')} {OTHER} n = Add(a, e) {END}", 8),
    "batch norm of a sum": (
        f"{quantised('x', 'a')} {OTHER} j = Add(a, e) n = BatchNormalization(j, g, h, m, v) {END}",
        8,
    ),
}
CASES["two convolutions"] = (
    f"u = DequantizeLinear<axis=0>(u_q, u_s, u_z) {CONV} "
    f"d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=8>(a, u, b) n = Concat<axis=1>(c, d) {END}",
    16,
)


def _model(case: str, **more: NDArray[Any]) -> onnx.ModelProto:
    body, channels = CASES[case]
    if case == "two convolutions":
        more = constants(8, 1, (3, 3), stem="u") | more
    return _graph(body, channels, **more)


@pytest.mark.parametrize("low", [0.0, -1.5])
@pytest.mark.parametrize("case", list(CASES))
def test_a_prelu_becomes_a_sum_of_the_same_numbers(case: str, low: float, tmp_path: Path) -> None:
    model = _model(case, k=_slopes(CASES[case][1], low=low))
    rewritten = rewritten_by(SplitPRelus, model)
    onnx.checker.check_model(rewritten, full_check=True)
    assert "PRelu" not in kinds(rewritten)
    steps = np.abs(run_graph(model, FEED)[0] - run_graph(rewritten, FEED)[0]) / SCALE
    assert steps.max() <= 1.01
    assert np.mean(steps) <= (0.02 if "sum" in case else 0.001)  # a sum's weights are rounded, 64 to 127 being one
    assert not {"PRelu", "Conv", "Add", "BatchNormalization"} & set(kernels(formed(model), tmp_path))


@settings(max_examples=25, deadline=None)
@given(slope=st.floats(-2.0, 2.0), seed=st.integers(0, 100))
def test_one_slope_for_all_channels(slope: float, seed: int) -> None:
    model = _graph(CASES["convolution"][0], k=np.full((1, 1, 1), slope, np.float32))
    feed = {"x": numbers(seed, 1, 8, 6, 10), "y": FEED["y"]}
    steps = np.abs(run_graph(model, feed)[0] - run_graph(rewritten_by(SplitPRelus, model), feed)[0]) / SCALE
    assert steps.max() <= 1.01
    assert np.mean(steps) <= 0.002  # ties


@pytest.mark.parametrize(
    "model",
    [
        _graph(f"{CONV} k2 = Abs(y) p = PRelu(c, k2) {quantised('p', 'r')}"),
        _graph(CASES["convolution"][0], z=np.array(0, np.uint8)),
        _graph(f"{CONV} p = PRelu(c, k) r = Sigmoid(p)"),
        _graph(f"{CONV} p = PRelu(c, k) {quantised('p', 'q')} r = Add(q, c)"),
        _graph(f"{quantised('x', 'a')} n = Exp(a) {END}"),
        _graph(f"{quantised('x', 'a')} f = Exp(y) n = Add(a, f) {END}"),
        _graph(f"a_q = QuantizeLinear(x, s, i) a = DequantizeLinear(a_q, s, i) n = Add(a, a) {END}", i=SIGNED),
    ],
    ids=[
        "slopes that change",
        "zero point 0",
        "float reader",
        "read before",
        "another operator",
        "sum with a float",
        "int8 map",
    ],
)
def test_other_prelus_stay(model: onnx.ModelProto) -> None:
    assert kinds(rewritten_by(SplitPRelus, model)) == kinds(model)
    assert SplitPRelus()(model).report.declined


def test_the_two_halves_are_cut_off_at_zero() -> None:
    rewritten = rewritten_by(SplitPRelus, _model("convolution"))
    points = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in rewritten.graph.initializer}
    ends = [int(points[node.input[2]]) for node in rewritten.graph.node if node.op_type == "QuantizeLinear"]
    assert ends == [int(ZERO), 0, 255, int(ZERO)]


def test_negative_slopes_take_a_third_convolution() -> None:
    rewritten = rewritten_by(SplitPRelus, _model("convolution", k=_slopes(8, low=-1.5)))
    assert kinds(rewritten).count("Conv") == 3
    assert kinds(rewritten_by(SplitPRelus, _model("convolution"))).count("Conv") == 2
