"""Operators that no precision touches: those that normalise pixels, and those that compute coordinates."""

from __future__ import annotations

import onnx
import onnx_ir as ir

__all__ = ["MOVES", "NORMALISING", "grid_nodes", "normalisation_nodes", "untouched_nodes"]

MOVES = frozenset(
    {"Concat", "Transpose", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "Flatten", "Pad", "Gather", "Identity"}
)
"""Operators that only move numbers: none of them costs accuracy."""

NORMALISING = frozenset(
    {"Cast", "Transpose", "Mul", "Add", "Sub", "Div", "Split", "Concat", "Slice", "Gather", "Identity"}
)
"""Operators that normalising pixels is made of."""

_MATRIX = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})


def normalisation_nodes(model: onnx.ModelProto) -> list[str]:
    """Name the nodes that only turn pixels into normalised input, in order."""
    graph = ir.serde.deserialize_model(model).graph
    reached = {value for value in graph.inputs if value.name == "image"}
    names = []
    for node in graph:
        changing = [value for value in node.inputs if value is not None and not value.is_initializer()]
        if node.op_type in NORMALISING and changing and reached.issuperset(changing):
            reached.update(node.outputs)
            names.append(node.name or "")
    return names


def grid_nodes(model: onnx.ModelProto) -> list[str]:
    """Name the nodes between the last convolution or product and a GridSample's grid, in order.

    A rounded coordinate samples elsewhere: half has 11 bits, and a picture a thousand pixels.
    """
    graph = ir.serde.deserialize_model(model).graph
    grids = {node.inputs[1] for node in graph if node.op_type == "GridSample"}
    names = []
    for node in reversed(graph):
        if grids.intersection(node.outputs) and node.op_type not in _MATRIX:
            grids.update(node.inputs)
            names.append(node.name or "")
    return names[::-1]


def untouched_nodes(model: onnx.ModelProto) -> list[str]:
    """Name both, without repetition."""
    return list(dict.fromkeys((*normalisation_nodes(model), *grid_nodes(model))))
