"""Quantisers by NVIDIA's rules: around convolutions, on what is added to them, and nowhere else.

TensorRT computes what lies between a dequantiser and a quantiser in int8, and a lone quantiser costs a kernel of its
own. Its documents ask for them on the inputs of convolutions and on the residual input of a sum, and for none around
sigmoids, softmax and products. NNCF sets them by what CPUs run in int8.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import ALLOWED_DROP, DEQUANTISE, QUANTISE, QuantisedGraph
from edgeseg.graph.roles import MOVES

__all__ = ["FuseResiduals", "KeepConvolutionsInt8", "QuantiseConvolutions"]

CONVOLUTIONS = ("Conv", "ConvTranspose")

_PASSES_ON = MOVES | {"MaxPool", "Relu"}
"""Operators that TensorRT lets quantised numbers pass through."""


class QuantiseConvolutions(GraphPass):
    """Let every convolution with int8 weights read int8 maps, and all other operators float weights; no number changes.

    A map that was only moved since it was dequantised is quantised again by the same scale. Requires nothing.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "exact"

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        made: dict[ir.Value, ir.Value] = {}
        for node in [node for node in editor.nodes() if node.op_type not in (DEQUANTISE, QUANTISE)]:
            if node.op_type not in CONVOLUTIONS or not _reads_int8(graph, node, made):
                graph.give_floats(node)


def _reads_int8(graph: QuantisedGraph, node: ir.Node, made: dict[ir.Value, ir.Value]) -> bool:
    """Tell whether a convolution reads int8 weights and maps, after its map was quantised where that is exact."""
    value = node.inputs[0]
    if value is None or graph.weight(node.inputs[1]) is None:
        return False
    if graph.dequantiser(value) is not None:
        return True
    grid = graph.grid(value)
    if grid is None:
        return False
    if value not in made:
        draft = graph.draft(node)
        made[value] = draft.round_to(value, grid, "moved")
        draft.commit({}, before=node)
    graph.editor.set_input(node, 0, made[value])
    graph.editor.changes += 1
    return True


class FuseResiduals(GraphPass):
    """Let a sum read the convolution before it as it is, and what is added to that in int8.

    TensorRT then adds within the convolution's kernel. Requires a sum of two maps of one shape, one of them of a
    convolution that nothing else reads, and a quantiser of the other.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "rounding"
    allowed_drop: ClassVar[float] = ALLOWED_DROP

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        order = {node: index for index, node in enumerate(editor.nodes())}
        for node in graph.nodes("Add"):
            found = [index for index in (0, 1) if _own_convolution(graph, node, index) is not None]
            if not found or graph.shape(node.inputs[0]) != graph.shape(node.inputs[1]):
                continue
            main = max(found, key=lambda index: _place(graph, node, index, order))
            other = node.inputs[1 - main]
            if graph.dequantiser(other) is None and not _requantise(graph, node, 1 - main):
                continue
            quantiser = _quantiser(graph, node.inputs[main])
            if quantiser is not None:
                graph.bypass(quantiser, [node])


def _quantiser(graph: QuantisedGraph, value: ir.Value | None) -> ir.Node | None:
    """Return what quantised a map that was dequantised to this value."""
    reader = graph.dequantiser(value)
    return None if reader is None else graph.editor.producer(reader.inputs[0], QUANTISE)


def _source(graph: QuantisedGraph, value: ir.Value | None) -> ir.Value | None:
    """Return a map as it was before it was quantised and dequantised."""
    quantiser = _quantiser(graph, value)
    return value if quantiser is None else quantiser.inputs[0]


def _own_convolution(graph: QuantisedGraph, node: ir.Node, index: int) -> ir.Node | None:
    """Return the int8 convolution whose output this input of a sum is, where nothing else reads that."""
    value = node.inputs[index]
    source = _source(graph, value)
    made = graph.editor.producer(source, *CONVOLUTIONS)
    if made is None or source is None or not is_int8(graph, made) or source.is_graph_output():
        return None
    quantiser = _quantiser(graph, value)
    if len(graph.readers(source)) != 1 or (quantiser is not None and graph.users(quantiser) != [node]):
        return None
    return made


def _place(graph: QuantisedGraph, node: ir.Node, index: int, order: dict[ir.Node, int]) -> int:
    made = _own_convolution(graph, node, index)
    return -1 if made is None else order.get(made, -1)


def _requantise(graph: QuantisedGraph, node: ir.Node, index: int) -> bool:
    """Let an input of a sum read the int8 numbers that others read of the same map already, where they do."""
    value = node.inputs[index]
    quantisers = [] if value is None else [user for user in graph.readers(value) if user.op_type == QUANTISE]
    numbers = [reader.outputs[0] for user in quantisers for reader in graph.readers(user.outputs[0])]
    if not numbers:
        return False
    graph.editor.set_input(node, index, numbers[0])
    graph.editor.changes += 1
    return True


def is_int8(graph: QuantisedGraph, node: ir.Node) -> bool:
    """Tell whether a convolution reads int8 weights and an int8 map."""
    return graph.weight(node.inputs[1]) is not None and graph.dequantiser(node.inputs[0]) is not None


class KeepConvolutionsInt8(GraphPass):
    """Drop the quantisers that serve no int8 convolution: those around sigmoids, softmax, products, pools and matrices.

    A map that a convolution reads in int8 stays so, for others that read it too. Requires nothing.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "rounding"
    allowed_drop: ClassVar[float] = ALLOWED_DROP

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        for quantiser in reversed(list(graph.nodes(QUANTISE))):
            users = graph.users(quantiser)
            if users is not None and not any(_serves(graph, user) for user in users):
                graph.bypass(quantiser, users)


def _serves(graph: QuantisedGraph, user: ir.Node) -> bool:
    """Tell whether int8 numbers serve a node: a convolution, what is added to one, or what hands them on to one."""
    if user.op_type in CONVOLUTIONS:
        return is_int8(graph, user)
    if user.op_type == "Add":
        return any(_fused(graph, user, index) for index in (0, 1))
    if user.op_type in _PASSES_ON:
        return any(reader.op_type == QUANTISE or _serves(graph, reader) for reader in graph.readers(user.outputs[0]))
    return False


def _fused(graph: QuantisedGraph, node: ir.Node, index: int) -> bool:
    """Tell whether a sum reads an int8 convolution as it is, which it will be part of."""
    made = graph.editor.producer(node.inputs[index], *CONVOLUTIONS)
    return made is not None and is_int8(graph, made) and len(graph.readers(made.outputs[0])) == 1
