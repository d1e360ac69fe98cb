"""The first operators, on the picture itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgeseg.export.graph.qdq import tidy
from edgeseg.export.graph.roles import normalisation_nodes
from edgeseg.export.precision.ort._graph import (
    DEQUANTISE,
    QUANTISE,
    QuantisedGraph,
    Weight,
    attributes_of,
    integers,
)

__all__ = ["fold_stems", "widen_shifts"]

_LANES, _WIDTH = 4, 16
"""int8 convolutions have a kernel of their own where inputs are a multiple of 4 channels, and outputs 16 or more."""


def widen_shifts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants per channel that the picture is scaled or shifted by, repeated for every column of a fixed width."""
    graph = QuantisedGraph(model)
    pixels = set(normalisation_nodes(graph.model))
    for node in graph.model.graph.node:
        shape = graph.shapes.get(node.output[0])
        if node.name not in pixels or node.op_type not in ("Add", "Mul", "Sub", "Div") or not shape or len(shape) != 4:
            continue
        for index, name in enumerate(node.input):
            array = graph.constants.get(name)
            if array is not None and array.shape == (1, shape[1], 1, 1) and shape[1] > 1 and shape[3]:
                wide = np.broadcast_to(array, (1, shape[1], 1, shape[3]))
                node.input[index] = graph.constant(f"{name}_wide", wide)
    return tidy(graph.model)


@dataclass(frozen=True)
class _Fold:
    """A convolution along the width whose channels hold `pixels` neighbours each, and that gives `outputs` of them.

    Attributes:
        pixels: Neighbours in one, on the way in.
        outputs: And on the way out.
        before: Groups of pixels left of its own that an output reads.
        after: And right of it.
    """

    pixels: int
    outputs: int
    before: int
    after: int


