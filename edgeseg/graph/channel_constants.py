"""Write the constants of a node for the orders in which its values' channels are stored.

Constants are permuted, and padded where an order has channels of zeros. No number is computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.channel_relations import Alike, Order, Relation, Weighted
from edgeseg.graph.editor import GraphEditor

__all__ = ["reordered", "write_constants"]

Orders = Mapping[ir.Value, Order]


def write_constants(
    editor: GraphEditor, node: ir.Node, relation: Relation, orders: Orders, suffix: str = "ordered"
) -> None:
    """Give a node constants for the orders of its values.

    Args:
        editor: Of the graph.
        node: Its values keep their names; the shapes the editor knows are those from before.
        relation: Of the node (`relation_of`).
        orders: Values that are stored in another order, or with channels of zeros.
        suffix: Ends the names of new constants.
    """
    if isinstance(relation, Alike):
        _write_alike(editor, node, relation, orders, suffix)
    elif isinstance(relation, Weighted):
        _write_weights(editor, node, relation, orders, suffix)


def reordered(array: NDArray[Any], order: Order | None, axis: int, fill: float = 0.0) -> NDArray[Any]:
    """Take channels along an axis in this order, `fill` for those of zeros; None leaves the array as it is."""
    if order is None:
        return array
    picks = np.array(order, np.int64)
    taken: NDArray[Any] = np.take(array, np.maximum(picks, 0), axis=axis)
    if (picks < 0).any():
        np.moveaxis(taken, axis, 0)[picks < 0] = fill
    return taken


def _write_alike(editor: GraphEditor, node: ir.Node, relation: Alike, orders: Orders, suffix: str) -> None:
    order = orders.get(node.outputs[0])
    if order is None:
        return
    for constant in relation.constants:
        found = editor.constant(node.inputs[constant.index])
        if found is not None:
            changed = reordered(found, order, constant.axis, constant.fill)
            _set_constant(editor, node, constant.index, found, changed, suffix)
    sizes = None if relation.counts is None else editor.constant(node.inputs[relation.counts])
    if relation.counts is not None and sizes is not None:
        counted = sizes.copy()
        counted[1] = len(order)
        _set_constant(editor, node, relation.counts, sizes, counted, suffix)


def _write_weights(editor: GraphEditor, node: ir.Node, relation: Weighted, orders: Orders, suffix: str) -> None:
    outer = orders.get(relation.out)
    numbers = _weights(relation, orders.get(relation.source), outer)
    if relation.weight.dequantiser is None:
        _set_constant(editor, node, 1, relation.weight.numbers, numbers, suffix)
    elif not np.array_equal(numbers, relation.weight.numbers):
        _set_quantised(editor, node, relation.weight.dequantiser, numbers, outer, suffix)
    bias = editor.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        _set_constant(editor, node, 2, bias, reordered(bias, outer, 0), suffix)
    if relation.depthwise and outer is not None and len(outer) != relation.group:
        node.attributes["group"] = ir.AttrInt64("group", len(outer))


def _weights(relation: Weighted, inner: Order | None, outer: Order | None) -> NDArray[Any]:
    """Reorder the weights by inputs and outputs; channels of zeros need one group, or one for each channel."""
    numbers, group = relation.weight.numbers, relation.group
    rows, columns = (inner, outer) if relation.transposed else (outer, inner)
    if relation.depthwise:
        return reordered(numbers, outer, 0)
    if group == 1:
        return reordered(reordered(numbers, rows, 0), columns, 1)
    count = numbers.shape[1] * group
    first = np.arange(len(numbers)) if rows is None else np.array(rows, np.int64)
    second = np.arange(count) if columns is None else np.array(columns, np.int64)
    within = second.reshape(group, -1) % (count // group)
    picked: NDArray[Any] = numbers[first[:, None], within[np.arange(len(first)) // (len(first) // group)]]
    return picked


def _set_constant(
    editor: GraphEditor, node: ir.Node, index: int, found: NDArray[Any], changed: NDArray[Any], suffix: str
) -> None:
    old = node.inputs[index]
    if old is not None and not np.array_equal(changed, found):
        editor.set_input(node, index, editor.add_initialiser(changed, f"{old.name}_{suffix}"))


def _set_quantised(
    editor: GraphEditor,
    node: ir.Node,
    dequantiser: ir.Node,
    numbers: NDArray[Any],
    outer: Order | None,
    suffix: str,
) -> None:
    """Let a convolution read other integers through a dequantiser like the one before, with scales by output."""
    draft = editor.draft(f"{node.outputs[0].name}_{suffix}")
    inputs: list[ir.Value | None] = [draft.constant(numbers, "weight")]
    for value, hint, fill in zip(dequantiser.inputs[1:], ("scale", "zero"), (1.0, 0.0), strict=False):
        found = editor.constant(value)
        if found is None or found.size == 1:
            inputs.append(value)
        else:
            inputs.append(draft.constant(reordered(found, outer, 0, fill), hint))
    scale, shape = dequantiser.inputs[1], numbers.shape
    floats = draft.op("DequantizeLinear", inputs, shape, like=scale, hint="floats", copied=dequantiser.attributes)
    draft.commit({}, before=node)
    editor.set_input(node, 1, floats)
