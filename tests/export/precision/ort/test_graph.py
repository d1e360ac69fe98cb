"""The tables of a quantised graph, and constants added to it."""

from __future__ import annotations

import numpy as np

from edgeseg.export.precision.ort._graph import QuantisedGraph
from tests.export.passes.tools import build


def test_a_constant_never_takes_another_ones_name() -> None:
    model = build("g (float[1,2] x) => (float[1,2] r) { y = Mul(x, unit) r = Neg(y) }", unit=np.array(2, np.float32))
    graph = QuantisedGraph(model)
    assert graph.constant("unit", np.array(2, np.float32)) == "unit"
    other = graph.constant("unit", np.array(1, np.float32))
    assert other != "unit"
    assert graph.constant("unit", np.array(1, np.float32)) == other
    assert graph.constant("y", np.array(1, np.float32)) != "y"
    assert graph.constants["unit"] == 2
    assert graph.constants[other] == 1
