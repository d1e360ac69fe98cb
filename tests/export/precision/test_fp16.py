"""Casts to half: types fit, ranges are measured, and what overflows stays fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from edgeseg.export.precision.fp16 import measure_nodes
from edgeseg.graph.half import halvable_nodes, to_half
from edgeseg.graph.qdq import named
from edgeseg.graph.run import run_graph
from tests.export.graphs import parse
from tests.export.precision.pictures import images, tiny_graph, write_pictures

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
