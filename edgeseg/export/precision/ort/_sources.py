"""What a float operator's input is computed from, as convolutions of quantised maps that can be written again.

Batch norms, sums and concats of quantised maps are a 1x1 convolution of those maps, laid side by side as the numbers
they are; each map's scale goes into the weights. Where an output has one source, its weight is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgeseg.export.precision.ort._graph import DEQUANTISE, QuantisedGraph, attributes_of, quantisers

__all__ = ["Grid", "Source", "source_of"]


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of uint8 numbers."""

    scale: float
    zero: int

    def names(self, graph: QuantisedGraph) -> tuple[str, str]:
        """As constants of a graph."""
        scale = np.array(self.scale, np.float32)
        return (
            graph.constant(f"scale_{scale.item().hex()}", scale),
            graph.constant(f"uint8_{self.zero}", np.array(self.zero, np.uint8)),
        )


class Source:
    """A convolution of a quantised map: numbers, scales per channel, bias, and what it reads."""

    def __init__(
        self,
        name: str,
        read: str,
        numbers: NDArray[np.int8],
        scale: NDArray[np.float64],
        bias: NDArray[np.float64],
        attributes: dict[str, Any],
        before: Sequence[onnx.NodeProto] = (),
    ) -> None:
        self.name, self.channels, self.before = name, len(numbers), before
        self._read, self._numbers, self._scale, self._bias, self._attributes = read, numbers, scale, bias, attributes

    def times(
        self, graph: QuantisedGraph, side: str, factors: NDArray[np.float64], grid: Grid, *, shift: float = 0.0
    ) -> tuple[list[onnx.NodeProto], str]:
        """The convolution times factors per channel, plus a shift, cut off where the grid ends; and its name."""
        stem = f"{self.name}_{side}"
        signs = np.sign(factors).reshape(-1, *[1] * (self._numbers.ndim - 1))
        names = [
            graph.constant(f"{stem}_weight", (self._numbers * signs).astype(np.int8)),
            graph.constant(f"{stem}_scale", np.where(factors, self._scale * np.abs(factors), 1.0).astype(np.float32)),
            graph.constant(f"{stem}_zero", np.zeros(self.channels, np.int8)),
        ]
        bias = graph.constant(f"{stem}_bias", (self._bias * factors + shift).astype(np.float32))
        nodes = [
            helper.make_node(DEQUANTISE, names, [f"{stem}_floats"], name=f"{stem}_weight_dq", axis=0),
            helper.make_node("Conv", [self._read, f"{stem}_floats", bias], [stem], name=stem, **self._attributes),
        ]
        return [*nodes, *quantisers(stem, f"{stem}_part", grid.names(graph))], f"{stem}_part"


def source_of(graph: QuantisedGraph, name: str) -> Source | None:
    """The convolution a value comes from, which nothing else reads; None where it is something else."""
    node = graph.producer(name, "Conv")
    if node is None:
        mix = _mix(graph, name)
        return None if mix is None else _mixed(graph, name, mix)
    if len(graph.readers[name]) != 1 or graph.grid(node.input[0]) is None:
        return None
    weight = graph.weight(node.input[1])
    given = node.input[2] if len(node.input) > 2 else ""
    if weight is None or weight.numbers.dtype != np.int8 or (given and given not in graph.constants):
        return None
    if graph.constants[weight.zero].any() or (weight.numbers.astype(np.int16) < -127).any():
        return None
    channels = len(weight.numbers)
    scale = np.broadcast_to(graph.constants[weight.scale].astype(np.float64).reshape(-1), (channels,))
    bias = graph.constants[given].astype(np.float64) if given else np.zeros(channels)
    return Source(name, node.input[0], weight.numbers.astype(np.int8), scale, bias, attributes_of(node))


@dataclass(frozen=True)
class _Mix:
    """A value whose channels are sums of channels of quantised maps.

    Attributes:
        maps: Names of the maps, as they come from their dequantisers.
        weights: float64 (channels, all channels of the maps, one map after the other).
        shift: float64 (channels,).
    """

    maps: tuple[str, ...]
    weights: NDArray[np.float64]
    shift: NDArray[np.float64]


