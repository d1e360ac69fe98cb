"""Casts to half: types fit, quantisers follow their neighbours, and what is marked stays fp32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgeseg.errors import ExportError
from edgeseg.export.to_onnx import check_limits
from edgeseg.graph.half import halvable_nodes, kept_in_fp32, marked, to_half
from edgeseg.graph.run import run_graph
from tests.export.graphs import parse
from tests.export.precision.pictures import smooth, tiny_graph


def _kinds(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}


def test_a_network_in_half() -> None:
    model, _ = tiny_graph()
    half = to_half(model, ())
    check_limits(half)
    onnx.checker.check_model(half, full_check=True)
    assert _kinds(half)["logits"] == TensorProto.FLOAT
    assert TensorProto.FLOAT16 in _kinds(half).values()
    assert half.ByteSize() < model.ByteSize() + 500
    feed = {"image": smooth(5)[None]}
    wanted, got = run_graph(model, feed)[0], run_graph(half, feed)[0]
    assert 0 < np.abs(wanted - got).max() <= 2e-3 * np.ptp(wanted)


def test_all_kept_is_the_same_graph() -> None:
    model, _ = tiny_graph()
    same = to_half(model, halvable_nodes(model))
    feed = {"image": smooth(5)[None]}
    assert np.array_equal(run_graph(model, feed)[0], run_graph(same, feed)[0])
    assert TensorProto.FLOAT16 not in _kinds(same).values()


def test_control_flow_is_refused() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) {
          y = If (c) <
            then_branch = a () => (float[2] p) { p = Relu (x) }, else_branch = b () => (float[2] q) { q = Neg (x) }
          >
        }"""
    )
    with pytest.raises(ExportError, match="control flow"):
        to_half(model, ())


def test_marks_stay_in_the_graph_and_are_replaced() -> None:
    model, _ = tiny_graph()
    names = [node.name for node in model.graph.node][:2]
    made = marked(marked(model, dict.fromkeys(names, "too large")), {names[1]: "off by much"})
    assert kept_in_fp32(onnx.load_from_string(made.SerializeToString())) == {
        names[0]: "too large",
        names[1]: "off by much",
    }
    assert kept_in_fp32(model) == {}


_QUANTISED = """
g (float[1,4,6,6] x) => (float[1,4,6,6] r)
<float s = {0.0625}, int8 z = {0}> {
  n = Neg (x)
  a_q = QuantizeLinear (n, s, z)
  a = DequantizeLinear (a_q, s, z)
  w = DequantizeLinear (w_q, s, z)
  c = Conv <kernel_shape = [1, 1]> (a, w)
  d_q = QuantizeLinear (c, s, z)
  d = DequantizeLinear (d_q, s, z)
  r = Neg (d)
}
"""


def _quantised(opset: int) -> onnx.ModelProto:
    model = parse(_QUANTISED, opset=opset, check=False)
    weights = np.random.default_rng(1).integers(-127, 128, (4, 4, 1, 1)).astype(np.int8)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w_q"))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(model)
    return model


def test_quantisers_take_half_scales_from_opset_19_on() -> None:
    half = to_half(_quantised(19), ())
    onnx.checker.check_model(half, full_check=True)
    kinds = _kinds(half)
    assert {kinds[name] for name in ("n", "a", "w", "c", "d")} == {TensorProto.FLOAT16}
    assert {kinds[name] for name in ("a_q", "d_q")} == {TensorProto.INT8}
    assert not {"a_q", "w", "d_q"} & set(halvable_nodes(_quantised(18)))


def test_a_kept_convolution_reads_fp32_from_its_dequantisers_and_no_cast() -> None:
    half = to_half(_quantised(19), ("c",))
    onnx.checker.check_model(half, full_check=True)
    kinds = _kinds(half)
    assert {kinds[name] for name in ("a", "w", "c")} == {TensorProto.FLOAT}
    assert {kinds[name] for name in ("n", "d")} == {TensorProto.FLOAT16}
    read = {source for node in half.graph.node if node.op_type == "Cast" for source in node.input}
    assert not read & {"a", "w", "c"}
