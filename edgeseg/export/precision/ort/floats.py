"""Operators without an int8 kernel, as floats: no numbers rounded for their sake, weights that lie ready.

ONNX Runtime dequantises a float operator's weights in every frame and cannot reorder them for its blocked kernels: a
convolution of CGNet took 11.8 ms that takes 6.4 in fp32. A quantiser that only float operators read costs time and
accuracy.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.export.graph.qdq import tidy
from edgeseg.export.precision.ort._graph import DEQUANTISE, QUANTISE, QuantisedGraph, attributes_of

__all__ = ["keep_floats"]


def keep_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """Float weights for every operator that has no int8 kernel where it stands, and no quantisers only for such.

    A quantiser stays where it lets the operator before it run in int8.
    """
    graph = QuantisedGraph(model)
    floats = [node for node in graph.model.graph.node if _is_float(graph, node)]
    for node in floats:
        for index, name in enumerate(node.input):
            if graph.weight(name) is not None:
                node.input[index] = graph.constant(f"{name}_float", _numbers(graph, graph.producers[name]))
    for quantiser in graph.model.graph.node:
        if quantiser.op_type == QUANTISE and quantiser.input[0] in graph.producers:
            _bypass(graph, quantiser)
    return tidy(graph.model)


def _bypass(graph: QuantisedGraph, quantiser: onnx.NodeProto) -> None:
    found = graph.readers.get(quantiser.output[0], [])
    if graph.runs_in_int8(graph.producers[quantiser.input[0]]) or not all(node.op_type == DEQUANTISE for node in found):
        return
    values = {node.output[0] for node in found}
    users = [user for value in values for user in graph.readers.get(value, [])]
    if graph.outputs & values or not all(_is_float(graph, user) for user in users):
        return
    for user in users:
        user.input[:] = [quantiser.input[0] if name in values else name for name in user.input]


def _is_float(graph: QuantisedGraph, node: onnx.NodeProto) -> bool:
    return node.op_type not in (DEQUANTISE, QUANTISE) and not graph.runs_in_int8(node)


def _numbers(graph: QuantisedGraph, dequantiser: onnx.NodeProto) -> NDArray[np.float32]:
    """What a dequantiser of constants gives."""
    numbers, scale, zero = (graph.constants[name].astype(np.float64) for name in dequantiser.input)
    if scale.size > 1:
        shape = [1] * numbers.ndim
        shape[attributes_of(dequantiser).get("axis", 1)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    made: NDArray[np.float32] = ((numbers - zero) * scale).astype(np.float32)
    return made