def _mix(graph: QuantisedGraph, name: str) -> _Mix | None:
    shape = graph.shapes.get(name, ())
    if len(shape) != 4 or not shape[1]:
        return None
    if graph.dequantiser(name) is not None:
        return _Mix((name,), np.eye(shape[1]), np.zeros(shape[1]))
    node = graph.producer(name, "Add", "BatchNormalization", "Concat")
    if node is None or len(graph.readers[name]) != 1:
        return None
    if node.op_type == "BatchNormalization":
        return _scaled(graph, node)
    if node.op_type == "Concat" and attributes_of(node).get("axis") != 1:
        return None
    if node.op_type == "Add" and any(graph.shapes.get(each) != shape for each in node.input):
        return None
    parts = [_mix(graph, each) for each in node.input]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts):
        return None
    maps = tuple(each for part in known for each in part.maps)
    if node.op_type == "Add":
        return _Mix(maps, np.hstack([part.weights for part in known]), np.sum([part.shift for part in known], axis=0))
    weights = np.zeros((shape[1], sum(part.weights.shape[1] for part in known)))
    row = column = 0
    for part in known:
        rows, columns = part.weights.shape
        weights[row : row + rows, column : column + columns] = part.weights
        row, column = row + rows, column + columns
    return _Mix(maps, weights, np.concatenate([part.shift for part in known]))


def _scaled(graph: QuantisedGraph, norm: onnx.NodeProto) -> _Mix | None:
    inner = _mix(graph, norm.input[0])
    if inner is None or not all(name in graph.constants for name in norm.input[1:]):
        return None
    gamma, beta, mean, variance = (graph.constants[name].astype(np.float64) for name in norm.input[1:])
    factor = gamma / np.sqrt(variance + attributes_of(norm).get("epsilon", 1e-5))
    return _Mix(inner.maps, inner.weights * factor[:, None], (inner.shift - mean) * factor + beta)


def _mixed(graph: QuantisedGraph, name: str, mix: _Mix) -> Source:
    """A mix as a 1x1 convolution of the maps' numbers side by side; depthwise where each channel has one source."""
    readers = [graph.producers[each] for each in mix.maps]
    steps, points = (
        np.concatenate(
            [
                np.full(graph.shapes[each][1], graph.constants[node.input[index]].item(), np.float64)
                for each, node in zip(mix.maps, readers, strict=True)
            ]
        )
        for index in (1, 2)
    )
    own, point = readers[0].input[2], graph.constants[readers[0].input[2]].item()
    real = mix.weights * steps
    shift = mix.shift + real @ (point - points)
    numbers, scale = _whole(real)
    attributes: dict[str, Any] = {"kernel_shape": [1, 1]}
    if len(numbers) == numbers.shape[1] and not np.any(real - np.diag(np.diag(real))):
        attributes["group"] = len(numbers)
        numbers = np.diag(numbers)[:, None]
    stem = f"{name}_maps"
    unit = graph.constant("unit", np.array(1, np.float32))
    joined = [node.input[0] for node in readers]
    before = [
        helper.make_node("Concat", joined, [f"{stem}_numbers"], name=f"{stem}_numbers", axis=1),
        helper.make_node(DEQUANTISE, [f"{stem}_numbers", unit, own], [stem], name=f"{stem}_dq"),
    ]
    if len(joined) == 1:
        before = [helper.make_node(DEQUANTISE, [joined[0], unit, own], [stem], name=f"{stem}_dq")]
    return Source(name, stem, numbers[:, :, None, None], scale, shift, attributes, before)


def _whole(weights: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Rows as int8 numbers and a scale each.

    The largest number of a row is the one of 64 to 127 for which the others come closest to whole numbers: two weights
    in any relation are off by some 0.01 %, where 127 throughout leaves up to 0.4 %.
    """
    largest = np.maximum(np.abs(weights).max(axis=1), 1e-20)
    tops = np.arange(64, 128)
    wanted = weights / largest[:, None] * tops[:, None, None]
    off = np.square((np.rint(wanted) - wanted) / tops[:, None, None]).sum(axis=2)
    best = 127 - np.argmin(off[::-1], axis=0)
    return np.rint(weights / largest[:, None] * best[:, None]).astype(np.int8), largest / best
