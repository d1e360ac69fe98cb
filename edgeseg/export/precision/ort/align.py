"""Channels in numbers that kernels are written for.

ONNX Runtime's int8 convolution has a kernel of its own where inputs are a multiple of 4 channels, and outputs 16 or
more and a multiple of 4, and a detour over a copy of every window elsewhere: 12 to 12 channels, 3x3, 128x256, take 0.69
ms and 12 to 16 take 0.34. Depthwise convolutions want a multiple of 16. So convolutions give channels of zero weights
more, up to the next multiple, and what reads them has zero weights for these: no number of the network changes.

Where something downstream needs the channels as they were (a product, a split, the graph's output), the convolutions
that would feed it are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgeseg.export.precision.ort._graph import (
    DEQUANTISE,
    QUANTISE,
    QuantisedGraph,
    attributes_of,
    set_attribute,
)

__all__ = ["align_channels"]

_BLOCK, _FEW = 16, 4
_SAME = frozenset(
    {
        QUANTISE,
        DEQUANTISE,
        "AveragePool",
        "Clip",
        "Gelu",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "Relu",
        "Sigmoid",
        "Tanh",
    }
)
"""Operators that treat every channel alike, and make a finite number of 0."""
_PAIRS = frozenset({"Add", "Max", "Min", "Mul", "Sub"})
_REDUCE = frozenset({"ReduceMax", "ReduceMean"})

Place = tuple[int, ...]
"""Which of the network's channels each channel of a value is; -1 for one of zeros."""


