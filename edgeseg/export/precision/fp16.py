"""fp16: casts in the graph, so that engines which take a graph's types as they are (TensorRT) read what was measured.

Which operators may be half is read off ONNX's own schemas; which of those stay fp32 is measured: tensors that come near
the largest half, and operators whose result in half arithmetic is off by more than rounding explains (normalisations,
softmax, grids, long sums). onnxruntime's converter was tried first: it rounds the tensor between two fp32 operators to
half, which is where overflow happens, and leaves the nodes unsorted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgeseg.errors import ExportError
from edgeseg.export.to_onnx import first_reason
from edgeseg.graph.qdq import tidy
from edgeseg.graph.roles import MOVES, untouched_nodes

__all__ = ["Measured", "halvable_nodes", "measure_nodes", "to_half"]

LARGEST = 65504.0 / 4.0
"""Largest number met on pictures that may be half: a quarter of what half holds, for pictures that were not met."""

ROUNDING = 4e-3
"""Largest error of an operator in half arithmetic, root mean square relative to its output: eight roundings."""

_MATRIX = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
_COPY = MOVES | {"Relu", "MaxPool"}
"""Operators that round once or not at all; engines sum products of halves in fp32 (`_MATRIX`)."""

_NEVER = frozenset({"Cast", "Constant", "ConstantOfShape", "Range", "Shape", "If", "Loop", "Scan"})


@dataclass(frozen=True)
class Measured:
    """What an operator did on pictures.

    Attributes:
        node: Its name.
        largest: Largest magnitude it reads, holds or gives.
        error: Of its result in half arithmetic, relative; None where it was not measured alone.
    """

    node: str
    largest: float
    error: float | None = None

    @property
    def reason(self) -> str:
        """Why it must stay fp32; empty where it need not."""
        if not self.largest <= LARGEST:
            return f"numbers up to {self.largest:.3g}, near the end of half's range"
        if self.error is not None and not np.isfinite(self.error):
            return "not finite, or not to be had, in half arithmetic"
        if self.error is not None and not self.error <= ROUNDING:
            return f"off by {self.error:.2g} in half arithmetic"
        return ""


def halvable_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the operators whose schema allows half and that compute on floats; see `roles`."""
    kinds = _types(model)
    skipped = set(untouched_nodes(model))
    return [
        node.name
        for node in model.graph.node
        if node.name not in skipped and node.op_type not in _NEVER and _half_places(node, kinds)
    ]


def to_half(model: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
    """A copy in half, casts where types meet; inputs and outputs of the graph keep theirs.

    Args:
        model: Float graph; every node has a name of its own.
        keep: Operators that stay fp32.
    """
    kinds = _types(model)
    half = set(halvable_nodes(model)) - set(keep)
    writer = _Writer(model, kinds)
    for node in model.graph.node:
        writer.add(node, node.name in half)
    return writer.finish()


class _Writer:
    """Writes the new graph node by node and remembers what exists in which type."""

    def __init__(self, model: onnx.ModelProto, kinds: Mapping[str, int]) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self._kinds, self._nodes = kinds, list[onnx.NodeProto]()
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._made: dict[tuple[str, bool], str] = {}
        self._born_half: set[str] = set()
        self._outputs = {output.name for output in model.graph.output}

    def add(self, node: onnx.NodeProto, half: bool) -> None:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        places = _half_places(node, self._kinds)
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


def measure_nodes(
    model: onnx.ModelProto, images: Sequence[NDArray[np.uint8]], *, batch: int = 1
) -> dict[str, Measured]:
    """Run the float graph on pictures and look at every operator that could be half.

    Args:
        model: Float graph; every node has a name of its own.
        images: uint8 (H, W, C) at the graph's size; the first also measures operators alone.
        batch: Of the graph.

    Returns:
        Name -> what was measured.
    """
    kinds = _types(model)
    candidates = set(halvable_nodes(model))
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.name in candidates]
    found: dict[str, Measured] = {}
    for start in range(0, len(nodes), _CHUNK):
        chunk = nodes[start : start + _CHUNK]
        for image in images:
            values = {**constants, **_values(model, chunk, kinds, np.stack([image] * batch))}
            for node in chunk:
                before = found.get(node.name)
                largest = max(before.largest if before else 0.0, _largest(node, values, kinds))
                error = before.error if before else _error_alone(model, node, values, kinds)
                found[node.name] = Measured(node.name, largest, error)
    return found


