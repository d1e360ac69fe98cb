"""Operators that no precision touches: those that normalise pixels, and those that compute coordinates."""

from __future__ import annotations

import onnx

__all__ = ["MOVES", "NORMALISING", "grid_nodes", "normalisation_nodes", "untouched_nodes"]

MOVES = frozenset(
    {"Concat", "Transpose", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "Flatten", "Pad", "Gather", "Identity"}
)
"""Operators that only move numbers: none of them costs accuracy."""

NORMALISING = frozenset(
    {"Cast", "Transpose", "Mul", "Add", "Sub", "Div", "Split", "Concat", "Slice", "Gather", "Identity"}
)
_MATRIX = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})


def normalisation_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that only turn pixels into normalised input, in order."""
    reached = {"image"}
    constants = {tensor.name for tensor in model.graph.initializer} | {""}
    names = []
    for node in model.graph.node:
        changing = [name for name in node.input if name not in constants]
        if node.op_type in NORMALISING and changing and reached.issuperset(changing):
            reached.update(node.output)
            names.append(node.name)
    return names


def grid_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes between the last convolution or product and a GridSample's grid, in order.

    A rounded coordinate samples elsewhere: half has 11 bits, and a picture a thousand pixels.
    """
    grids = {node.input[1] for node in model.graph.node if node.op_type == "GridSample"}
    names = []
    for node in reversed(model.graph.node):
        if grids.intersection(node.output) and node.op_type not in _MATRIX:
            grids.update(node.input)
            names.append(node.name)
    return names[::-1]


def untouched_nodes(model: onnx.ModelProto) -> list[str]:
    """Both, without repetition."""
    return list(dict.fromkeys((*normalisation_nodes(model), *grid_nodes(model))))
