"""Average pools and repeated channels as depthwise convolutions of one output per channel, which have a kernel."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeseg.export.precision.ort._graph import (
    DEQUANTISE,
    QUANTISE,
    Constants,
    Draft,
    Grids,
    attributes_of,
    integers,
    is_padded,
    is_quantised,
    quantisers,
    readers_of,
    set_attribute,
    with_nodes,
)
from edgeseg.export.precision.qdq import copied

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
    draft = Draft(model)
    grids = Grids(draft.model)
    nodes: list[onnx.NodeProto] = []
    for node in draft.model.graph.node:
        shape = draft.shapes.get(node.input[0] if node.op_type == "AveragePool" else "", ())
        attributes = attributes_of(node)
        fits = len(shape) == 4 and shape[1] and prod(integers(attributes["kernel_shape"])) <= _TAPS
        if not fits or grids.of(node.input[0]) is None or not draft.is_quantised(node) or attributes.get("ceil_mode"):
            nodes.append(node)
        elif attributes.get("count_include_pad") or not is_padded(attributes):
            nodes += _pool(draft.model, node, shape[1], attributes)
        else:
            lack = _lack(draft, node, attributes)
            nodes += [node] if lack is None else _bordered_pool(draft, node, shape[1], attributes, *lack)
    return with_nodes(draft.model, nodes)


def _lack(
    draft: Draft, node: onnx.NodeProto, attributes: dict[str, object]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """What windows at the border lack: whole numbers (1, 1, H, W), and what one is worth; None if there are none."""
    shape = draft.shapes.get(node.output[0], ())
    before = draft.shapes.get(node.input[0], ())
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
    draft: Draft,
    node: onnx.NodeProto,
    channels: int,
    attributes: dict[str, object],
    lacking: NDArray[np.uint8],
    worth: NDArray[np.float32],
) -> list[onnx.NodeProto]:
    """The pool whose border counts, and what makes it one whose border does not."""
    output, quantiser = node.output[0], draft.readers[node.output[0]][0]
    if quantiser.op_type != QUANTISE:
        return [node]
    counted, inside, stem = f"{output}_counted", f"{output}_inside", f"{output}_lack"
    node.output[0] = counted
    made = _pool(draft.model, node, channels, attributes)
    made += quantisers(counted, inside, (quantiser.input[1], quantiser.input[2]))
    names = [draft.constant(f"{stem}_numbers", lacking), draft.constant(f"{stem}_scale", worth)]
    names.append(draft.constant("uint8_0", np.array(0, np.uint8)))
    made.append(helper.make_node(DEQUANTISE, names, [stem], name=f"{stem}_dq"))
    return [*made, helper.make_node("Mul", [inside, stem], [output], name=f"{output}_mul")]


def repeat_for_depthwise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Depthwise convolutions of several outputs per channel as repeated channels of one output each; no number changes.

    Requires a quantised input and output, and constant weights.
    """
    copy = copied(model)
    grids, readers = Grids(copy), readers_of(copy)
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        weight = grids.quantised_constant(node.input[1]) if node.op_type == "Conv" else None
        group = attributes_of(node).get("group", 1)
        if (
            weight is not None
            and grids.is_dequantised(node.input[0])
            and is_quantised(node, readers)
            and weight.ndim == 4
            and weight.shape[1] == 1
            and len(weight) > group > 1
        ):
            grid = grids.of(node.input[0])
            if grid is not None:
                nodes += _repeated(copy, node, len(weight), int(group), grid)
                set_attribute(node, "group", len(weight))
        nodes.append(node)
    return with_nodes(copy, nodes)


def full_for_grouped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convolutions of up to eight groups as full ones with zeros between the groups; no number changes.

    Grouped convolutions have no kernel of their own but a copy of every window: eight times the products take less.
    Depthwise ones have one, for 16 channels at a time: an average pool of the picture (3x3, stride 2) took 2.4 ms and
    takes 0.3 as a full one (with `pixels.fold_stems`), so those of up to four channels count.
    """
    draft = Draft(model)
    nodes: list[onnx.NodeProto] = []
    for node in draft.model.graph.node:
        weight = draft.weight(node.input[1]) if node.op_type == "Conv" else None
        group = int(attributes_of(node).get("group", 1))
        if weight is not None and 1 < group <= _GROUPS and draft.runs_in_int8(node):
            outputs, inputs = len(weight.numbers) // group, weight.numbers.shape[1]
            if inputs > 1 or group <= _FEW:
                numbers = np.zeros((group, outputs, group, *weight.numbers.shape[1:]), weight.numbers.dtype)
                for index in range(group):
                    numbers[index, :, index] = weight.numbers[index * outputs : (index + 1) * outputs]
                shape = (group * outputs, group * inputs, *weight.numbers.shape[2:])
                stem = f"{node.output[0]}_full"
                names = [draft.constant(f"{stem}_weight", numbers.reshape(shape)), weight.scale, weight.zero]
                axis = attributes_of(draft.producers[node.input[1]]).get("axis", 1)
                nodes.append(helper.make_node(DEQUANTISE, names, [stem], name=f"{stem}_dq", axis=axis))
                node.input[1] = stem
                set_attribute(node, "group", 1)
        nodes.append(node)
    return with_nodes(draft.model, nodes)


def _pool(
    model: onnx.ModelProto, node: onnx.NodeProto, channels: int, attributes: dict[str, object]
) -> list[onnx.NodeProto]:
    """A depthwise convolution of weights 127 with the scale that makes them one share of the window."""
    kernel = integers(attributes["kernel_shape"])
    stem = f"{node.output[0]}_share"
    arrays: Constants = {
        f"{stem}_weight": np.full((channels, 1, *kernel), 127, np.int8),
        f"{stem}_scale": np.array(1.0 / (127 * prod(kernel)), np.float32),
        f"{stem}_zero": np.array(0, np.int8),
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    kept: dict[str, Any] = {
        key: value for key, value in attributes.items() if key in ("strides", "pads", "kernel_shape", "dilations")
    }
    return [
        helper.make_node(DEQUANTISE, list(arrays), [stem], name=f"{stem}_dq"),
        helper.make_node("Conv", [node.input[0], stem], list(node.output), name=node.name, group=channels, **kept),
    ]


def _repeated(
    model: onnx.ModelProto, node: onnx.NodeProto, outputs: int, inputs: int, grid: tuple[str, str]
) -> list[onnx.NodeProto]:
    """A convolution of ones that repeats every channel for its outputs, on the grid of its input; rewires `node`."""
    stem = f"{node.output[0]}_repeat"
    ones = np.zeros((outputs, inputs, 1, 1), np.int8)
    ones[np.arange(outputs), np.arange(outputs) // (outputs // inputs)] = 1
    arrays: Constants = {
        f"{stem}_weight": ones,
        f"{stem}_scale": np.array(1, np.float32),
        f"{stem}_zero": np.array(0, np.int8),
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    made = [
        helper.make_node(DEQUANTISE, list(arrays), [f"{stem}_ones"], name=f"{stem}_ones_dq"),
        helper.make_node("Conv", [node.input[0], f"{stem}_ones"], [stem], name=stem, kernel_shape=[1, 1]),
        *quantisers(stem, f"{stem}_grid", grid),
    ]
    node.input[0] = f"{stem}_grid"
    return made
