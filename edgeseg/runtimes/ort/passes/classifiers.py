"""Convolutions that end in floats, written as products of integers."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor, attribute_int, attribute_ints, attribute_string
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import QuantisedDraft, QuantisedGraph, Weight

__all__ = ["ClassifiersAsProducts"]


class ClassifiersAsProducts(GraphPass):
    """Turn 1x1 convolutions of quantised maps to fewer float channels into MatMulInteger of channels-last maps.

    The sums are those of the convolution in exact arithmetic; they are scaled and shifted as it would. As convolutions
    they would run in float, on maps dequantised and put in another layout first. Requires at most half as many outputs
    as inputs.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "exact"

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        for node in graph.nodes("Conv"):
            source, weight = graph.dequantiser(node.inputs[0]), graph.weight(node.inputs[1])
            if source is not None and weight is not None and _is_classifier(graph, node, source, weight):
                _multiply(graph, node, source, weight)


def _is_classifier(graph: QuantisedGraph, node: ir.Node, source: ir.Node, weight: Weight) -> bool:
    """Tell whether a convolution is a product that ends in floats and has fewer outputs than inputs."""
    if graph.is_quantised(node) or not _is_pointwise(node) or weight.numbers.ndim != 4:
        return False
    outputs, inputs = weight.numbers.shape[:2]
    given = node.inputs[2] if len(node.inputs) > 2 else None
    known = graph.array(source.inputs[1]).size == 1 and (given is None or graph.is_constant(given))
    return known and weight.numbers.dtype == np.int8 and 2 * outputs <= inputs


def _is_pointwise(node: ir.Node) -> bool:
    steps = {*attribute_ints(node, "strides", ()), *attribute_ints(node, "kernel_shape", ())}
    padded = any(attribute_ints(node, "pads", ())) or attribute_string(node, "auto_pad", "NOTSET") != "NOTSET"
    return attribute_int(node, "group", 1) == 1 and not padded and steps <= {1} and "kernel_shape" in node.attributes


def _multiply(graph: QuantisedGraph, node: ir.Node, source: ir.Node, weight: Weight) -> None:
    out, draft = node.outputs[0], graph.draft(node)
    numbers, _, zero = source.inputs
    matrix = graph.constant(f"{out.name}_matrix", weight.numbers[:, :, 0, 0].T)
    last, before = _channels_last(graph.shape(out)), _channels_last(graph.shape(node.inputs[0]))
    read = draft.like("Transpose", [numbers], numbers, shape=before, hint="last", perm=[0, 2, 3, 1])
    sums = draft.like("MatMulInteger", [read, matrix, zero], out, shape=last, hint="sums")
    sums.type = ir.TensorType(ir.DataType.INT32)
    floats = draft.like("Cast", [sums], out, shape=last, hint="floats", to=int(ir.DataType.FLOAT))
    result = draft.like("Mul", [floats, _factor(draft, node, source, weight)], out, shape=last, hint="scaled")
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = draft.like("Add", [result, node.inputs[2]], out, shape=last, hint="shifted")
    draft.commit({out: draft.like("Transpose", [result], out, perm=[0, 3, 1, 2])}, before=node)


def _factor(draft: QuantisedDraft, node: ir.Node, source: ir.Node, weight: Weight) -> ir.Value:
    """Return the constant that the sums of integers are scaled by, one number for all channels or one each."""
    scales = (draft.graph.array(value).astype(np.float64) for value in (source.inputs[1], weight.scale))
    first, second = scales
    return draft.graph.constant(f"{node.outputs[0].name}_factor", (first * second).reshape(-1).astype(np.float32))


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:1], *shape[2:], *shape[1:2])
