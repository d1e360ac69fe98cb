"""Grouped convolutions that have no int8 kernel, written as convolutions that have one."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor, attribute_int
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import Grid, QuantisedDraft, QuantisedGraph, Weight
from edgeseg.runtimes.ort.passes.kernels import runs_in_int8

__all__ = ["FullForGrouped", "RepeatForDepthwise"]

_GROUPS = 8
"""Most groups of a convolution that becomes a full one."""

_FEW = 4
"""Most channels of a depthwise convolution that becomes a full one: its kernel computes 16 channels at a time."""


class RepeatForDepthwise(GraphPass):
    """Turn depthwise convolutions of several outputs per channel into repeated channels of one output each.

    A 1x1 convolution of ones repeats the channels, on the grid of the input; no number changes. Requires a quantised
    input and output, and constant weights.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "exact"

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        for node in graph.nodes("Conv"):
            weight, grid = graph.weight(node.inputs[1]), graph.grid(node.inputs[0])
            if weight is not None and grid is not None and _is_repeatable(graph, node, weight):
                _repeat(graph, node, len(weight.numbers), grid)


def _is_repeatable(graph: QuantisedGraph, node: ir.Node, weight: Weight) -> bool:
    shape, inputs = weight.numbers.shape, attribute_int(node, "group", 1)
    several = len(shape) == 4 and shape[1] == 1 and shape[0] > inputs > 1
    return several and graph.dequantiser(node.inputs[0]) is not None and graph.is_quantised(node)


def _repeat(graph: QuantisedGraph, node: ir.Node, outputs: int, grid: Grid) -> None:
    out, draft = node.outputs[0], graph.draft(node)
    read = _repeated(draft, node, outputs, grid)
    new = draft.like("Conv", [read, *node.inputs[1:]], out, copied=node.attributes, group=outputs)
    draft.commit({out: new}, before=node)


def _repeated(draft: QuantisedDraft, node: ir.Node, outputs: int, grid: Grid) -> ir.Value:
    """Draft a convolution of ones that repeats every channel for its outputs."""
    graph, stem, inputs = draft.graph, f"{node.outputs[0].name}_repeat", attribute_int(node, "group", 1)
    ones = np.zeros((outputs, inputs, 1, 1), np.int8)
    ones[np.arange(outputs), np.arange(outputs) // (outputs // inputs)] = 1
    unit = Grid(
        graph.constant(f"{stem}_scale", np.array(1, np.float32)),
        graph.constant(f"{stem}_zero", np.array(0, np.int8)),
    )
    weight = draft.dequantise(graph.constant(f"{stem}_weight", ones), unit, "ones")
    value, before = node.inputs[0], graph.shape(node.inputs[0])
    shape = (before[0], outputs, *before[2:]) if before else ()
    repeated = draft.like("Conv", [value, weight], node.outputs[0], shape=shape, hint="repeat", kernel_shape=[1, 1])
    return draft.round_to(repeated, grid, "repeat_grid")


class FullForGrouped(GraphPass):
    """Turn convolutions of up to eight groups into full ones with zeros between the groups; no number changes.

    Grouped convolutions have no kernel for them but a copy of every window, which costs more than the zeros do.
    Depthwise ones have a kernel, for 16 channels at a time, so that only those of up to four channels become full ones:
    an average pool of the picture, say. Requires int8 on both sides.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "exact"

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        for node in graph.nodes("Conv"):
            weight = graph.weight(node.inputs[1])
            if weight is not None and _is_worth_filling(graph, node, weight):
                _fill(graph, node, weight)


def _is_worth_filling(graph: QuantisedGraph, node: ir.Node, weight: Weight) -> bool:
    group = attribute_int(node, "group", 1)
    most = _FEW if weight.numbers.shape[1] == 1 else _GROUPS
    return 1 < group <= most and runs_in_int8(graph, node)


def _fill(graph: QuantisedGraph, node: ir.Node, weight: Weight) -> None:
    group, out, draft = attribute_int(node, "group", 1), node.outputs[0], graph.draft(node)
    outputs, inputs = len(weight.numbers) // group, weight.numbers.shape[1]
    numbers = np.zeros((group, outputs, group, *weight.numbers.shape[1:]), weight.numbers.dtype)
    for index in range(group):
        numbers[index, :, index] = weight.numbers[index * outputs : (index + 1) * outputs]
    shape = (group * outputs, group * inputs, *weight.numbers.shape[2:])
    full = graph.constant(f"{out.name}_full_weight", numbers.reshape(shape))
    reader = graph.editor.producer(node.inputs[1])
    axis = 1 if reader is None else attribute_int(reader, "axis", 1)
    floats = draft.dequantise(full, Grid(weight.scale, weight.zero), "full", axis=axis)
    new = draft.like("Conv", [node.inputs[0], floats, *node.inputs[2:]], out, copied=node.attributes, group=1)
    draft.commit({out: new}, before=node)
