"""Every activation as uint8: the same numbers."""

from __future__ import annotations

import numpy as np
import onnx

from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.unsigned import UnsignedActivations
from tests.graph.passes.tools import build, kinds
from tests.runtimes.ort.passes.quantised import SCALE, constants, numbers, quantised, rewritten_by

ZERO = np.array(0, np.int8)


def _types(model: onnx.ModelProto) -> list[int]:
    """Types of the zero points that quantisers of activations read, in order."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    made = {output for node in model.graph.node for output in node.output} | {value.name for value in model.graph.input}
    return [types[node.input[2]] for node in model.graph.node if node.input[0] in made and len(node.input) > 2]


def test_int8_activations_become_uint8_and_keep_their_numbers() -> None:
    body = (
        f"{quantised('x', 'a')} w = DequantizeLinear<axis=0>(w_q, w_s, w_z) c = Conv(a, w) "
        "d = Relu(c) r_q = QuantizeLinear(d, s, u) r = DequantizeLinear(r_q, s, u)"
    )
    weights = constants(16, 8) | {"z": ZERO, "u": np.array(0, np.uint8)}
    model = build(f"g (float[1,8,6,10] x) => (float[1,16,6,10] r) {{ {body} }}", **weights)
    rewritten = rewritten_by(UnsignedActivations, model)
    assert kinds(rewritten) == kinds(model)
    assert _types(model) == [onnx.TensorProto.INT8] * 2 + [onnx.TensorProto.UINT8] * 2
    assert _types(rewritten) == [onnx.TensorProto.UINT8] * 4
    feed = {"x": 8 * numbers(3, 1, 8, 6, 10)}  # beyond what int8 numbers of this scale hold
    assert np.array_equal(run_graph(model, feed)[0], run_graph(rewritten, feed)[0])


def test_weights_stay_int8_where_they_share_a_zero_point() -> None:
    body = f"{quantised('x', 'a')} w = DequantizeLinear(w_q, ws, z) c = Conv(a, w) {quantised('c', 'r')}"
    weights = {"w_q": constants(16, 8)["w_q"], "ws": np.array(0.002, np.float32), "s": SCALE, "z": ZERO}
    model = build(f"g (float[1,8,6,10] x) => (float[1,16,6,10] r) {{ {body} }}", **weights)
    rewritten = rewritten_by(UnsignedActivations, model)
    points = {node.input[2] for node in rewritten.graph.node if node.input[0] == "w_q"}
    assert points == {"z"}
    feed = {"x": numbers(3, 1, 8, 6, 10)}
    assert np.array_equal(run_graph(model, feed)[0], run_graph(rewritten, feed)[0])


def test_uint8_activations_stay() -> None:
    model = build(f"g (float[1,8] x) => (float[1,8] r) {{ {quantised('x', 'r')} }}", s=SCALE, z=np.array(128, np.uint8))
    assert rewritten_by(UnsignedActivations, model) is model
