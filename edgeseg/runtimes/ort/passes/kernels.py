"""Which operators ONNX Runtime runs in int8."""

from __future__ import annotations

import onnx_ir as ir

from edgeseg.graph.quantised import QuantisedGraph
from edgeseg.graph.roles import MOVES

__all__ = ["runs_in_int8"]

_INT8 = MOVES | {
    "Add",
    "AveragePool",
    "Clip",
    "Conv",
    "ConvTranspose",
    "GlobalAveragePool",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "ReduceMax",
    "ReduceMean",
    "Relu",
    "Resize",
    "Sigmoid",
    "Softmax",
    "Where",
}
"""Operators with an int8 kernel between quantisers, or that move quantised numbers; products end in floats as well."""


def runs_in_int8(graph: QuantisedGraph, node: ir.Node) -> bool:
    """Tell whether ONNX Runtime has an int8 kernel for a node where it stands, a ReLU with its convolution."""
    if node.op_type in ("Clip", "Relu"):
        before = graph.editor.producer(node.inputs[0], "Conv", "Add", "Mul")
        if before is not None:
            return runs_in_int8(graph, before)
    read = graph.activations(node)
    if not read or any(graph.dequantiser(value) is None for value in read):
        return False
    if node.op_type in ("Gemm", "MatMul"):
        return len(read) == 1  # a product of two maps is faster in float, its quantisers counted
    return node.op_type in _INT8 and graph.is_quantised(node)
