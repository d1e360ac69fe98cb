"""Quantisers where numbers lie on a grid already: they change no number, and the reader runs in int8."""

from __future__ import annotations

from typing import ClassVar, Literal

import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import QuantisedGraph

__all__ = ["QuantiseGrids"]

_ACTIVATIONS = {"Add": 2, "Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 2, "Mul": 2}
"""Operators with an int8 kernel, and how many of their inputs are activations."""


class QuantiseGrids(GraphPass):
    """Quantise numbers that lie on a grid already where an operator with an int8 kernel reads them.

    A concat of maps of one scale lies on a grid, and so does the largest number of a window. Requires that all maps the
    operator reads lie on grids, and that quantisers read it.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "exact"

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        quantised: dict[ir.Value, ir.Value] = {}
        for node in graph.nodes(*_ACTIVATIONS):
            read = node.inputs[: _ACTIVATIONS[node.op_type]]
            if all(graph.grid(value) for value in read) and graph.is_quantised(node):
                for index, value in enumerate(read):
                    _quantise(graph, quantised, node, index, value)


def _quantise(
    graph: QuantisedGraph, quantised: dict[ir.Value, ir.Value], node: ir.Node, index: int, value: ir.Value | None
) -> None:
    """Let one input of a node read quantised numbers; `quantised` holds the values that have a quantiser already."""
    grid = graph.grid(value)
    if value is None or grid is None or graph.dequantiser(value) is not None:
        return
    if value not in quantised:
        draft = graph.draft(node)
        quantised[value] = draft.round_to(value, grid, "grid")
        draft.commit({}, before=node)
    graph.editor.set_input(node, index, quantised[value])
