"""Shifts of the picture per channel, repeated for every column.

Kernels run channels-last there, where adding three numbers at a time takes many times as long as adding a row of the
picture.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import QuantisedGraph
from edgeseg.graph.roles import NORMALISING

__all__ = ["WidenShifts"]

_ARITHMETIC = ("Add", "Div", "Mul", "Sub")


class WidenShifts(GraphPass):
    """Repeat constants per channel that the picture is scaled or shifted by for every column; no number changes.

    Requires a fixed width, and operators that only turn pixels into normalised input.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "exact"

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        reached = {value for value in editor.graph.inputs if value.name == "image"}
        for node in graph.nodes(*NORMALISING):
            read = [value for value in node.inputs if value is not None and not graph.is_constant(value)]
            if not read or not reached.issuperset(read):
                continue
            reached.update(node.outputs)
            shape = graph.shape(node.outputs[0])
            if node.op_type in _ARITHMETIC and len(shape) == 4 and shape[1] > 1 and shape[3]:
                _widen(graph, node, shape)


def _widen(graph: QuantisedGraph, node: ir.Node, shape: tuple[int, ...]) -> None:
    for index, value in enumerate(node.inputs):
        array = graph.editor.constant(value)
        if value is not None and array is not None and array.shape == (1, shape[1], 1, 1):
            wide = np.ascontiguousarray(np.broadcast_to(array, (1, shape[1], 1, shape[3])))
            graph.editor.set_input(node, index, graph.constant(f"{value.name}_wide", wide))
            graph.editor.changes += 1
