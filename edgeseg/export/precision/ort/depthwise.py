"""Average pools and repeated channels as depthwise convolutions of one output per channel, which have a kernel."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgeseg.export.precision.ort._graph import (
    DEQUANTISE,
    QUANTISE,
    QuantisedGraph,
    attributes_of,
    integers,
    is_padded,
    quantisers,
    set_attribute,
)

__all__ = ["full_for_grouped", "pools_as_convolutions", "repeat_for_depthwise"]

_TAPS = 9
"""Largest window of an average pool that becomes a convolution (3x3 of stride 2, 128x128x256: 4.3 and 0.3 ms)."""
_FEW, _GROUPS = 4, 8


def pools_as_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Average pools between quantisers as depthwise convolutions of one weight, which int8 holds exactly.

    Where the border does not count, its outputs are multiplied afterwards by what their windows lack: a map of whole
    multiples of one scale, exact as well. The numbers between are rounded to the output's grid.

    Requires fixed channels, a window of at most `_TAPS` numbers and sizes rounded down; fixed sizes for such borders.
    """
    graph = QuantisedGraph(model)
    return graph.replacing("AveragePool", partial(_replaced_pool, graph))


def _replaced_pool(graph: QuantisedGraph, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    shape, attributes = graph.shapes.get(node.input[0], ()), attributes_of(node)
    fits = len(shape) == 4 and shape[1] and prod(integers(attributes["kernel_shape"])) <= _TAPS
    if not fits or graph.grid(node.input[0]) is None or not graph.is_quantised(node) or attributes.get("ceil_mode"):
        return None
    if attributes.get("count_include_pad") or not is_padded(attributes):
        return _pool(graph, node, shape[1], attributes)
    lack = _lack(graph, node, attributes)
    return None if lack is None else _bordered_pool(graph, node, shape[1], attributes, *lack)


def _lack(
    graph: QuantisedGraph, node: onnx.NodeProto, attributes: dict[str, object]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """What windows at the border lack: whole numbers (1, 1, H, W), and what one is worth; None if there are none."""
    shape = graph.shapes.get(node.output[0], ())
    before = graph.shapes.get(node.input[0], ())
    pads = integers(attributes.get("pads", ()))
    if len(pads) != 4 or not all((*before, *shape)) or {*integers(attributes.get("dilations", ())), 1} != {1}:
        return None
    kernel, strides = integers(attributes["kernel_shape"]), (*integers(attributes.get("strides", ())), 1, 1)
    counts = []
    for axis in (0, 1):
        first = np.arange(shape[axis + 2]) * strides[axis] - pads[axis]
        last = np.minimum(first + kernel[axis], before[axis + 2])
        counts.append(last - np.maximum(first, 0))
    lacking = prod(kernel) / np.multiply.outer(*counts)
    for parts in range(1, 256):
        whole = np.rint(lacking * parts)
        if whole.max() <= 255 and np.allclose(whole, lacking * parts, rtol=0, atol=1e-6):
            return whole.astype(np.uint8)[None, None], np.array(1 / parts, np.float32)
    return None


def _bordered_pool(
    graph: QuantisedGraph,
    node: onnx.NodeProto,
    channels: int,
    attributes: dict[str, object],
    lacking: NDArray[np.uint8],
    worth: NDArray[np.float32],
) -> list[onnx.NodeProto] | None:
    """The pool whose border counts, and what makes it one whose border does not."""
    output, quantiser = node.output[0], graph.readers[node.output[0]][0]
    if quantiser.op_type != QUANTISE:
        return None
    counted, inside, stem = f"{output}_counted", f"{output}_inside", f"{output}_lack"
    node.output[0] = counted
    made = _pool(graph, node, channels, attributes)
    made += quantisers(counted, inside, (quantiser.input[1], quantiser.input[2]))
    names = [graph.constant(f"{stem}_numbers", lacking), graph.constant(f"{stem}_scale", worth)]
    names.append(graph.constant("uint8_0", np.array(0, np.uint8)))
    made.append(helper.make_node(DEQUANTISE, names, [stem], name=f"{stem}_dq"))
    return [*made, helper.make_node("Mul", [inside, stem], [output], name=f"{output}_mul")]


def repeat_for_depthwise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Depthwise convolutions of several outputs per channel as repeated channels of one output each; no number changes.

    Requires a quantised input and output, and constant weights.
    """
    graph = QuantisedGraph(model)
    return graph.replacing("Conv", partial(_repeated, graph))


def full_for_grouped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convolutions of up to eight groups as full ones with zeros between the groups; no number changes.

    Grouped convolutions have no kernel of their own but a copy of every window: 64 channels, 3x3, 128x256, take 2.8 ms
    in four groups, 4.4 in eight, and 1.7 as a full one. Depthwise ones have one, for 16 channels at a time: an average
    pool of the picture (CGNet's, 3x3, stride 2) took 2.4 ms and takes 0.4 as a full one (with `pixels.fold_stems`), so
    those of up to four channels count.
    """
    graph = QuantisedGraph(model)
    return graph.replacing("Conv", partial(_full, graph))


def _full(graph: QuantisedGraph, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    weight, group = graph.weight(node.input[1]), int(attributes_of(node).get("group", 1))
    if weight is None or not 1 < group <= _GROUPS or not graph.runs_in_int8(node):
        return None
    outputs, inputs = len(weight.numbers) // group, weight.numbers.shape[1]
    if inputs == 1 and group > _FEW:
        return None
    numbers = np.zeros((group, outputs, group, *weight.numbers.shape[1:]), weight.numbers.dtype)
    for index in range(group):
        numbers[index, :, index] = weight.numbers[index * outputs : (index + 1) * outputs]
    shape = (group * outputs, group * inputs, *weight.numbers.shape[2:])
    stem = f"{node.output[0]}_full"
    names = [graph.constant(f"{stem}_weight", numbers.reshape(shape)), weight.scale, weight.zero]
    axis = attributes_of(graph.producers[node.input[1]]).get("axis", 1)
    node.input[1] = stem
    set_attribute(node, "group", 1)
    return [helper.make_node(DEQUANTISE, names, [stem], name=f"{stem}_dq", axis=axis), node]


def _pool(
    graph: QuantisedGraph, node: onnx.NodeProto, channels: int, attributes: dict[str, object]
) -> list[onnx.NodeProto]:
    """A depthwise convolution of weights 127 with the scale that makes them one share of the window."""
    kernel = integers(attributes["kernel_shape"])
    stem = f"{node.output[0]}_share"
    names = [
        graph.constant(f"{stem}_weight", np.full((channels, 1, *kernel), 127, np.int8)),
        graph.constant(f"{stem}_scale", np.array(1.0 / (127 * prod(kernel)), np.float32)),
        graph.constant(f"{stem}_zero", np.array(0, np.int8)),
    ]
    kept: dict[str, Any] = {
        key: value for key, value in attributes.items() if key in ("strides", "pads", "kernel_shape", "dilations")
    }
    return [
        helper.make_node(DEQUANTISE, names, [stem], name=f"{stem}_dq"),
        helper.make_node("Conv", [node.input[0], stem], list(node.output), name=node.name, group=channels, **kept),
    ]


def _repeated(graph: QuantisedGraph, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """A convolution of ones that repeats every channel for its outputs, on the grid of its input, and the node."""
    weight, grid = graph.weight(node.input[1]), graph.grid(node.input[0])
    inputs = int(attributes_of(node).get("group", 1))
    if weight is None or grid is None or graph.dequantiser(node.input[0]) is None or not graph.is_quantised(node):
        return None
    outputs = len(weight.numbers)
    if weight.numbers.ndim != 4 or weight.numbers.shape[1] != 1 or not outputs > inputs > 1:
        return None
    stem = f"{node.output[0]}_repeat"
    ones = np.zeros((outputs, inputs, 1, 1), np.int8)
    ones[np.arange(outputs), np.arange(outputs) // (outputs // inputs)] = 1
    names = [
        graph.constant(f"{stem}_weight", ones),
        graph.constant(f"{stem}_scale", np.array(1, np.float32)),
        graph.constant(f"{stem}_zero", np.array(0, np.int8)),
    ]
    made = [
        helper.make_node(DEQUANTISE, names, [f"{stem}_ones"], name=f"{stem}_ones_dq"),
        helper.make_node("Conv", [node.input[0], f"{stem}_ones"], [stem], name=stem, kernel_shape=[1, 1]),
        *quantisers(stem, f"{stem}_grid", grid),
    ]
    node.input[0] = f"{stem}_grid"
    set_attribute(node, "group", outputs)
    return [*made, node]
