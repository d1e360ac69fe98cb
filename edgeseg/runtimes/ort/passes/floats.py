"""Operators without an int8 kernel, as floats: no numbers rounded for their sake, weights that lie ready.

ONNX Runtime dequantises a float operator's weights in every frame and cannot reorder them for its blocked kernels. A
quantiser that only float operators read costs time and accuracy.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.editor import GraphEditor, attribute_int
from edgeseg.graph.passes._base import GraphPass
from edgeseg.runtimes.ort.passes.quantised import ALLOWED_DROP, DEQUANTISE, QUANTISE, QuantisedGraph, Weight

__all__ = ["KeepFloats"]


class KeepFloats(GraphPass):
    """Give float weights to every operator that has no int8 kernel where it stands, and no quantisers only for such.

    Requires nothing else. A quantiser stays where it lets the operator before it run in int8.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "rounding"
    allowed_drop: ClassVar[float] = ALLOWED_DROP

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        for node in [node for node in editor.nodes() if _is_float(graph, node)]:
            _give_floats(graph, node)
        for quantiser in graph.nodes(QUANTISE):
            before = editor.producer(quantiser.inputs[0])
            if before is not None and not graph.runs_in_int8(before):
                _bypass(graph, quantiser)


def _is_float(graph: QuantisedGraph, node: ir.Node) -> bool:
    return node.op_type not in (DEQUANTISE, QUANTISE) and not graph.runs_in_int8(node)


def _give_floats(graph: QuantisedGraph, node: ir.Node) -> None:
    """Let a node read weights as floats."""
    for index, value in enumerate(node.inputs):
        weight, reader = graph.weight(value), graph.editor.producer(value)
        if value is not None and weight is not None and reader is not None:
            numbers = _numbers(graph, weight, attribute_int(reader, "axis", 1))
            graph.editor.set_input(node, index, graph.constant(f"{value.name}_float", numbers))
            graph.editor.changes += 1


def _bypass(graph: QuantisedGraph, quantiser: ir.Node) -> None:
    """Let float operators read what a quantiser reads, where they are all that reads its numbers."""
    readers = graph.readers(quantiser.outputs[0])
    values = [node.outputs[0] for node in readers]
    users = list(dict.fromkeys(user for value in values for user in graph.readers(value)))
    if any(node.op_type != DEQUANTISE for node in readers) or any(value.is_graph_output() for value in values):
        return
    if quantiser.outputs[0].is_graph_output() or not all(_is_float(graph, user) for user in users):
        return
    for user in users:
        for index, value in enumerate(user.inputs):
            if value in values:
                graph.editor.set_input(user, index, quantiser.inputs[0])
                graph.editor.changes += 1


def _numbers(graph: QuantisedGraph, weight: Weight, axis: int) -> NDArray[np.float32]:
    """Return what a dequantiser of constants gives."""
    numbers = weight.numbers.astype(np.float64)
    scale, zero = (graph.array(value).astype(np.float64) for value in (weight.scale, weight.zero))
    if scale.size > 1:
        shape = [1] * numbers.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    floats: NDArray[np.float32] = ((numbers - zero) * scale).astype(np.float32)
    return floats
