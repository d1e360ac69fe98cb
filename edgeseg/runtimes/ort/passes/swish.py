"""Hard swish in int8, which has no kernel for it: the product of two convolutions.

x clip(x / 6 + 1/2, 0, 1) is the convolution that gives x times a gate: the same convolution with a sixth of its scales
and a half added, rounded to numbers from 0 to 255 that stand for 0 to 1. A quantiser's ends cut off at no cost, and
products have an int8 kernel. Below -3 the gate is 0, so that the first convolution needs no numbers there: its range
follows from the output's.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import ALLOWED_DROP, QUANTISE, QuantisedGraph
from edgeseg.runtimes.ort.passes.sources import source_of

__all__ = ["MultiplySwishes"]

_TOP, _KNEE = 255, 3.0
"""Largest uint8 number; where hard swish begins to be 0, and the identity."""


class MultiplySwishes(GraphPass):
    """Turn HardSwish between convolutions (or sums, batch norms) of quantised maps and a quantiser into int8 products.

    Requires that one quantiser reads it, and that nothing else reads what stands before it.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "rounding"
    allowed_drop: ClassVar[float] = ALLOWED_DROP

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        for node in graph.nodes("HardSwish"):
            if not _multiply(graph, node):
                editor.decline("a HardSwish is not between convolutions of quantised maps and a quantiser")


def _multiply(graph: QuantisedGraph, node: ir.Node) -> bool:
    """Put a product in the place of a hard swish, where what stands around it allows that."""
    out, source = node.outputs[0], source_of(graph, node.inputs[0])
    found = graph.readers(out)
    if source is None or len(found) != 1 or found[0].op_type != QUANTISE or out.is_graph_output():
        return False
    scale, zero = (graph.array(value) for value in found[0].inputs[1:3])
    if scale.size != 1 or zero.dtype != np.uint8:
        return False
    largest = max(scale.item() * (_TOP - zero.item()), _KNEE)
    step = (largest + _KNEE) / _TOP
    draft, ones = graph.draft(node), np.ones(source.channels)
    read = source.draft_input(draft)
    factor = source.times(draft, read, "factor", ones, graph.uint8_grid(step, round(_KNEE / step)))
    gate = source.times(draft, read, "gate", ones / 6, graph.uint8_grid(1 / _TOP, 0), shift=0.5)
    draft.commit({out: draft.like("Mul", [factor, gate], out)}, before=node)
    return True
