"""What the steps of the writing for ONNX Runtime share: a graph and its tables, and which values lie on a grid."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeseg.export.graph.cost import with_shapes
from edgeseg.export.graph.qdq import copied, tidy
from edgeseg.export.graph.roles import MOVES

__all__ = [
    "DEQUANTISE",
    "QUANTISE",
    "QuantisedGraph",
    "Weight",
    "attributes_of",
    "integers",
    "is_padded",
    "quantisers",
    "set_attribute",
]

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
_KEEPS_GRID = MOVES - {"Concat", "Pad"} | {"MaxPool", "ReduceMax", "Relu"}
"""Operators whose every output number is one of their first input's numbers, or 0."""

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


@dataclass(frozen=True)
class Weight:
    """int8 numbers of a convolution or product, and the names of their scales and zero points."""

    numbers: NDArray[np.generic]
    scale: str
    zero: str


class QuantisedGraph:
    """A copy of a graph that a step changes, and the tables it looks things up in; they show the graph as it came."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = copied(model)
        graph = self.model.graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.producers = {output: node for node in graph.node for output in node.output}
        self.outputs = {output.name for output in graph.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self._grids: dict[str, tuple[str, str] | None] = {}

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all values; 0 for an axis that is free."""
        graph = with_shapes(self.model).graph
        values = (*graph.input, *graph.value_info, *graph.output)
        return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        """Name of a constant that holds these numbers: this one, or one like it where others have it."""
        while name in self.constants or name in self.producers:
            held = self.constants.get(name)
            if held is not None and held.dtype == array.dtype and np.array_equal(held, array):
                return name
            name = f"{name}_own"
        self.constants[name] = array
        self.model.graph.initializer.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def with_nodes(self, nodes: Iterable[onnx.NodeProto]) -> onnx.ModelProto:
        """The graph with these nodes in place of its own."""
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.model.graph.node[:]
        self.model.graph.node.extend(copies)
        return tidy(self.model)

    def replacing(
        self, kind: str, replace: Callable[[onnx.NodeProto], Sequence[onnx.NodeProto] | None]
    ) -> onnx.ModelProto:
        """The graph with others in place of every node of a kind; None leaves one as it is."""
        nodes: list[onnx.NodeProto] = []
        for node in self.model.graph.node:
            made = replace(node) if node.op_type == kind else None
            nodes += [node] if made is None else made
        return self.with_nodes(nodes)

    def producer(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """The node a value comes from, if it is of one of these kinds."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type in kinds else None

    def dequantiser(self, name: str) -> onnx.NodeProto | None:
        """The node that just dequantised an activation."""
        node = self.producer(name, DEQUANTISE)
        return node if node is not None and node.input[0] not in self.constants else None

    def weight(self, name: str) -> Weight | None:
        """The int8 constant that a value is dequantised from."""
        node = self.producer(name, DEQUANTISE)
        found = None if node is None else self.constants.get(node.input[0])
        return None if node is None or found is None else Weight(found, node.input[1], node.input[2])

    def activations(self, node: onnx.NodeProto) -> list[str]:
        """Inputs that depend on the picture."""
        made = (name for name in node.input if name in self.producers)
        return [name for name in made if self.weight(name) is None]

    def is_quantised(self, node: onnx.NodeProto) -> bool:
        """Whether a quantiser is all that reads a node's output, through a ReLU or clip."""
        found = self.readers.get(node.output[0], [])
        if len(found) == 1 and found[0].op_type in ("Clip", "Relu"):
            found = self.readers.get(found[0].output[0], [])
        known = not self.outputs.intersection(node.output)
        return known and bool(found) and all(reader.op_type == QUANTISE for reader in found)

    def grid(self, name: str) -> tuple[str, str] | None:
        """Names of scale and zero point of what a value's numbers are multiples of; None where there is nothing.

        That is so where it was just dequantised, and where numbers were only moved since.
        """
        if name not in self._grids:
            self._grids[name] = self._look(name)
        return self._grids[name]

    def _look(self, name: str) -> tuple[str, str] | None:
        node = self.producers.get(name)
        if node is None:
            return None
        if node.op_type == DEQUANTISE:
            whole = self.dequantiser(name) is not None and self.constants[node.input[1]].size == 1
            return (node.input[1], node.input[2]) if whole else None
        if node.op_type in _KEEPS_GRID:
            return self.grid(node.input[0])
        if node.op_type != "Concat":
            return None
        parts = [self.grid(part) for part in node.input]
        same = {self._numbers(part) for part in parts}
        return parts[0] if len(same) == 1 else None

    def _numbers(self, grid: tuple[str, str] | None) -> tuple[object, ...]:
        if grid is None:
            return ()
        scale, zero = (self.constants[name] for name in grid)
        return float(scale.item()), int(zero.item()), zero.dtype

    def runs_in_int8(self, node: onnx.NodeProto) -> bool:
        """Whether ONNX Runtime has an int8 kernel for a node where it stands; a convolution's ReLU belongs to it."""
        if node.op_type in ("Clip", "Relu"):
            before = self.producer(node.input[0], "Conv", "Add", "Mul")
            if before is not None:
                return self.runs_in_int8(before)
        read = self.activations(node)
        if not read or any(self.dequantiser(name) is None for name in read):
            return False
        if node.op_type in ("Gemm", "MatMul"):
            return len(read) == 1  # a product of two maps is faster in float, its quantisers counted
        return node.op_type in _INT8 and self.is_quantised(node)


def quantisers(name: str, out: str, grid: tuple[str, str]) -> list[onnx.NodeProto]:
    """A quantiser and a dequantiser from one value to another."""
    middle = f"{out}_quantised"
    return [
        helper.make_node(QUANTISE, [name, *grid], [middle], name=f"{middle}_q"),
        helper.make_node(DEQUANTISE, [middle, *grid], [out], name=f"{out}_dq"),
    ]


def set_attribute(node: onnx.NodeProto, name: str, value: int) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def is_padded(attributes: dict[str, object]) -> bool:
    return any(integers(attributes.get("pads", ()))) or attributes.get("auto_pad", b"NOTSET") != b"NOTSET"


def integers(values: object) -> tuple[int, ...]:
    return tuple(int(value) for value in values) if isinstance(values, Iterable) else ()
