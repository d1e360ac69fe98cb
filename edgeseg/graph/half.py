"""Graphs in half: casts where types meet, and operators that stay fp32 marked with the reason.

Which operators may be half is read off ONNX's own schemas, in the graph's opset. Quantisers take scales in half from
opset 19 on. onnxruntime's converter was tried first: it rounds the tensor between two fp32 operators to half, which is
where overflow happens, and leaves the nodes unsorted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgeseg.errors import ExportError
from edgeseg.graph.qdq import copied, tidy
from edgeseg.graph.roles import untouched_nodes
from edgeseg.text import first_line

__all__ = ["element_types", "half_places", "halvable_nodes", "kept_in_fp32", "marked", "to_half"]

_KEPT = "edgeseg.fp32"
"""Key in a node's metadata: why it stays fp32 where others are half."""

_NEVER = frozenset({"Cast", "Constant", "ConstantOfShape", "Range", "Shape", "If", "Loop", "Scan"})
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


def kept_in_fp32(model: onnx.ModelProto) -> dict[str, str]:
    """Name -> reason of every operator that is marked to stay fp32."""
    return {node.name: entry.value for node in model.graph.node for entry in node.metadata_props if entry.key == _KEPT}


def marked(model: onnx.ModelProto, reasons: Mapping[str, str]) -> onnx.ModelProto:
    """A copy in which operators are marked to stay fp32; the marks go with the graph to the device.

    Args:
        model: Every node has a name of its own.
        reasons: Operator -> why.
    """
    made = copied(model)
    for node in made.graph.node:
        if node.name in reasons:
            kept = [entry for entry in node.metadata_props if entry.key != _KEPT]
            del node.metadata_props[:]
            node.metadata_props.extend([*kept, onnx.StringStringEntryProto(key=_KEPT, value=reasons[node.name])])
    return made


def halvable_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the operators whose schema allows half and that compute on floats; see `roles`."""
    kinds, opset = element_types(model), _opset(model)
    skipped = set(untouched_nodes(model))
    return [
        node.name
        for node in model.graph.node
        if node.name not in skipped and node.op_type not in _NEVER and half_places(node, kinds, opset)
    ]


def to_half(model: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
    """A copy in half, casts where types meet; inputs and outputs of the graph keep theirs.

    A quantiser takes the type of what it reads, and a dequantiser gives the type of what reads it.

    Args:
        model: Every node has a name of its own; of opset 19 or newer where it holds quantisers.
        keep: Operators that stay fp32.
    """
    kinds = element_types(model)
    half = set(halvable_nodes(model)) - set(keep)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    writer = _Writer(model, kinds, _opset(model))
    for node in model.graph.node:
        writer.add(node, node.name in half and _follows(node, half, readers, writer))
    return writer.finish()


def _follows(
    node: onnx.NodeProto, half: Collection[str], readers: Mapping[str, list[onnx.NodeProto]], writer: _Writer
) -> bool:
    """Whether a quantiser's neighbours are half; any other operator goes by itself."""
    if node.op_type == "QuantizeLinear":
        return writer.is_half(node.input[0])
    if node.op_type == "DequantizeLinear":
        return any(reader.name in half for reader in readers.get(node.output[0], ()))
    return True


class _Writer:
    """Writes the new graph node by node and remembers what exists in which type."""

    def __init__(self, model: onnx.ModelProto, kinds: Mapping[str, int], opset: int) -> None:
        self.model = copied(model)
        self._kinds, self._opset, self._nodes = kinds, opset, list[onnx.NodeProto]()
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._made: dict[tuple[str, bool], str] = {}
        self._born_half: set[str] = set()
        self._outputs = {output.name for output in model.graph.output}

    def is_half(self, name: str) -> bool:
        """Whether a tensor was given in half."""
        return name in self._born_half or (name, True) in self._made

    def add(self, node: onnx.NodeProto, half: bool) -> None:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        places = half_places(node, self._kinds, self._opset)
        for index, name in enumerate(node.input):
            if self._kinds.get(name) == TensorProto.FLOAT:
                new.input[index] = self._read(name, half and index in places)
        self._nodes.append(new)
        for index, name in enumerate(node.output):
            if half and self._kinds.get(name) == TensorProto.FLOAT:
                self._bear(new, index, name)

    def _bear(self, new: onnx.NodeProto, index: int, name: str) -> None:
        """Name a half output; an output of the graph is cast back."""
        if name not in self._outputs:
            self._born_half.add(name)
            return
        new.output[index] = f"{name}_half"
        self._made[name, True] = new.output[index]
        self._nodes.append(_cast(new.output[index], name, TensorProto.FLOAT))

    def _read(self, name: str, half: bool) -> str:
        """Name of a tensor in the type wanted, made where it does not exist yet."""
        if (name in self._born_half) == half and (name, half) not in self._made and name not in self._constants:
            return name
        if (name, half) not in self._made:
            self._made[name, half] = self._constant(name, half) if name in self._constants else self._casted(name, half)
        return self._made[name, half]

    def _constant(self, name: str, half: bool) -> str:
        if not half:
            return name
        with np.errstate(over="ignore"):  # an operator that reads a constant this large is kept in fp32
            values = numpy_helper.to_array(self._constants[name]).astype(np.float16)
        self.model.graph.initializer.append(numpy_helper.from_array(values, f"{name}_half"))
        return f"{name}_half"

    def _casted(self, name: str, half: bool) -> str:
        made = f"{name}_half" if half else f"{name}_float"
        self._nodes.append(_cast(name, made, TensorProto.FLOAT16 if half else TensorProto.FLOAT))
        return made

    def finish(self) -> onnx.ModelProto:
        del self.model.graph.node[:]
        self.model.graph.node.extend(self._nodes)
        return tidy(self.model)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor name -> element type.

    Raises:
        ExportError: The graph has sub-graphs, or types that cannot be inferred.
    """
    if any(attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        raise ExportError("the graph holds control flow (If, Loop), which cannot be cast to half; export it as fp32")
    try:
        inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    except Exception as error:  # a RuntimeError of onnx's own
        raise ExportError(f"the types in the graph cannot be inferred: {first_line(error)}") from error
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return kinds | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def half_places(node: onnx.NodeProto, kinds: Mapping[str, int], opset: int) -> set[int]:
    """Inputs that become half with the operator: floats whose schema allows it; none where it computes no floats."""
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    half = "tensor(float16)"
    allowed = {entry.type_param_str for entry in schema.type_constraints if half in entry.allowed_type_strs}
    if node.op_type not in _QUANTISERS and not any(kinds.get(name) == TensorProto.FLOAT for name in node.output):
        return set()
    formal = list(schema.inputs)
    places = set()
    for index, name in enumerate(node.input):
        parameter = formal[min(index, len(formal) - 1)]
        if kinds.get(name) == TensorProto.FLOAT and parameter.type_str in allowed:
            places.add(index)
    return places


def _opset(model: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)
