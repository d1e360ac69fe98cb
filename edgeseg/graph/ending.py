"""What a graph ends in: whether its output was made a probability by its last operators."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from edgeseg.graph.roles import MOVES

__all__ = ["last_activation"]

_KEEPS = (MOVES - {"Concat", "Pad"}) | {"Cast", "Clip", "Max", "Min", "Resize"}
"""Operators that leave a probability a probability: they move, cut or interpolate values of one map."""

_ACTIVATIONS = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})


def last_activation(model: onnx.ModelProto) -> str:
    """Name the operator that makes the output a probability; empty where none does.

    Returns:
        ``Sigmoid``, ``HardSigmoid`` or ``Softmax``, behind which the first output is only moved, cut or resized.
    """
    value: ir.Value | None = ir.serde.deserialize_model(model).graph.outputs[0]
    while value is not None:
        node = value.producer()
        if node is None or node.op_type in _ACTIVATIONS:
            return "" if node is None else node.op_type
        value = node.inputs[0] if node.op_type in _KEEPS else None
    return ""
