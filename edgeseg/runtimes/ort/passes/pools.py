"""Small average pools as depthwise convolutions, whose int8 kernel is several times as fast."""

from __future__ import annotations

from math import prod
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.editor import GraphEditor, attribute_int, attribute_ints, attribute_string
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import ALLOWED_DROP, QUANTISE, Grid, QuantisedDraft, QuantisedGraph

__all__ = ["PoolsAsConvolutions"]

_TAPS = 9
"""Largest window of an average pool that becomes a convolution."""

_LARGEST = 127
"""Largest int8 number of a weight."""

_COPIED = ("strides", "pads", "kernel_shape", "dilations")
"""Attributes that a pool and a convolution share."""


class PoolsAsConvolutions(GraphPass):
    """Turn average pools between quantisers into depthwise convolutions of one weight, which int8 holds exactly.

    Where the border does not count, its outputs are multiplied afterwards by what their windows lack: a map of whole
    multiples of one scale, exact as well. The numbers between are rounded to the output's grid.

    Requires fixed channels, a window of at most 9 numbers and sizes rounded down; fixed sizes for such borders.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "rounding"
    allowed_drop: ClassVar[float] = ALLOWED_DROP

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        for node in graph.nodes("AveragePool"):
            if _is_replaceable(graph, node):
                _replace(graph, node)
            else:
                editor.decline("an average pool has more than 9 numbers, rounds sizes up, or is not between quantisers")


def _is_replaceable(graph: QuantisedGraph, node: ir.Node) -> bool:
    shape = graph.shape(node.inputs[0])
    small = len(shape) == 4 and shape[1] > 0 and prod(attribute_ints(node, "kernel_shape", ())) <= _TAPS
    between = graph.grid(node.inputs[0]) is not None and graph.is_quantised(node)
    return small and between and not attribute_int(node, "ceil_mode", 0)


def _replace(graph: QuantisedGraph, node: ir.Node) -> None:
    out, draft = node.outputs[0], graph.draft(node)
    padded = any(attribute_ints(node, "pads", ())) or attribute_string(node, "auto_pad", "NOTSET") != "NOTSET"
    if attribute_int(node, "count_include_pad", 0) or not padded:
        draft.commit({out: _mean(draft, node)}, before=node)
        return
    lacking, quantiser = _lacking(graph, node), graph.readers(out)[0]
    if lacking is None or quantiser.op_type != QUANTISE:
        graph.editor.decline("an average pool has a border that does not count, and a free size or a ReLU after it")
        return
    scale, zero = quantiser.inputs[1:3]
    if scale is not None and zero is not None:
        inside = draft.round_to(_mean(draft, node), Grid(scale, zero), "inside")
        factor = _draft_factor(draft, out, *lacking)
        draft.commit({out: draft.like("Mul", [inside, factor], out)}, before=node)


def _mean(draft: QuantisedDraft, node: ir.Node) -> ir.Value:
    """Draft a depthwise convolution of weights 127, with the scale that makes each one share of the window."""
    graph, out = draft.graph, node.outputs[0]
    kernel, channels = attribute_ints(node, "kernel_shape", ()), graph.shape(node.inputs[0])[1]
    numbers = graph.constant(f"{out.name}_share_weight", np.full((channels, 1, *kernel), _LARGEST, np.int8))
    grid = Grid(
        graph.constant(f"{out.name}_share_scale", np.array(1.0 / (_LARGEST * prod(kernel)), np.float32)),
        graph.constant(f"{out.name}_share_zero", np.array(0, np.int8)),
    )
    weight = draft.dequantise(numbers, grid, "share")
    copied = {name: attribute for name, attribute in node.attributes.items() if name in _COPIED}
    return draft.like("Conv", [node.inputs[0], weight], out, copied=copied, group=channels)


def _lacking(graph: QuantisedGraph, node: ir.Node) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """Return what windows at the border lack: whole numbers (1, 1, H, W), and what one is worth; None if unknown."""
    before, after = graph.shape(node.inputs[0]), graph.shape(node.outputs[0])
    kernel, pads = attribute_ints(node, "kernel_shape", ()), attribute_ints(node, "pads", ())
    strides = attribute_ints(node, "strides", (1, 1))
    dilated = {*attribute_ints(node, "dilations", ()), 1} != {1}
    if len(pads) != 4 or len(after) != 4 or not all((*before, *after)) or dilated:
        return None
    counts = []
    for axis in (0, 1):
        first = np.arange(after[axis + 2]) * strides[axis] - pads[axis]
        last = np.minimum(first + kernel[axis], before[axis + 2])
        counts.append(last - np.maximum(first, 0))
    lacking = prod(kernel) / np.multiply.outer(*counts)
    for parts in range(1, 256):
        whole = np.rint(lacking * parts)
        if whole.max() <= 255 and np.allclose(whole, lacking * parts, rtol=0, atol=1e-6):
            return whole.astype(np.uint8)[None, None], np.array(1 / parts, np.float32)
    return None


def _draft_factor(
    draft: QuantisedDraft, out: ir.Value, lacking: NDArray[np.uint8], worth: NDArray[np.float32]
) -> ir.Value:
    """Draft the map that a pool with a counted border is multiplied by."""
    graph = draft.graph
    numbers = graph.constant(f"{out.name}_lack_numbers", lacking)
    scale = graph.constant(f"{out.name}_lack_scale", worth)
    return draft.dequantise(numbers, Grid(scale, graph.constant("uint8_0", np.array(0, np.uint8))), "lack")