_CHUNK = 24


def _values(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], kinds: Mapping[str, int], image: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    """Every tensor that some nodes read or give."""
    from edgeseg.graph.run import run_graph

    computed = {name for node in model.graph.node for name in node.output if name}
    names = [name for node in nodes for name in (*node.input, *node.output) if name in computed]
    names = [name for name in dict.fromkeys(names) if name in kinds]
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(helper.make_tensor_value_info(name, kinds[name], None) for name in names)
    return {"image": image, **dict(zip(names, run_graph(tapped, {"image": image}), strict=True))}


def _largest(node: onnx.NodeProto, values: Mapping[str, NDArray[Any]], kinds: Mapping[str, int]) -> float:
    floats = [name for name in (*node.input, *node.output) if kinds.get(name) == TensorProto.FLOAT and name in values]
    largest = max((float(np.abs(values[name]).max(initial=0.0)) for name in floats), default=0.0)
    return largest if np.isfinite(largest) else float("inf")


def _error_alone(
    model: onnx.ModelProto, node: onnx.NodeProto, values: Mapping[str, NDArray[Any]], kinds: Mapping[str, int]
) -> float | None:
    """Relative error of one operator in numpy's half arithmetic; None for operators that only round."""
    if node.op_type in _MATRIX | _COPY or not all(name in values for name in node.input if name):
        return None
    from onnx.reference import ReferenceEvaluator

    places = _half_places(node, kinds)
    feed: dict[str, NDArray[Any]] = {}
    for index, name in enumerate(node.input):
        if name:
            value = values[name]
            with np.errstate(over="ignore"):  # an overflow shows in `Measured.largest`
                feed[name] = value.astype(np.float16) if index in places else value
    wanted = values[node.output[0]].astype(np.float64)
    single = _single(model, node, feed, kinds)
    try:
        with np.errstate(all="ignore"):
            out: Any = ReferenceEvaluator(single).run(None, feed)
            got = np.asarray(out[0]).astype(np.float64)
    except Exception:  # an operator the reference does not have, or has only in other types: not measured, so not half
        return float("inf")
    power = float(np.sqrt(np.mean(np.square(wanted))))
    error = float(np.sqrt(np.mean(np.square(got - wanted)))) if got.shape == wanted.shape else float("inf")
    if not np.isfinite(error):
        return float("inf")
    return error / power if power else 0.0


def _single(
    model: onnx.ModelProto, node: onnx.NodeProto, feed: Mapping[str, NDArray[Any]], kinds: Mapping[str, int]
) -> onnx.ModelProto:
    """A graph of one operator."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feed.items()
    ]
    kind = TensorProto.FLOAT16 if kinds[node.output[0]] == TensorProto.FLOAT else kinds[node.output[0]]
    output = helper.make_tensor_value_info(node.output[0], kind, None)
    graph = helper.make_graph([node], "single", inputs, [output])
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=int(model.ir_version))


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor name -> element type.

    Raises:
        ExportError: The graph has sub-graphs, or types that cannot be inferred.
    """
    if any(attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        raise ExportError("the graph holds control flow (If, Loop), which cannot be cast to half; export it as fp32")
    try:
        inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    except Exception as error:  # a RuntimeError of onnx's own
        raise ExportError(f"the types in the graph cannot be inferred: {first_reason(error)}") from error
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return kinds | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def _half_places(node: onnx.NodeProto, kinds: Mapping[str, int]) -> set[int]:
    """Inputs that become half with the operator: floats whose schema allows it; none where no output is a float."""
    schema = onnx.defs.get_schema(node.op_type, _OPSET, node.domain)
    half = "tensor(float16)"
    allowed = {entry.type_param_str for entry in schema.type_constraints if half in entry.allowed_type_strs}
    if not any(kinds.get(name) == TensorProto.FLOAT for name in node.output):
        return set()
    formal = list(schema.inputs)
    places = set()
    for index, name in enumerate(node.input):
        parameter = formal[min(index, len(formal) - 1)]
        if kinds.get(name) == TensorProto.FLOAT and parameter.type_str in allowed:
            places.add(index)
    return places


_OPSET = 18


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)
