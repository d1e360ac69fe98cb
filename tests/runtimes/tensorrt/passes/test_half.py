"""Half beside int8, and half at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from edgeseg.graph.half import marked
from edgeseg.graph.qdq import named
from edgeseg.graph.run import run_graph
from edgeseg.runtimes.tensorrt.passes.half import HalfBesideInt8, HalfLogits
from tests.graph.passes.tools import build, kinds
from tests.runtimes.ort.passes.quantised import constants, numbers, quantised

_BODY = (
    f"g (float[1,8,6,10] x) => (float[1,8,6,10] r) {{ n = Neg(x) {quantised('n', 'a')} "
    f"w = DequantizeLinear<axis=0>(w_q, w_s, w_z) c = Conv<kernel_shape=[1,1]>(a, w, b) e = Sigmoid(c) r = Neg(e) }}"
)


def _graph(**other: NDArray[Any]) -> onnx.ModelProto:
    held: dict[str, NDArray[Any]] = {**constants(8, 8), "z": np.array(0, np.int8), "b": np.ones(8, np.float32)}
    return named(build(_BODY, **{**held, **other}))


def _types(model: onnx.ModelProto) -> Mapping[str, int]:
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}


def test_all_beside_int8_is_half() -> None:
    model = _graph()
    made = HalfBesideInt8()(model).model
    found = _types(made)
    assert {found[name] for name in ("n", "a", "w", "c", "e")} == {TensorProto.FLOAT16}
    assert made.opset_import[0].version == 19
    feed = {"x": numbers(5, 1, 8, 6, 10)}
    np.testing.assert_allclose(run_graph(made, feed)[0], run_graph(model, feed)[0], atol=2e-3)


def test_what_is_marked_stays_fp32() -> None:
    model = _graph()
    sigmoid = next(node.name for node in model.graph.node if node.op_type == "Sigmoid")
    found = _types(HalfBesideInt8()(marked(model, {sigmoid: "off by 0.1 in half arithmetic"})).model)
    assert found["e"] == TensorProto.FLOAT
    assert found["c"] == TensorProto.FLOAT16


def test_a_scale_that_half_does_not_hold_leaves_its_convolution_in_fp32() -> None:
    found = _types(HalfBesideInt8()(_graph(w_s=np.full(8, 1e-7, np.float32))).model)
    assert {found[name] for name in ("a", "w", "c")} == {TensorProto.FLOAT}
    assert {found[name] for name in ("n", "e")} == {TensorProto.FLOAT16}


def test_a_channel_next_to_nothing_gets_the_least_scale_and_never_zero() -> None:
    scales = constants(8, 8)["w_s"].copy()
    scales[3] = 1e-12
    made = HalfBesideInt8()(_graph(w_s=scales)).model
    assert _types(made)["c"] == TensorProto.FLOAT16
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    assert (held["w_s_half"] > 0).all()


def test_a_graph_without_quantisers_is_declined() -> None:
    result = HalfBesideInt8()(build("g (float[1,8] x) => (float[1,8] r) { r = Neg(x) }"))
    assert not result.modified
    assert "no quantiser" in result.report.reason


@pytest.mark.parametrize("kind", ["half", "float"])
def test_logits_that_were_half_stay_half(kind: str) -> None:
    end = {"half": "h = Neg(a) r = Cast<to=1>(h)", "float": "f = Cast<to=1>(a) r = Neg(f)"}[kind]
    model = build(f"g (float[1,8,4,4] x) => (float[1,8,4,4] r) {{ a = Cast<to=10>(x) {end} }}")
    made = HalfLogits()(model).model
    assert _types(made)["r"] == (TensorProto.FLOAT16 if kind == "half" else TensorProto.FLOAT)
    assert kinds(made) == (["Cast", "Neg"] if kind == "half" else ["Cast", "Cast", "Neg"])
    assert [value.name for value in made.graph.output] == ["r"]
    feed = {"x": numbers(5, 1, 8, 4, 4)}  # ONNX Runtime on the CPU computes in fp32 between casts, and would not round
    before, after = (_reference(graph, feed) for graph in (model, made))
    assert np.array_equal(before, after.astype(np.float32))


def _reference(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    made: Any = ReferenceEvaluator(model).run(None, dict(feed))
    return np.asarray(made[0])
