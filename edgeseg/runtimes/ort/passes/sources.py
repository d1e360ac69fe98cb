"""What a float operator reads, as convolutions of quantised maps whose weights can be scaled.

Batch norms, sums and concats of quantised maps are a 1x1 convolution of those maps' numbers side by side; each map's
scale goes into the weights. Where every output channel has one source channel, the weights are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.editor import attribute_float, attribute_int
from edgeseg.graph.quantised import Grid, QuantisedDraft, QuantisedGraph

__all__ = ["Source", "source_of"]

_LARGEST = 127
"""Largest int8 number of a weight."""


@dataclass(frozen=True)
class Source:
    """A convolution of a quantised map.

    Attributes:
        value: What it gives.
        maps: What it reads: floats, or the quantised numbers of several maps that are joined first.
        zero: The zero point of those numbers; None where `maps` is one value of floats.
        numbers: int8 weights.
        scale: float64, per output channel.
        bias: float64, per output channel.
        attributes: Of the convolution.
    """

    value: ir.Value
    maps: tuple[ir.Value, ...]
    zero: ir.Value | None
    numbers: NDArray[np.int8]
    scale: NDArray[np.float64]
    bias: NDArray[np.float64]
    attributes: Mapping[str, ir.Attr]

    @property
    def name(self) -> str:
        """Name of what it gives."""
        return self.value.name or "source"

    @property
    def channels(self) -> int:
        """How many it gives."""
        return len(self.numbers)

    def draft_input(self, draft: QuantisedDraft) -> ir.Value:
        """Draft what the convolution reads, and return it."""
        numbers = self.maps[0]
        if self.zero is None:
            return numbers
        if len(self.maps) > 1:
            shapes = [draft.graph.shape(each) for each in self.maps]
            shape = (shapes[0][0], sum(each[1] for each in shapes), *shapes[0][2:])
            numbers = draft.like("Concat", self.maps, numbers, shape=shape, hint="numbers", axis=1)
        unit = draft.graph.constant("unit", np.array(1, np.float32))
        return draft.dequantise(numbers, Grid(unit, self.zero), "maps")

    def times(
        self,
        draft: QuantisedDraft,
        read: ir.Value,
        side: str,
        factors: NDArray[np.float64],
        grid: Grid,
        *,
        shift: float = 0.0,
    ) -> ir.Value:
        """Draft the convolution times a factor per channel, plus a shift, cut off where a grid ends.

        Args:
            draft: Where the nodes go.
            read: What `draft_input` gave.
            side: Part of the names.
            factors: float64, per output channel.
            grid: That the result is rounded to.
            shift: Added to every number.
        """
        graph, stem = draft.graph, f"{self.name}_{side}"
        signs = np.sign(factors).reshape(-1, *[1] * (self.numbers.ndim - 1))
        scale = np.where(factors, self.scale * np.abs(factors), 1.0)
        numbers = graph.constant(f"{stem}_weight", (self.numbers * signs).astype(np.int8))
        weight_grid = Grid(
            graph.constant(f"{stem}_scale", scale.astype(np.float32)),
            graph.constant(f"{stem}_zero", np.zeros(self.channels, np.int8)),
        )
        bias = graph.constant(f"{stem}_bias", (self.bias * factors + shift).astype(np.float32))
        weight = draft.dequantise(numbers, weight_grid, f"{side}_weight", axis=0)
        out = draft.like("Conv", [read, weight, bias], self.value, hint=side, copied=self.attributes)
        return draft.round_to(out, grid, f"{side}_part")


def source_of(graph: QuantisedGraph, value: ir.Value | None) -> Source | None:
    """Return the convolution that a value comes from and that nothing else reads; None where it is something else."""
    if value is None:
        return None
    node = graph.editor.producer(value, "Conv")
    if node is None:
        mix = _mix(graph, value)
        return None if mix is None else _mixed(graph, value, mix)
    read, weight = node.inputs[0], graph.weight(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if graph.editor.uses(value) != 1 or read is None or graph.grid(read) is None or weight is None:
        return None
    if weight.numbers.dtype != np.int8 or (given is not None and not graph.is_constant(given)):
        return None
    if graph.array(weight.zero).any() or (weight.numbers.astype(np.int16) < -_LARGEST).any():
        return None
    channels = len(weight.numbers)
    scale = np.broadcast_to(graph.array(weight.scale).astype(np.float64).reshape(-1), (channels,))
    bias = np.zeros(channels) if given is None else graph.array(given).astype(np.float64)
    return Source(value, (read,), None, weight.numbers, scale, bias, node.attributes)


@dataclass(frozen=True)
class _Mix:
    """A value whose channels are sums of channels of quantised maps.

    Attributes:
        readers: What dequantises the maps.
        weights: float64 (channels, all channels of the maps, one map after the other).
        shift: float64 (channels,).
    """

    readers: tuple[ir.Node, ...]
    weights: NDArray[np.float64]
    shift: NDArray[np.float64]


def _mix(graph: QuantisedGraph, value: ir.Value | None) -> _Mix | None:
    shape, reader = graph.shape(value), graph.dequantiser(value)
    if value is None or len(shape) != 4 or not shape[1]:
        return None
    if reader is not None:
        unsigned = graph.array(reader.inputs[2]).dtype == np.uint8
        return _Mix((reader,), np.eye(shape[1]), np.zeros(shape[1])) if unsigned else None
    node = graph.editor.producer(value, "Add", "BatchNormalization", "Concat")
    if node is None or graph.editor.uses(value) != 1:
        return None
    if node.op_type == "BatchNormalization":
        return _normalised(graph, node)
    joined = node.op_type == "Concat"
    if joined and attribute_int(node, "axis", 0) != 1:
        return None
    if not joined and any(graph.shape(each) != shape for each in node.inputs):
        return None
    parts = [_mix(graph, each) for each in node.inputs]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts):
        return None
    return _joined(known) if joined else _summed(known)


def _summed(parts: Sequence[_Mix]) -> _Mix:
    readers = tuple(each for part in parts for each in part.readers)
    return _Mix(readers, np.hstack([part.weights for part in parts]), np.sum([part.shift for part in parts], axis=0))


def _joined(parts: Sequence[_Mix]) -> _Mix:
    sizes = np.array([part.weights.shape for part in parts])
    weights = np.zeros(sizes.sum(axis=0))
    row = column = 0
    for part, (rows, columns) in zip(parts, sizes, strict=True):
        weights[row : row + rows, column : column + columns] = part.weights
        row, column = row + rows, column + columns
    readers = tuple(each for part in parts for each in part.readers)
    return _Mix(readers, weights, np.concatenate([part.shift for part in parts]))


def _normalised(graph: QuantisedGraph, norm: ir.Node) -> _Mix | None:
    inner, parameters = _mix(graph, norm.inputs[0]), graph.editor.constants(norm.inputs[1:])
    if inner is None or parameters is None:
        return None
    gamma, beta, mean, variance = (array.astype(np.float64) for array in parameters)
    factor = gamma / np.sqrt(variance + attribute_float(norm, "epsilon", 1e-5))
    return _Mix(inner.readers, inner.weights * factor[:, None], (inner.shift - mean) * factor + beta)


def _mixed(graph: QuantisedGraph, value: ir.Value, mix: _Mix) -> Source | None:
    """Return a mix as a 1x1 convolution of the maps' numbers; depthwise where each channel has one source."""
    maps = [node.inputs[0] for node in mix.readers]
    steps, points = (
        np.concatenate(
            [
                np.full(graph.shape(node.outputs[0])[1], graph.array(node.inputs[index]).item(), np.float64)
                for node in mix.readers
            ]
        )
        for index in (1, 2)
    )
    zero = mix.readers[0].inputs[2]
    real = mix.weights * steps
    shift = mix.shift + real @ (graph.array(zero).item() - points)
    numbers, scale = _as_int8(real)
    attributes = {"kernel_shape": ir.AttrInt64s("kernel_shape", [1, 1])}
    if len(numbers) == numbers.shape[1] and not np.any(real - np.diag(np.diag(real))):
        attributes["group"] = ir.AttrInt64("group", len(numbers))
        numbers = np.diag(numbers)[:, None]
    known = tuple(each for each in maps if each is not None)
    return Source(value, known, zero, numbers[:, :, None, None], scale, shift, attributes)


def _as_int8(weights: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return the rows of a matrix as int8 numbers, and a scale each.

    The largest number of a row is the one of 64 to 127 for which the others come closest to whole numbers: two weights
    in any relation are off by some 0.01 %, where 127 throughout leaves up to 0.4 %.
    """
    largest = np.maximum(np.abs(weights).max(axis=1), 1e-20)
    tops = np.arange(64, _LARGEST + 1)
    wanted = weights / largest[:, None] * tops[:, None, None]
    off = np.square((np.rint(wanted) - wanted) / tops[:, None, None]).sum(axis=2)
    best = _LARGEST - np.argmin(off[::-1], axis=0)
    return np.rint(weights / largest[:, None] * best[:, None]).astype(np.int8), largest / best
