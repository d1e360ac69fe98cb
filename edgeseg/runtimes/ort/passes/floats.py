"""Operators without an int8 kernel, as floats: no numbers rounded for their sake, weights that lie ready.

ONNX Runtime dequantises a float operator's weights in every frame and cannot reorder them for its blocked kernels. A
quantiser that only float operators read costs time and accuracy.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import ALLOWED_DROP, DEQUANTISE, QUANTISE, QuantisedGraph
from edgeseg.runtimes.ort.passes.kernels import runs_in_int8

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
            graph.give_floats(node)
        for quantiser in graph.nodes(QUANTISE):
            before = editor.producer(quantiser.inputs[0])
            users = graph.users(quantiser)
            if before is None or users is None or runs_in_int8(graph, before):
                continue
            if all(_is_float(graph, user) for user in users):
                graph.bypass(quantiser, users)


def _is_float(graph: QuantisedGraph, node: ir.Node) -> bool:
    return node.op_type not in (DEQUANTISE, QUANTISE) and not runs_in_int8(graph, node)
