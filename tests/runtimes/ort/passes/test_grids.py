"""Quantisers on grids that are there already: the same numbers, more operators in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgeseg.graph.qdq import tidy
from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.grids import QuantiseGrids
from tests.graph.passes.tools import build, kinds
from tests.runtimes.ort.passes.quantised import SCALE, ZERO, kernels, numbers, quantised, rewritten_by


def _convolved(join: str, *, channels: int, end: str = "o", scale: NDArray[np.float32] = SCALE) -> onnx.ModelProto:
    """Two quantised maps, what joins them to ``m``, and a quantised convolution of it."""
    weight = np.random.default_rng(1).integers(-127, 128, (16, channels, 3, 3)).astype(np.int8)
    body = (
        f"{quantised('x', 'a')} b_q = QuantizeLinear(y, t, z) b = DequantizeLinear(b_q, t, z) {join} "
        f"w = DequantizeLinear(w_q, ws, wz) c = Conv<pads=[1,1,1,1]>(m, w) {quantised('c', 'o')} "
    )
    body += f"{end}" if end != "o" else "r = Relu(o)"
    constants: dict[str, NDArray[Any]] = {
        "s": SCALE,
        "t": scale,
        "z": ZERO,
        "w_q": weight,
        "ws": np.array(0.002, np.float32),
        "wz": np.array(0, np.int8),
    }
    if "axes" in join:
        constants["axes"] = np.array([1], np.int64)
    model = build(f"g (float[1,8,6,10] x, float[1,8,6,10] y) => (float[1,16,6,10] r) {{ {body} }}", **constants)
    return tidy(model)  # some joins read one map only


FEEDS = {"x": numbers(2, 1, 8, 6, 10), "y": numbers(3, 1, 8, 6, 10)}


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
    rewritten = rewritten_by(QuantiseGrids, model)
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
    assert kinds(rewritten_by(QuantiseGrids, model)).count("QuantizeLinear") == kinds(model).count("QuantizeLinear")


def test_two_readers_share_a_quantiser() -> None:
    weights: dict[str, NDArray[Any]] = {
        "w_q": np.ones((16, 16, 1, 1), np.int8),
        "ws": np.array(0.002, np.float32),
        "wz": np.array(0, np.int8),
    }
    body = (
        f"{quantised('x', 'a')} m = Concat<axis=1>(a, a) w = DequantizeLinear(w_q, ws, wz) "
        f"c = Conv(m, w) {quantised('c', 'r')} d = Conv<strides=[2,2]>(m, w) {quantised('d', 'p')}"
    )
    model = build(
        f"g (float[1,8,6,10] x) => (float[1,16,6,10] r, float[1,16,3,5] p) {{ {body} }}", s=SCALE, z=ZERO, **weights
    )
    rewritten = rewritten_by(QuantiseGrids, model)
    assert kinds(rewritten).count("QuantizeLinear") == kinds(model).count("QuantizeLinear") + 1
    feed = {"x": FEEDS["x"]}
    for before, after in zip(run_graph(model, feed), run_graph(rewritten, feed), strict=True):
        assert np.array_equal(before, after)


def test_a_sum_is_quantised_where_both_sides_are() -> None:
    def model(other: str) -> onnx.ModelProto:
        body = f"{quantised('x', 'a')} m = Relu(a) {quantised('y', 'b')} c = Add(m, {other}) {quantised('c', 'r')}"
        whole = f"g (float[1,8,6,10] x, float[1,8,6,10] y) => (float[1,8,6,10] r) {{ {body} }}"
        return tidy(build(whole, s=SCALE, z=ZERO))

    both, one = model("b"), model("y")
    assert kinds(rewritten_by(QuantiseGrids, both)).count("QuantizeLinear") == 4
    assert kinds(rewritten_by(QuantiseGrids, one)) == kinds(one)
    assert np.array_equal(run_graph(both, FEEDS)[0], run_graph(rewritten_by(QuantiseGrids, both), FEEDS)[0])
