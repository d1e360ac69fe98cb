"""Add channels of zeros to a graph: no number of the network changes, and kernels get channels in whole blocks.

Convolutions and concats may give more channels than the network means, the last ones of zeros, where everything that
reads them treats channels alike, or is a convolution, whose weights for them are zeros. The operators' relations are
those of the channel-order analysis (`edgeseg.graph.channel_relations`). Where something needs the channels as
they are, the convolutions and concats that would feed it are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx_ir as ir

from edgeseg.graph.channel_constants import write_constants
from edgeseg.graph.channel_relations import (
    Alike,
    BlockedError,
    Joined,
    Order,
    Relation,
    Weighted,
    relation_of,
)
from edgeseg.graph.editor import GraphEditor

__all__ = ["Width", "pad_channels", "padded_orders"]

Width = Callable[[ir.Node, int], int]
"""How many channels a convolution or concat shall give in place of so many."""


def pad_channels(editor: GraphEditor, width: Width) -> None:
    """Let convolutions and concats give more channels, those of zeros last, wherever nothing is in the way."""
    orders = padded_orders(editor, width)
    for node in editor.nodes():
        if any(value in orders for value in (*node.inputs, *node.outputs) if value is not None):
            relation = relation_of(editor, node)
            if isinstance(relation, Joined):
                _fill_concat(editor, node, relation, orders)
            write_constants(editor, node, relation, orders, "aligned")
    editor.changes += bool(orders)


def padded_orders(editor: GraphEditor, width: Width) -> dict[ir.Value, Order]:
    """Find which values may have channels of zeros, and where these lie.

    Args:
        editor: Of the graph.
        width: Channels wanted.

    Returns:
        The orders of all values with channels of zeros; -1 stands for such a channel.
    """
    alone: set[ir.Value] = set()
    while True:
        flow = _Flow(editor, width, alone)
        blocked = flow.run()
        if not blocked:
            return flow.orders
        alone |= blocked


class _Flow:
    """Follow the channels if every convolution and concat but those in `alone` gives as many as are wanted."""

    def __init__(self, editor: GraphEditor, width: Width, alone: set[ir.Value]) -> None:
        self._editor, self._width, self._alone = editor, width, alone
        self.orders: dict[ir.Value, Order] = {}
        self._origins: dict[ir.Value, frozenset[ir.Value]] = {}
        self._blocked: set[ir.Value] = set()

    def run(self) -> set[ir.Value]:
        """Follow the graph from its inputs; return the results that must be left alone."""
        for node in self._editor.graph:
            self._visit(node)
        self._block(self._editor.graph.outputs)
        return self._blocked

    def _visit(self, node: ir.Node) -> None:
        padded = [value for value in node.inputs if value is not None and value in self.orders]
        if not padded and node.op_type not in ("Conv", "Concat"):
            return
        try:
            relation = relation_of(self._editor, node)
            order = self._order(node, relation, padded)
        except BlockedError:
            self._block(padded)
            return
        if order is not None:
            self.orders[node.outputs[0]] = order
            self._origins[node.outputs[0]] = self._origins_of(node, relation, padded)

    def _block(self, values: Iterable[ir.Value]) -> None:
        for value in values:
            self._blocked |= self._origins.get(value, frozenset())

    def _origins_of(self, node: ir.Node, relation: Relation, padded: Sequence[ir.Value]) -> frozenset[ir.Value]:
        """Collect the results whose extra channels the node's output has."""
        if isinstance(relation, Weighted) and not relation.depthwise:
            return frozenset(node.outputs[:1])
        origins = frozenset[ir.Value]().union(*(self._origins[value] for value in padded))
        return origins | set(node.outputs[:1]) if isinstance(relation, Joined) else origins

    def _order(self, node: ir.Node, relation: Relation, padded: Sequence[ir.Value]) -> Order | None:
        """Return the order of a node's output, None where it has no channels of zeros."""
        if any(len(value.shape or ()) != 4 for value in (*padded, *node.outputs)):
            raise BlockedError("only maps of rank 4 have channels of zeros")
        if isinstance(relation, Weighted):
            return self._convolved(node, relation)
        if isinstance(relation, Joined):
            return self._joined(node, relation)
        if isinstance(relation, Alike) and padded:
            return self._alike(relation, node.outputs[0], padded)
        if padded:
            raise BlockedError(f"{node.op_type} needs its channels as they are")
        return None

    def _convolved(self, node: ir.Node, relation: Weighted) -> Order | None:
        if relation.depthwise:
            return self.orders.get(relation.source)
        if relation.group > 1:
            raise BlockedError("channels of zeros would move those of other groups")
        if relation.transposed or relation.out in self._alone:
            return None
        count = len(relation.weight.numbers)
        return _with_zeros(range(count), self._width(node, count))

    def _joined(self, node: ir.Node, relation: Joined) -> Order | None:
        if node.op_type != "Concat":
            raise BlockedError("a Split needs its channels as they are")
        found: list[int] = []
        start = 0
        for part, size in zip(relation.parts, relation.sizes, strict=True):
            stored = self.orders.get(part, tuple(range(size)))
            found += [-1 if channel < 0 else channel + start for channel in stored]
            start += size
        alone = relation.whole in self._alone or self._editor.shape(relation.whole) is None
        wider = _with_zeros(found, len(found) if alone else self._width(node, len(found)))
        return wider if wider is not None or -1 not in found else tuple(found)

    def _alike(self, relation: Alike, out: ir.Value, padded: Sequence[ir.Value]) -> Order:
        linked = [value for value in relation.values if value is not out]
        order = self.orders[padded[0]]
        if not relation.keeps_zeros or not all(self.orders.get(value) == order for value in (*linked, *padded)):
            raise BlockedError("values of other channels meet")
        return order


def _with_zeros(order: Sequence[int], width: int) -> Order | None:
    """Return the order with channels of zeros behind it, up to a width; None where there are as many already."""
    return (*order, *[-1] * (width - len(order))) if width > len(order) else None


def _fill_concat(editor: GraphEditor, node: ir.Node, relation: Joined, orders: dict[ir.Value, Order]) -> None:
    """Add a part of zeros to a concat, up to the channels it is to have."""
    order = orders.get(node.outputs[0])
    given = sum(len(orders.get(part, range(size))) for part, size in zip(relation.parts, relation.sizes, strict=True))
    shape = editor.shape(relation.parts[0])
    if order is None or shape is None or given == len(order):
        return
    shape = (shape[0], len(order) - given, *shape[2:])
    draft = editor.draft(f"{node.outputs[0].name}_zeros")
    sizes = draft.constant(np.array(shape, np.int64), "shape")
    first = relation.parts[0]
    read, made = editor.producer(first, "DequantizeLinear"), editor.producer(first, "QuantizeLinear")
    if read is not None and editor.constant(read.inputs[0]) is None:
        zeros = draft.op("Expand", [read.inputs[2], sizes], shape, hint="numbers")
        zeros = draft.op("DequantizeLinear", [zeros, *read.inputs[1:]], shape, like=first)
    else:
        zero = draft.constant(np.array(0, np.float32), "zero") if made is None else made.inputs[2]
        zeros = draft.op("Expand", [zero, sizes], shape, like=first)
    draft.commit({}, before=node)
    node.resize_inputs(len(node.inputs) + 1)
    node.replace_input_with(len(node.inputs) - 1, zeros)
