"""Q/DQ graphs: one form that every engine reads alike, and taking single operators out of it again.

Quantised tensors are symmetric: the zero point is 0. Tensors that are never negative are uint8, because ONNX Runtime
drops a Relu before a quantiser only where its lowest number is 0, and a convolution before a Relu that stays is not run
in int8. TensorRT's parser reads uint8 as int8 without a word, so that numbers above 127 would be cut off there: the
scale of uint8 tensors is that of int8 (largest value / 127). The engines then agree within the calibrated range (above
it int8 saturates and uint8 has as much again), at the cost of a bit that measured networks do not miss, and 8-bit
products cannot saturate the 16-bit sums of processors without VNNI.

ONNX Runtime's CPU kernels want one type on both sides of an operator, and get it from a pass of that engine
(`edgeseg.runtimes.ort.passes.unsigned`), since TensorRT refuses zero points.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgeseg.errors import ExportError

__all__ = [
    "as_int8",
    "check_symmetric",
    "copied",
    "named",
    "quantised_nodes",
    "seven_bits",
    "tidy",
    "without_quantisers",
]

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name of its own."""
    copy = copied(model)
    seen: set[str] = set()
    for index, node in enumerate(copy.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)
    return copy


def quantised_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the operators that read quantised numbers, in order."""
    readable = {output for node in model.graph.node if node.op_type == _DQ for output in node.output}
    others = (node for node in model.graph.node if node.op_type not in (_Q, _DQ))
    return [node.name for node in others if any(name in readable for name in node.input)]


def seven_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Scale uint8 tensors as int8 ones are; see the module's text."""
    copy = copied(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    scales = {node.input[1] for node in _quantisers(copy) if _dtype(constants, node) == np.uint8}
    for name in scales:
        wider = numpy_helper.to_array(constants[name]) * (255.0 / 127.0)
        constants[name].CopyFrom(numpy_helper.from_array(wider.astype(np.float32), name))
    return copy


def as_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with every uint8 quantiser written as int8, for TensorRT; numbers above 127 saturate."""
    copy = copied(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    points = {node.input[2] for node in _quantisers(copy) if _dtype(constants, node) == np.uint8}
    for name in points:
        zero = numpy_helper.to_array(constants[name])
        constants[name].CopyFrom(numpy_helper.from_array(zero.astype(np.int8), name))
    quantised = {node.output[0] for node in copy.graph.node if node.op_type == _Q}
    for value in copy.graph.value_info:
        if value.name in quantised:
            value.type.tensor_type.elem_type = TensorProto.INT8
    return copy


def check_symmetric(model: onnx.ModelProto) -> None:
    """Refuse a graph that TensorRT refuses or reads otherwise.

    Raises:
        ExportError: A quantiser without constant parameters, with a zero point that is not 0, with numbers that are
            neither int8 nor uint8, or with a scale that is not positive.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in _quantisers(model):
        if len(node.input) < 3 or not {node.input[1], node.input[2]} <= constants.keys():
            raise ExportError(f"the quantiser {node.name} has no constant scale and zero point; engines need both")
        zero, scale = (numpy_helper.to_array(constants[node.input[index]]) for index in (2, 1))
        if zero.any():
            raise ExportError(f"the quantiser {node.name} has a zero point of {zero.ravel()[0]}; TensorRT takes only 0")
        if zero.dtype not in (np.int8, np.uint8):
            raise ExportError(f"the quantiser {node.name} makes {zero.dtype}; expected int8 or uint8")
        if not (scale > 0).all() or not np.isfinite(scale).all():
            raise ExportError(f"the quantiser {node.name} has a scale that is not positive; calibrate on more pictures")


def without_quantisers(model: onnx.ModelProto, original: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """The quantised graph with some operators as they were in the original, reading and holding floats.

    Args:
        model: Quantised graph; tensors and nodes have the names they have in `original`.
        original: The float graph.
        names: Operators to put back.
    """
    copy = copied(model)
    floats = {node.name: node for node in original.graph.node}
    weights = {tensor.name: tensor for tensor in original.graph.initializer}
    held = {tensor.name: tensor for tensor in copy.graph.initializer}
    for node in copy.graph.node:
        if node.name in names and node.name in floats:
            output = list(node.output)
            node.CopyFrom(floats[node.name])
            node.output[:] = output
            for index, name in enumerate(node.input):
                if name in weights:
                    node.input[index] = _keep(copy.graph, held, weights[name])
    return tidy(copy)


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop nodes, constants and notes that nothing uses; `model` itself is changed and returned."""
    graph = model.graph
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    constants = [onnx.TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in wanted]
    for part, values in ((graph.node, nodes), (graph.initializer, constants)):
        del part[:]
        part.extend(values)
    del graph.value_info[:]
    return model


def _keep(graph: onnx.GraphProto, held: dict[str, onnx.TensorProto], tensor: onnx.TensorProto) -> str:
    """Name under which the graph holds a constant, added where it does not."""
    name = tensor.name
    if name in held and not np.array_equal(numpy_helper.to_array(held[name]), numpy_helper.to_array(tensor)):
        name = f"{name}_float"
    if name not in held:
        added = graph.initializer.add()
        added.CopyFrom(tensor)
        added.name = name
        held[name] = added
    return name


def _quantisers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in (_Q, _DQ)]


def _dtype(constants: dict[str, onnx.TensorProto], node: onnx.NodeProto) -> np.dtype[np.generic]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(constants[node.input[2]].data_type))


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that may be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
