"""What is looked up in a quantised graph, and constants added to it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.quantised import QuantisedGraph
from tests.graph.passes.tools import build
from tests.runtimes.ort.passes.quantised import SCALE, ZERO, convolution, quantised


def _graph(model: onnx.ModelProto) -> QuantisedGraph:
    return QuantisedGraph(GraphEditor(model))


def test_a_constant_never_takes_another_ones_name() -> None:
    model = build("g (float[1,2] x) => (float[1,2] r) { y = Mul(x, unit) r = Neg(y) }", unit=np.array(2, np.float32))
    graph = _graph(model)
    assert graph.constant("unit", np.array(2, np.float32)).name == "unit"
    other = graph.constant("unit", np.array(1, np.float32))
    assert other.name != "unit"
    assert graph.constant("unit", np.array(1, np.float32)) is other
    assert graph.constant("y", np.array(1, np.float32)).name != "y"
    assert graph.array(graph.editor.graph.initializers["unit"]) == 2
    assert graph.array(other) == 1


def test_numbers_of_another_type_are_another_constant() -> None:
    graph = _graph(convolution((1, 8, 6, 10), 16, (1, 1)))
    one = graph.constant("one", np.array(1, np.uint8))
    assert graph.constant("one", np.array(1, np.int8)) is not one


def test_what_is_no_constant_has_no_numbers() -> None:
    graph = _graph(convolution((1, 8, 6, 10), 16, (1, 1)))
    with pytest.raises(ValueError, match="x is no constant"):
        graph.array(graph.editor.graph.inputs[0])


def test_a_relu_that_the_graph_gives_is_not_quantised() -> None:
    model = build(
        f"g (float[1,8] x) => (float[1,8] r, float[1,8] d) {{ {quantised('x', 'a')} c = Add(a, a) "
        f"d = Relu(c) {quantised('d', 'r')} }}",
        s=SCALE,
        z=ZERO,
    )
    graph = _graph(model)
    assert not any(graph.is_quantised(node) for node in graph.nodes("Add", "Relu"))


def test_axes_that_are_free_are_zero() -> None:
    graph = _graph(convolution((1, 8, 6, 10), 16, (1, 1), width="W"))
    convolved = next(graph.nodes("Conv")).outputs[0]
    assert graph.shape(convolved) == (1, 16, 6, 0)
    draft = graph.draft(next(graph.nodes("Conv")))
    assert graph.shape(draft.like("Relu", [convolved], convolved)) == (1, 16, 6, 0)
    assert graph.shape(draft.like("Relu", [convolved], convolved, shape=(1, 4, 0, 0))) == (1, 4, 0, 0)
