"""ONNX Runtime's writing of int8 graphs as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.export.graph.qdq import as_uint8
from edgeseg.export.graph.run import run_graph
from edgeseg.export.precision.int8 import quantise
from edgeseg.export.precision.ort import for_onnxruntime
from tests.export.passes.tools import build, kinds
from tests.export.precision.ort.quantised import SCALE, ZERO, numbers, quantised
from tests.export.precision.pictures import images, smooth, tiny_graph, write_pictures


def test_a_network_keeps_its_labels(tmp_path: Path) -> None:
    model, _ = tiny_graph()
    quantised = quantise(model, images(write_pictures(tmp_path / "calib", 4)))
    feed: dict[str, Any] = {"image": smooth(20)[None]}
    before, after = run_graph(as_uint8(quantised), feed)[0], run_graph(for_onnxruntime(quantised), feed)[0]
    assert np.mean(before.argmax(1) == after.argmax(1)) >= 0.99
    assert "_wide" in str([tensor.name for tensor in for_onnxruntime(quantised).graph.initializer])


def test_a_float_graph_is_left_alone() -> None:
    model, _ = tiny_graph()
    assert kinds(for_onnxruntime(model)) == kinds(model)


@pytest.mark.parametrize(("outputs", "group"), [(3, 1), (16, 8), (12, 4), (8, 8), (16, 1)])
@pytest.mark.parametrize("end", ["r = Sigmoid(c)", quantised("c", "r"), f"p = PRelu(c, k) {quantised('p', 'r')}"])
def test_convolutions_along_one_axis_keep_theirnumbers(outputs: int, group: int, end: str) -> None:
    weight = np.random.default_rng(8).integers(-127, 128, (outputs, 8 // group, 1)).astype(np.int8)
    body = f"{quantised('x', 'a')} w = DequantizeLinear(w_q, ws, wz) c = Conv<group={group}>(a, w) {end}"
    model = build(
        f"g (float[1,8,10] x) => (float[1,{outputs},10] r) {{ {body} }}",
        s=SCALE,
        z=ZERO,
        w_q=weight,
        ws=np.array(0.002, np.float32),
        wz=np.array(0, np.int8),
        k=np.full((outputs, 1), 0.25, np.float32),
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    feed = {"x": numbers(3, 1, 8, 10)}
    steps = np.abs(run_graph(model, feed)[0] - run_graph(for_onnxruntime(model), feed)[0]) / SCALE
    assert steps.max() <= 1.01
    assert np.mean(steps > 0.01) <= 0.02  # ties of rounding
