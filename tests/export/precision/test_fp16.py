"""Casts to half: types fit, ranges are measured, and what overflows stays fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from edgeseg.errors import ExportError
from edgeseg.export.precision.fp16 import halvable_nodes, measure_nodes, to_half
from edgeseg.export.to_onnx import check_limits
from edgeseg.graph.qdq import named
from edgeseg.graph.run import run_graph
from tests.export.graphs import parse
from tests.export.precision.pictures import images, smooth, tiny_graph, write_pictures


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


_OVERFLOWS = """
g (uint8[1,4,4,3] image) => (float[1,3,4,4] logits)
<float k = {300.0}, float e = {0.000001}> {
  f = Cast <to = 1> (image)
  x = Transpose <perm = [0, 3, 1, 2]> (f)
  r = Relu (x)
  m = Mul (r, r)
  n = Mul (m, k)
  s = Mul (n, e)
  logits = Relu (s)
}
"""


def test_what_overflows_stays_fp32_and_meets_its_neighbour_in_fp32() -> None:
    model = named(parse(_OVERFLOWS))
    image = np.full((4, 4, 3), 255, np.uint8)
    measured = measure_nodes(model, [image])
    kept = {name for name, entry in measured.items() if entry.reason}
    producers = {node.name: node.output[0] for node in model.graph.node}
    assert {"m", "n", "s"} == {producers[name] for name in kept}
    assert "near the end of half's range" in measured[next(iter(kept))].reason
    half = to_half(model, kept)
    got = run_graph(half, {"image": image[None]})[0]
    assert np.isfinite(got).all()
    assert got == pytest.approx(255.0**2 * 300 * 1e-6, rel=1e-3)
    with np.errstate(over="ignore"):  # ONNX Runtime on the CPU keeps fp32 between half operators and does not show it
        everything: Any = ReferenceEvaluator(to_half(model, ())).run(None, {"image": image[None]})
    assert np.isinf(everything[0]).all()


def test_long_sums_are_measured() -> None:
    """A mean over 2 ** 18 numbers near 200 overflows half's sum on the way."""
    model = named(
        parse(
            """g (uint8[1,512,512,1] image) => (float[1,1,1,1] logits) <int64[2] axes = {1, 2}> {
              f = Cast <to = 1> (image)
              r = Relu (f)
              logits = ReduceSum (r, axes)
            }"""
        )
    )
    measured = measure_nodes(model, [np.full((512, 512, 1), 200, np.uint8)])
    assert [bool(entry.reason) for entry in measured.values()] == [False, True]


def test_measured_on_pictures(tmp_path: Path) -> None:
    model, _ = tiny_graph()
    measured = measure_nodes(model, images(write_pictures(tmp_path / "c", 2)))
    assert set(measured) == set(halvable_nodes(model))
    assert all(0 < entry.largest < 1000 for entry in measured.values())
    assert not any(entry.reason for entry in measured.values())


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