def align_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let convolutions give a multiple of 16 channels (of 4, for a handful); no number of the network changes.

    Requires fixed channels, constant weights, and that the graph is quantised at all.
    """
    graph = QuantisedGraph(model)
    if not any(node.op_type == QUANTISE for node in graph.model.graph.node):
        return graph.model
    alone: set[str] = set()
    while True:
        flow = _Flow(graph, alone)
        found = flow.run()
        if not found:
            break
        alone |= found
    if not flow.places:
        return graph.model
    return graph.with_nodes(_rewritten(graph, flow))


def _wider(channels: int) -> int:
    """Channels a convolution gives in place of so many."""
    if channels < 3:
        return channels
    step = _FEW if channels < 8 else _BLOCK
    return -(-channels // step) * step


class _Flow:
    """Where channels go if every convolution and concat but those in `alone` gives more of them."""

    def __init__(self, graph: QuantisedGraph, alone: set[str]) -> None:
        self._graph, self._alone = graph, alone
        self.places: dict[str, Place] = {}
        self._origins: dict[str, frozenset[str]] = {}
        self._needed: set[str] = set()

    def run(self) -> set[str]:
        """Follow the graph; the convolutions that must be left alone."""
        for node in self._graph.model.graph.node:
            place = self._after(node)
            if place is not None:
                self.places[node.output[0]] = place
                known = [self._origins.get(name, frozenset()) for name in node.input]
                own = node.op_type == "Concat" or (node.op_type == "Conv" and self._group(node) == 1)
                starts = [] if node.op_type == "Conv" and own else known
                self._origins[node.output[0]] = frozenset({node.output[0]} if own else ()).union(*starts)
        self._need(self._graph.outputs)
        return self._needed

    def _need(self, names: Iterable[str]) -> None:
        for name in names:
            self._needed |= self._origins.get(name, frozenset())

    def _channels(self, name: str) -> int:
        shape = self._graph.shapes.get(name, ())
        return shape[1] if len(shape) == 4 else 0

    @staticmethod
    def _group(node: onnx.NodeProto) -> int:
        return int(attributes_of(node).get("group", 1))

    def _after(self, node: onnx.NodeProto) -> Place | None:
        """The channels of a node's output, None where they are as they were."""
        placed = [name for name in node.input if name in self.places]
        if node.op_type == "Conv":
            return self._convolution(node, placed)
        if node.op_type == "Concat" and attributes_of(node).get("axis") == 1:
            return self._joined(node, placed)
        if not placed:
            return None
        if self._passes(node, placed):
            return self.places[placed[0]]
        weighted = node.op_type == "ConvTranspose" and self._group(node) == 1 and placed == [node.input[0]]
        if not (weighted and _held(self._graph, node.input[1]) is not None):
            self._need(placed)
        return None

    def _convolution(self, node: onnx.NodeProto, placed: list[str]) -> Place | None:
        weight = _held(self._graph, node.input[1])
        bias = all(name in self._graph.constants for name in node.input[2:3] if name)
        group = self._group(node)
        whole = weight is not None and weight.ndim == 4 and bias
        if weight is None or not whole or (group > 1 and not weight.shape[1] == 1 == len(weight) // group):
            self._need(placed)
            return None
        if group > 1:
            return self.places.get(node.input[0])
        wide = _wider(len(weight))
        if node.output[0] in self._alone or wide == len(weight):
            return None
        return (*range(len(weight)), *[-1] * (wide - len(weight)))

    def _passes(self, node: onnx.NodeProto, placed: list[str]) -> bool:
        """Whether an operator keeps channels apart, so that its output has those of its input."""
        constants, channels = self._graph.constants, self._channels(placed[0])
        if node.op_type in _SAME:
            return all(constants[name].size == 1 for name in node.input[1:] if name in constants)
        if node.op_type in ("BatchNormalization", "PRelu"):
            return all(name in constants and constants[name].size in (1, channels) for name in node.input[1:])
        if node.op_type == "Resize":
            return self._resizes_apart(node)
        if node.op_type in _REDUCE:
            axes = constants.get(node.input[1]) if len(node.input) > 1 else None
            kept = attributes_of(node).get("keepdims", 1)
            return axes is not None and bool(kept) and all(axis in (2, 3, -1, -2) for axis in axes.tolist())
        return node.op_type in _PAIRS and self._pairs(node, placed, channels)

    def _pairs(self, node: onnx.NodeProto, placed: list[str], channels: int) -> bool:
        constants = self._graph.constants
        for name in node.input:
            if name in constants:
                shape = constants[name].shape
                if constants[name].size != 1 and (len(shape) < 3 or shape[-3] not in (1, channels)):
                    return False
            elif self._channels(name) != 1 and (self._channels(name), self.places.get(name)) != (
                channels,
                self.places[placed[0]],
            ):
                return False
        return True

    def _resizes_apart(self, node: onnx.NodeProto) -> bool:
        read = [self._graph.constants.get(name) for name in node.input[2:4] if name]
        known = [array for array in read if array is not None and array.size == 4]
        scaled = len(node.input) > 2 and bool(node.input[2])
        return bool(known) and "axes" not in attributes_of(node) and (not scaled or (known[0][:2] == 1).all().item())

    def _joined(self, node: onnx.NodeProto, placed: list[str]) -> Place | None:
        counts = [self._channels(name) for name in node.input]
        if not all(counts):
            self._need(placed)
            return None
        found: list[int] = []
        start = 0
        for name, count in zip(node.input, counts, strict=True):
            place = self.places.get(name, tuple(range(count)))
            found += [-1 if channel < 0 else channel + start for channel in place]
            start += count
        fixed = all(self._graph.shapes.get(node.output[0], (0,)))
        if fixed and len(found) > _BLOCK and node.output[0] not in self._alone:
            found += [-1] * (-len(found) % _BLOCK)
        return tuple(found) if -1 in found else None


def _held(graph: QuantisedGraph, name: str) -> NDArray[np.generic] | None:
    """The numbers of a constant, or of the constant it is dequantised from."""
    weight = graph.weight(name)
    return graph.constants.get(name) if weight is None else weight.numbers


def _rewritten(graph: QuantisedGraph, flow: _Flow) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []
    for node in graph.model.graph.node:
        before = next((flow.places[name] for name in node.input if name in flow.places), None)
        after = flow.places.get(node.output[0])
        if node.op_type == "Conv" and (before or after):
            nodes += _widened(graph, node, before, after)
            continue
        if node.op_type == "ConvTranspose" and before:
            nodes += _reweighted(graph, node, {0: before}, None)
            continue
        if node.op_type in ("BatchNormalization", "PRelu") and after:
            for index, name in enumerate(node.input[1:], 1):
                node.input[index] = _placed(graph, node, name, after, 1.0 if index == 4 else 0.0)
        elif node.op_type in _PAIRS and after:
            for index, name in enumerate(node.input):
                if name in graph.constants:
                    node.input[index] = _placed(graph, node, name, after, 0.0)
        elif node.op_type == "Concat" and after:
            nodes += _filled(graph, flow, node, after)
        elif node.op_type == "Resize" and after and len(node.input) > 3 and node.input[3]:
            sizes = graph.constants[node.input[3]].copy()
            sizes[1] = np.int64(len(after))
            node.input[3] = graph.constant(f"{node.output[0]}_sizes", sizes)
        nodes.append(node)
    return nodes


def _widened(
    graph: QuantisedGraph, node: onnx.NodeProto, before: Place | None, after: Place | None
) -> list[onnx.NodeProto]:
    """A convolution of the channels there are now, and their weights."""
    if attributes_of(node).get("group", 1) > 1 and after:
        set_attribute(node, "group", len(after))
        return _reweighted(graph, node, {0: after}, after)
    axes = {axis: place for axis, place in ((0, after), (1, before)) if place}
    return _reweighted(graph, node, axes, after)


def _reweighted(
    graph: QuantisedGraph, node: onnx.NodeProto, axes: dict[int, Place], outputs: Place | None
) -> list[onnx.NodeProto]:
    """A node with channels of zero weights along some axes, and its bias, scales and zero points for these outputs."""
    name = node.input[1]
    weight = graph.weight(name)
    array = _held(graph, name)
    if array is None:
        return [node]
    for axis, place in axes.items():
        array = _spread(array, place, axis, 0.0)
    stem = f"{node.output[0]}_aligned"
    if outputs and len(node.input) > 2 and node.input[2]:
        node.input[2] = graph.constant(f"{stem}_bias", _spread(graph.constants[node.input[2]], outputs, 0, 0.0))
    if weight is None:
        node.input[1] = graph.constant(f"{stem}_weight", array)
        return [node]
    names = [graph.constant(f"{stem}_weight", array), weight.scale, weight.zero]
    for index, fill in ((1, 1.0), (2, 0.0)):
        numbers = graph.constants[names[index]]
        if outputs and numbers.size > 1:
            names[index] = graph.constant(f"{stem}_{index}", _spread(numbers, outputs, 0, fill))
    axis = attributes_of(graph.producers[name]).get("axis", 1)
    node.input[1] = f"{stem}_floats"
    return [helper.make_node(DEQUANTISE, names, [f"{stem}_floats"], name=f"{stem}_dq", axis=axis), node]


def _filled(graph: QuantisedGraph, flow: _Flow, node: onnx.NodeProto, after: Place) -> list[onnx.NodeProto]:
    """Zeros at the end of a concat, up to the channels there are to be."""
    shapes = [graph.shapes[name] for name in node.input]
    given = sum(len(flow.places.get(name, range(shape[1]))) for name, shape in zip(node.input, shapes, strict=True))
    if given == len(after):
        return []
    stem = f"{node.output[0]}_zeros"
    shape = graph.constant(f"{stem}_shape", np.array([shapes[0][0], len(after) - given, *shapes[0][2:]], np.int64))
    read, made = graph.dequantiser(node.input[0]), graph.producer(node.input[0], QUANTISE)
    node.input.append(stem)
    if read is None:
        zero = graph.constant("zero", np.array(0, np.float32)) if made is None else made.input[2]
        return [helper.make_node("Expand", [zero, shape], [stem], name=stem)]
    return [
        helper.make_node("Expand", [read.input[2], shape], [f"{stem}_numbers"], name=f"{stem}_numbers"),
        helper.make_node(DEQUANTISE, [f"{stem}_numbers", *read.input[1:]], [stem], name=f"{stem}_dq"),
    ]


def _placed(graph: QuantisedGraph, node: onnx.NodeProto, name: str, place: Place, fill: float) -> str:
    """A constant with one number per channel, for the channels there are now."""
    array = graph.constants[name]
    axis = array.ndim - 3 if array.ndim >= 3 else 0
    if array.size == 1 or array.shape[axis] == 1:
        return name
    return graph.constant(f"{node.output[0]}_{name}_aligned", _spread(array, place, axis, fill))


def _spread(array: NDArray[np.generic], place: Place, axis: int, fill: float) -> NDArray[np.generic]:
    """Channels along an axis, put in their places; `fill` where there is none."""
    shape = [*array.shape]
    shape[axis] = len(place)
    made: NDArray[np.generic] = np.full(shape, fill, array.dtype)
    to, chosen = ([index for index, channel in enumerate(place) if channel >= 0], [c for c in place if c >= 0])
    np.moveaxis(made, axis, 0)[to] = np.moveaxis(array, axis, 0)[chosen]
    return made
