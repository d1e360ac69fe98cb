"""Which operators may be half: measured, so that engines which take a graph's types as they are read what was proven.

Those that come near the largest half stay fp32, and those whose result in half arithmetic is off by more than rounding
explains (normalisations, softmax, grids, long sums). `edgeseg.graph.half` writes the casts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.export.to_onnx import OPSET
from edgeseg.graph.half import element_types, half_places, halvable_nodes
from edgeseg.graph.roles import MOVES

__all__ = ["Measured", "measure_nodes"]

LARGEST = 65504.0 / 4.0
"""Largest number met on pictures that may be half: a quarter of what half holds, for pictures that were not met."""

ROUNDING = 4e-3
"""Largest error of an operator in half arithmetic, root mean square relative to its output: eight roundings."""

_MATRIX = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
_COPY = MOVES | {"Relu", "MaxPool"}
"""Operators that round once or not at all; engines sum products of halves in fp32 (`_MATRIX`)."""


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
    kinds = element_types(model)
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

    places = half_places(node, kinds, OPSET)
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
