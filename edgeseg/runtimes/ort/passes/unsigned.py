"""Activations of one type: uint8, because kernels want one type on both sides of an operator."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import DEQUANTISE, QUANTISE, QuantisedGraph

__all__ = ["UnsignedActivations"]

_MIDDLE = 128
"""What int8 numbers are shifted by to become uint8 ones."""


class UnsignedActivations(GraphPass):
    """Write int8 activations as uint8 with a zero point of 128; no number changes.

    Where a uint8 tensor meets an int8 one ONNX Runtime computes in float. Only for that engine: TensorRT refuses zero
    points. Requires constant zero points.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "exact"

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        for node in graph.nodes(QUANTISE):
            zero = editor.constant(node.inputs[2]) if len(node.inputs) > 2 else None
            if zero is not None and zero.dtype == np.int8:
                _shift(graph, node)


def _shift(graph: QuantisedGraph, quantiser: ir.Node) -> None:
    """Shift the zero point of a quantiser, and of what dequantises its numbers."""
    out = quantiser.outputs[0]
    for node in (quantiser, *graph.readers(out)):
        zero = node.inputs[2] if node.op_type in (DEQUANTISE, QUANTISE) and len(node.inputs) > 2 else None
        if zero is not None:
            shifted = graph.array(zero).astype(np.int16) + _MIDDLE
            graph.editor.set_input(node, 2, graph.constant(f"{zero.name}_shifted", shifted.astype(np.uint8)))
            graph.editor.changes += 1
    out.type = ir.TensorType(ir.DataType.UINT8)
