"""PReLU in int8, which has no kernel for it: the sum of what convolutions give on either side of 0.

PReLU(x) = max(x, 0) + min(s x, 0) for slopes s of 0 and more. A quantiser cuts off at its ends, so the first half is
the convolution itself, written to numbers from 0 up, and the second the same convolution with its scales times the
slopes, written to numbers from 0 down (zero point 255). Channels of negative slopes, half of those of published
networks, have max(s x, 0) in place of the second: a third convolution, from 0 up, added to the first. All but one of
them are 0 everywhere, and sums have an int8 kernel: the convolution runs in int8 too, which it does not before a float
operator. The parts hold half steps of the output, so that what was rounded once is off by one step at most.

Batch norms, sums and concats of quantised maps before a PReLU are a 1x1 convolution of those maps, laid side by side as
the numbers they are; each map's scale goes into the weights. Where an output has one source, its weight is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgeseg.export.precision.ort._graph import (
    DEQUANTISE,
    QUANTISE,
    Draft,
    Grids,
    attributes_of,
    quantisers,
    with_nodes,
)

__all__ = ["split_prelus"]

_MIDDLE, _TOP = 128, 255


def split_prelus(model: onnx.ModelProto) -> onnx.ModelProto:
    """PReLUs between convolutions (or sums, batch norms) of quantised maps and a quantiser, as sums in int8.

    Several maps joined before the PReLU get one each. Requires constant slopes, one quantiser of zero point 128 that
    reads the PReLU, and that nothing else reads what stands before it.
    """
    draft = Draft(model)
    grids = Grids(draft.model)
    nodes: list[onnx.NodeProto] = []
    for node in draft.model.graph.node:
        made = _split(draft, grids, node) if node.op_type == "PRelu" else None
        nodes += [node] if made is None else made
    return with_nodes(draft.model, nodes)


def _split(draft: Draft, grids: Grids, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    found = draft.readers.get(node.output[0], [])
    if node.input[1] not in draft.constants or not draft.is_quantised(node) or len(found) != 1:
        return None
    slopes = draft.constants[node.input[1]].astype(np.float64).reshape(-1)
    scale, zero = (draft.constants[name].astype(np.float64) for name in found[0].input[1:3])
    sources = _sources(draft, grids, node.input[0])
    if scale.size != 1 or zero.item() != _MIDDLE or found[0].op_type != QUANTISE or sources is None:
        return None
    channels = sum(each.channels for each in sources)
    if slopes.size not in (1, channels):
        return None
    every = np.broadcast_to(slopes, (channels,))
    half = draft.constant(f"{found[0].input[1]}_half", np.array(scale.item() / 2, np.float32))
    nodes: list[onnx.NodeProto] = []
    parts: list[str] = []
    start = 0
    for source in sources:
        own = every[start : start + source.channels]
        start += source.channels
        if len(sources) == 1:
            return source.halves(draft, own, half, node.output[0])
        nodes += source.halves(draft, own, half, f"{source.name}_prelu")
        parts.append(f"{source.name}_part")
        nodes += quantisers(f"{source.name}_prelu", parts[-1], (found[0].input[1], found[0].input[2]))
    if parts:
        nodes.append(helper.make_node("Concat", parts, list(node.output), name=node.name, axis=1))
    return nodes


class _Source:
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
        self.name, self.channels, self._before = name, len(numbers), before
        self._read, self._numbers, self._scale, self._bias, self._attributes = read, numbers, scale, bias, attributes

    def halves(self, draft: Draft, slopes: NDArray[np.float64], half: str, output: str) -> list[onnx.NodeProto]:
        """The convolutions, quantised to either side of 0, and their sum."""
        above, above_name = self._half(draft, "above", np.ones_like(slopes), half, 0)
        nodes = [*self._before, *above]
        if (slopes < 0).any():
            mirrored, name = self._half(draft, "mirrored", np.minimum(slopes, 0), half, 0)
            both = f"{self.name}_both"
            nodes += [*mirrored, helper.make_node("Add", [above_name, name], [both], name=f"{both}_sum")]
            above_name = f"{both}_half"
            nodes += _quantised(draft, both, above_name, half, 0)
        below, below_name = self._half(draft, "below", np.maximum(slopes, 0), half, _TOP)
        return [*nodes, *below, helper.make_node("Add", [above_name, below_name], [output], name=f"{output}_sum")]

    def _half(
        self, draft: Draft, side: str, slopes: NDArray[np.float64], half: str, zero: int
    ) -> tuple[list[onnx.NodeProto], str]:
        """The convolution times slopes per channel, without what is beyond the zero point; and its name."""
        stem = f"{self.name}_{side}"
        signs = np.sign(slopes).reshape(-1, *[1] * (self._numbers.ndim - 1))
        names = [
            draft.constant(f"{stem}_weight", (self._numbers * signs).astype(np.int8)),
            draft.constant(f"{stem}_scale", np.where(slopes, self._scale * np.abs(slopes), 1.0).astype(np.float32)),
            draft.constant(f"{stem}_zero", np.zeros(self.channels, np.int8)),
        ]
        bias = draft.constant(f"{stem}_bias", (self._bias * slopes).astype(np.float32))
        nodes = [
            helper.make_node(DEQUANTISE, names, [f"{stem}_floats"], name=f"{stem}_weight_dq", axis=0),
            helper.make_node("Conv", [self._read, f"{stem}_floats", bias], [stem], name=stem, **self._attributes),
        ]
        return [*nodes, *_quantised(draft, stem, f"{stem}_half", half, zero)], f"{stem}_half"


def _quantised(draft: Draft, name: str, output: str, scale: str, zero: int) -> list[onnx.NodeProto]:
    return quantisers(name, output, (scale, draft.constant(f"uint8_{zero}", np.array(zero, np.uint8))))


def _sources(draft: Draft, grids: Grids, name: str) -> list[_Source] | None:
    """What a value is computed from, one convolution per part; None where it is something else."""
    whole = _source(draft, grids, name)
    if whole is not None:
        return [whole]
    node = draft.producer(name, "Concat")
    if node is None or len(draft.readers[name]) != 1 or attributes_of(node).get("axis") != 1:
        return None
    found = [_source(draft, grids, part) for part in node.input]
    parts = [each for each in found if each is not None]
    return parts if len(parts) == len(found) else None


def _source(draft: Draft, grids: Grids, name: str) -> _Source | None:
    node = draft.producer(name, "Conv")
    if node is None:
        mix = _mix(draft, name)
        return None if mix is None else _mixed(draft, name, mix)
    if len(draft.readers[name]) != 1 or grids.of(node.input[0]) is None:
        return None
    weight = draft.weight(node.input[1])
    given = node.input[2] if len(node.input) > 2 else ""
    if weight is None or weight.numbers.dtype != np.int8 or (given and given not in draft.constants):
        return None
    if draft.constants[weight.zero].any() or (weight.numbers.astype(np.int16) < -127).any():
        return None
    channels = len(weight.numbers)
    scale = np.broadcast_to(draft.constants[weight.scale].astype(np.float64).reshape(-1), (channels,))
    bias = draft.constants[given].astype(np.float64) if given else np.zeros(channels)
    return _Source(name, node.input[0], weight.numbers.astype(np.int8), scale, bias, attributes_of(node))


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


def _mix(draft: Draft, name: str) -> _Mix | None:
    shape = draft.shapes.get(name, ())
    if len(shape) != 4 or not shape[1]:
        return None
    if draft.dequantiser(name) is not None:
        return _Mix((name,), np.eye(shape[1]), np.zeros(shape[1]))
    node = draft.producer(name, "Add", "BatchNormalization", "Concat")
    if node is None or len(draft.readers[name]) != 1:
        return None
    if node.op_type == "BatchNormalization":
        return _scaled(draft, node)
    if node.op_type == "Concat" and attributes_of(node).get("axis") != 1:
        return None
    if node.op_type == "Add" and any(draft.shapes.get(each) != shape for each in node.input):
        return None
    parts = [_mix(draft, each) for each in node.input]
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


def _scaled(draft: Draft, norm: onnx.NodeProto) -> _Mix | None:
    inner = _mix(draft, norm.input[0])
    if inner is None or not all(name in draft.constants for name in norm.input[1:]):
        return None
    gamma, beta, mean, variance = (draft.constants[name].astype(np.float64) for name in norm.input[1:])
    factor = gamma / np.sqrt(variance + attributes_of(norm).get("epsilon", 1e-5))
    return _Mix(inner.maps, inner.weights * factor[:, None], (inner.shift - mean) * factor + beta)


def _mixed(draft: Draft, name: str, mix: _Mix) -> _Source:
    """A mix as a 1x1 convolution of the maps' numbers side by side; depthwise where each channel has one source."""
    readers = [draft.producers[each] for each in mix.maps]
    steps, points = (
        np.concatenate(
            [
                np.full(draft.shapes[each][1], draft.constants[node.input[index]].item(), np.float64)
                for each, node in zip(mix.maps, readers, strict=True)
            ]
        )
        for index in (1, 2)
    )
    own, point = readers[0].input[2], draft.constants[readers[0].input[2]].item()
    real = mix.weights * steps
    shift = mix.shift + real @ (point - points)
    largest = np.maximum(np.abs(real).max(axis=1), 1e-20)
    numbers = np.rint(real / largest[:, None] * 127).astype(np.int8)
    attributes: dict[str, Any] = {"kernel_shape": [1, 1]}
    if len(numbers) == numbers.shape[1] and not np.any(real - np.diag(np.diag(real))):
        attributes["group"] = len(numbers)
        numbers = np.diag(numbers)[:, None]
    stem = f"{name}_maps"
    unit = draft.constant("unit", np.array(1, np.float32))
    joined = [node.input[0] for node in readers]
    before = [
        helper.make_node("Concat", joined, [f"{stem}_numbers"], name=f"{stem}_numbers", axis=1),
        helper.make_node(DEQUANTISE, [f"{stem}_numbers", unit, own], [stem], name=f"{stem}_dq"),
    ]
    if len(joined) == 1:
        before = [helper.make_node(DEQUANTISE, [joined[0], unit, own], [stem], name=f"{stem}_dq")]
    return _Source(name, stem, numbers[:, :, None, None], largest / 127, shift, attributes, before)
