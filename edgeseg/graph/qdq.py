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

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.errors import ExportError
from edgeseg.graph.editor import constant_value

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
    """Return a copy in which every node has a name that no other has."""
    read = ir.serde.deserialize_model(model)
    seen: set[str] = set()
    for index, node in enumerate(read.graph):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)
    return _written(read, model)


def quantised_nodes(model: onnx.ModelProto) -> list[str]:
    """Name the operators that read quantised numbers, in order."""
    graph = ir.serde.deserialize_model(model).graph
    others = (node for node in graph if node.op_type not in (_Q, _DQ))
    return [node.name or "" for node in others if any(_kind(value) == _DQ for value in node.inputs)]


def seven_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that scales uint8 tensors as int8 ones are; see the module's text."""
    read = ir.serde.deserialize_model(model)
    for scale in {node.inputs[1]: None for node in _quantisers(read.graph) if _dtype(node) == ir.DataType.UINT8}:
        _set_numbers(scale, (_numbers(scale) * (255.0 / 127.0)).astype(np.float32))
    return _written(read, model)


def as_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with every uint8 quantiser written as int8, for TensorRT; numbers above 127 saturate."""
    read = ir.serde.deserialize_model(model)
    for point in {node.inputs[2]: None for node in _quantisers(read.graph) if _dtype(node) == ir.DataType.UINT8}:
        _set_numbers(point, _numbers(point).astype(np.int8))
    for node in read.graph:
        if node.op_type == _Q and node.outputs[0].dtype is not None:
            node.outputs[0].dtype = ir.DataType.INT8
    return _written(read, model)


def check_symmetric(model: onnx.ModelProto) -> None:
    """Refuse a graph that TensorRT refuses or reads otherwise.

    Raises:
        ExportError: A quantiser without constant parameters, with a zero point that is not 0, with numbers that are
            neither int8 nor uint8, or with a scale that is not positive.
    """
    for node in _quantisers(ir.serde.deserialize_model(model).graph):
        parameters = list(node.inputs[1:3])
        if len(parameters) < 2 or not all(value is not None and value.is_initializer() for value in parameters):
            raise ExportError(f"the quantiser {node.name} has no constant scale and zero point; engines need both")
        scale, zero = (_numbers(value) for value in parameters)
        if zero.any():
            raise ExportError(f"the quantiser {node.name} has a zero point of {zero.ravel()[0]}; TensorRT takes only 0")
        if zero.dtype not in (np.int8, np.uint8):
            raise ExportError(f"the quantiser {node.name} makes {zero.dtype}; expected int8 or uint8")
        if not (scale > 0).all() or not np.isfinite(scale).all():
            raise ExportError(f"the quantiser {node.name} has a scale that is not positive; calibrate on more pictures")


def without_quantisers(model: onnx.ModelProto, original: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Return the quantised graph with some operators as they were in the original, reading and holding floats.

    Args:
        model: Quantised graph; tensors and nodes have the names they have in `original`.
        original: The float graph.
        names: Operators to put back.
    """
    read, floats = ir.serde.deserialize_model(model), ir.serde.deserialize_model(original).graph
    graph = read.graph
    before = {node.name: node for node in floats if node.name in names}
    values = {value.name: value for value in _values(graph)}
    for node in list(graph):
        given = before.get(node.name)
        if given is not None:
            inputs = [None if value is None else _same_value(graph, values, value) for value in given.inputs]
            _rewrite(node, given, inputs)
    return _tidied(read)


def _rewrite(node: ir.Node, like: ir.Node, inputs: list[ir.Value | None]) -> None:
    """Let a node be as another one, but for its outputs."""
    node.op_type, node.domain = like.op_type, like.domain
    node.attributes.clear()
    node.attributes.update(like.attributes)
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


def _same_value(graph: ir.Graph, values: dict[str | None, ir.Value], wanted: ir.Value) -> ir.Value:
    """Find the value that is one of the float graph; add a constant where the graph has no equal one."""
    if not wanted.is_initializer():
        return values[wanted.name]
    name = wanted.name or ""
    same = values.get(name)
    if same is not None and not (same.is_initializer() and np.array_equal(_numbers(same), _numbers(wanted))):
        name = f"{name}_float"
    if name not in values:
        value = constant_value(_numbers(wanted), name)  # not the same tensor, which would get the value's name
        graph.register_initializer(value)
        values[name] = value
    return values[name]


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph without nodes, constants and notes of shapes that nothing uses."""
    return _tidied(ir.serde.deserialize_model(model))


def _tidied(model: ir.Model) -> onnx.ModelProto:
    graph = model.graph
    for node in reversed(graph):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        if not graph.initializers[name].is_graph_output():
            del graph.initializers[name]
    made = ir.serde.serialize_model(model)
    del made.graph.value_info[:]
    return made


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that may be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _written(read: ir.Model, model: onnx.ModelProto) -> onnx.ModelProto:
    """Write a changed graph, with notes of shapes of those values alone that had one in the model it was read from."""
    made = ir.serde.serialize_model(read)
    noted = {info.name for info in model.graph.value_info}
    kept = [info for info in made.graph.value_info if info.name in noted]
    del made.graph.value_info[:]
    made.graph.value_info.extend(kept)
    return made


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _quantisers(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph if node.op_type in (_Q, _DQ)]


def _kind(value: ir.Value | None) -> str:
    node = None if value is None else value.producer()
    return "" if node is None else node.op_type


def _named(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise ExportError("a quantiser has no constant scale and zero point; engines need both")
    return value


def _numbers(value: ir.Value | None) -> NDArray[Any]:
    tensor = _named(value).const_value
    if tensor is None:
        raise ExportError(f"'{_named(value).name}' is not constant; engines need constant scales and zero points")
    return np.asarray(tensor.numpy())


def _set_numbers(value: ir.Value | None, numbers: NDArray[Any]) -> None:
    tensor = ir.tensor(numbers, name=_named(value).name)
    _named(value).const_value, _named(value).type = tensor, ir.TensorType(tensor.dtype)


def _dtype(node: ir.Node) -> ir.DataType | None:
    """Return the type of a quantiser's integers."""
    return _named(node.inputs[2]).dtype
