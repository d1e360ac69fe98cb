"""Which operators ONNX Runtime runs in int8."""

from __future__ import annotations

import pytest

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.quantised import QuantisedGraph
from edgeseg.runtimes.ort.passes.kernels import runs_in_int8
from tests.runtimes.ort.passes.quantised import convolution


@pytest.mark.parametrize(("end", "expected"), [("", True), ("Relu", True), ("Clip", True), ("Sigmoid", False)])
def test_a_convolution_runs_in_int8_between_quantisers(end: str, expected: bool) -> None:
    graph = QuantisedGraph(GraphEditor(convolution((1, 8, 6, 10), 16, (1, 1), end=end)))
    found = [node for node in graph.nodes("Conv", "Relu", "Clip") if runs_in_int8(graph, node)]
    assert len(found) == (0 if not expected else 2 if end else 1)