def fold_stems(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convolutions of three channels as convolutions of four pixels at a time; no number changes.

    A channels-last picture of H x W x 3 is one of H x W/4 x 12 without a byte moved, and two outputs of a stride of 2
    lie beside each other in the same way: the kernel for 12 channels takes two fifths of the time for three times the
    products (3x3, stride 2, 64 channels, 512x1024: 3.5 and 1.4 ms).

    Requires int8 on both sides, at most 4 channels, a fixed width that divides, no groups and no dilation.
    """
    graph = QuantisedGraph(model)
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.model.graph.node:
        made = _folded(graph, node) if node.op_type == "Conv" else None
        if made is not None:
            done.update(each.name for each in _until_quantised(graph, node))
            nodes += made
        elif node.name not in done:
            nodes.append(node)
    return graph.with_nodes(nodes)


def _folded(graph: QuantisedGraph, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    weight, read = graph.weight(node.input[1]), graph.dequantiser(node.input[0])
    shape, made = graph.shapes.get(node.input[0]), graph.shapes.get(node.output[0])
    if weight is None or read is None or not shape or not made or len(shape) != 4 or not graph.is_quantised(node):
        return None
    bias = node.input[2] if len(node.input) > 2 else ""
    if bias and bias not in graph.constants:
        return None
    fold = _fold(weight, attributes_of(node), shape, made)
    if fold is None:
        return None
    folded, nodes = _folded_input(graph, read, fold.pixels * shape[1])
    return [*nodes, *_folded_convolution(graph, node, weight, fold, folded), *_unfolded(graph, node, fold, made)]


def _fold(weight: Weight, attributes: dict[str, object], shape: tuple[int, ...], made: tuple[int, ...]) -> _Fold | None:
    """How to fold a convolution; None where it cannot be, or need not."""
    channels, width, outputs = shape[1], shape[3], len(weight.numbers)
    few = 0 < channels <= _LANES and (channels % _LANES or outputs < _WIDTH)
    plain = (
        weight.numbers.ndim == 4
        and attributes.get("group", 1) == 1
        and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
    )
    if not few or not plain or not width or {*integers(attributes.get("dilations", ())), 1} != {1}:
        return None
    stride = (*integers(attributes.get("strides", ())), 1, 1)[1]
    left = (*integers(attributes.get("pads", ())), 0, 0)[1]
    for pixels in (stride * count for count in (1, 2, 4, 8, 16)):
        count = pixels // stride
        enough = pixels * channels % _LANES == 0 and count * outputs >= _WIDTH and count * outputs % _LANES == 0
        if enough and width % pixels == 0 and made[3] <= width // stride:
            last = (count - 1) * stride - left + weight.numbers.shape[3] - 1
            return _Fold(pixels, count, -((-left) // pixels), max(last // pixels, 0))
    return None


def _folded_input(graph: QuantisedGraph, read: onnx.NodeProto, channels: int) -> tuple[str, list[onnx.NodeProto]]:
    """The quantised picture with several pixels in one, dequantised."""
    source = read.input[0]
    stem = f"{read.output[0]}_by_{channels}"
    shape = graph.constant(f"channels_{channels}", np.array([0, 0, -1, channels], np.int64))
    if f"{stem}_folded" in graph.producers:
        return stem, []
    made = [
        helper.make_node("Transpose", [source], [f"{stem}_last"], name=f"{stem}_last", perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", [f"{stem}_last", shape], [f"{stem}_wide"], name=f"{stem}_wide"),
        helper.make_node("Transpose", [f"{stem}_wide"], [f"{stem}_folded"], name=f"{stem}_first", perm=[0, 3, 1, 2]),
        helper.make_node(DEQUANTISE, [f"{stem}_folded", *read.input[1:]], [stem], name=f"{stem}_dq"),
    ]
    graph.producers[f"{stem}_folded"] = made[2]
    return stem, made


def _folded_convolution(
    graph: QuantisedGraph, node: onnx.NodeProto, weight: Weight, fold: _Fold, source: str
) -> list[onnx.NodeProto]:
    stem, attributes = f"{node.output[0]}_folded", attributes_of(node)
    pads = [*integers(attributes.get("pads", (0, 0, 0, 0)))]
    strides = [*integers(attributes.get("strides", (1, 1)))]
    numbers = _folded_weight(weight.numbers, fold, strides[1], pads[1])
    attributes.update(
        kernel_shape=numbers.shape[2:],
        strides=[strides[0], 1],
        pads=[pads[0], fold.before, pads[2], fold.after],
    )
    names = [graph.constant(f"{stem}_weight", numbers)]
    names += [_repeated(graph, stem, name, fold.outputs) for name in (weight.scale, weight.zero)]
    bias = [_repeated(graph, stem, name, fold.outputs, whole=False) for name in node.input[2:3] if name]
    return [
        helper.make_node(DEQUANTISE, names, [f"{stem}_floats"], name=f"{stem}_weight_dq", axis=0),
        helper.make_node("Conv", [source, f"{stem}_floats", *bias], [stem], name=node.name, **attributes),
    ]


def _folded_weight(weight: NDArray[np.generic], fold: _Fold, stride: int, left: int) -> NDArray[np.generic]:
    outputs, channels, height, width = weight.shape
    shape = (fold.outputs * outputs, fold.pixels * channels, height, fold.before + fold.after + 1)
    made: NDArray[np.generic] = np.zeros(shape, weight.dtype)
    for place in range(fold.outputs):
        for tap in range(width):
            group, pixel = divmod(place * stride - left + tap, fold.pixels)
            rows = slice(place * outputs, (place + 1) * outputs)
            made[rows, pixel * channels : (pixel + 1) * channels, :, group + fold.before] = weight[:, :, :, tap]
    return made


def _repeated(graph: QuantisedGraph, stem: str, name: str, times: int, *, whole: bool = True) -> str:
    """A constant per channel, once for every output side by side; a single number for all channels stays one."""
    array = graph.constants[name]
    return name if array.size == 1 and whole else graph.constant(f"{stem}_{name}", np.tile(array.reshape(-1), times))


def _until_quantised(graph: QuantisedGraph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A convolution, its ReLU, and the quantisers after it."""
    found = graph.readers[node.output[0]]
    if found[0].op_type != QUANTISE:
        found = [*found, *graph.readers[found[0].output[0]]]
    return [node, *found]


def _unfolded(graph: QuantisedGraph, node: onnx.NodeProto, fold: _Fold, made: tuple[int, ...]) -> list[onnx.NodeProto]:
    """The folded convolution's ReLU and quantisers, and its outputs side by side again."""
    nodes: list[onnx.NodeProto] = []
    value = f"{node.output[0]}_folded"
    for after in _until_quantised(graph, node)[1:]:
        stem = f"{after.output[0]}_folded"
        copied_node = onnx.NodeProto.FromString(after.SerializeToString())
        copied_node.input[0], copied_node.output[0] = value, stem
        nodes.append(copied_node)
        if after.op_type != QUANTISE:
            value = stem
            continue
        shape = graph.constant(f"channels_{made[1]}", np.array([0, 0, -1, made[1]], np.int64))
        nodes += [
            helper.make_node("Transpose", [stem], [f"{stem}_last"], name=f"{stem}_last", perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{stem}_last", shape], [f"{stem}_apart"], name=f"{stem}_apart"),
        ]
        apart = f"{stem}_apart"
        if made[3] < fold.outputs * graph.shapes[node.input[0]][3] // fold.pixels:
            ends = [graph.constant(f"{stem}_{key}", np.array([number], np.int64)) for key, number in _cut(made[3])]
            nodes.append(helper.make_node("Slice", [apart, *ends], [f"{stem}_cut"], name=f"{stem}_cut"))
            apart = f"{stem}_cut"
        nodes.append(helper.make_node("Transpose", [apart], [after.output[0]], name=f"{stem}_back", perm=[0, 3, 1, 2]))
    return nodes


def _cut(width: int) -> tuple[tuple[str, int], ...]:
    return ("start", 0), ("end", width), ("axis", 2)
