"""Orders of channels that agree across a graph: what lets a channel shuffle disappear into the weights around it.

Every value may be stored with its channels (axis 1) in another order than the network means. Nodes that treat channels
alike pass an order on; convolutions with constant weights take any order on either side, since their weights can be
written in that order; everything else needs the channels as they were (`edgeseg.graph.channel_relations`).
`ChannelOrders` starts from one value's order, follows these relations to all neighbours, and either finds orders for
every value concerned or says what is in the way. Constants are only permuted, so the numbers stay bit for bit what they
were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

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
    channels,
    relation_of,
)
from edgeseg.graph.editor import GraphEditor

__all__ = ["ChannelOrders", "Move"]


@dataclass(frozen=True)
class Move:
    """Nodes that only reorder channels: ``result[:, i] = source[:, order[i]]``.

    Attributes:
        source: What they read.
        result: What they make.
        order: See above.
        nodes: First to last; values in between are read by nobody else.
    """

    source: ir.Value
    result: ir.Value
    order: Order
    nodes: tuple[ir.Node, ...]


def _inverse(order: Order) -> Order:
    return tuple(int(i) for i in np.argsort(order))


def _after(first: Order, second: Order) -> Order:
    return tuple(first[i] for i in second)


def _is_identity(order: Order) -> bool:
    return order == tuple(range(len(order)))


class ChannelOrders:
    """Finds and applies orders that agree.

    Args:
        editor: Of the graph.
        moves: Every reordering in the graph; one that is reached vanishes.
    """

    def __init__(self, editor: GraphEditor, moves: Iterable[Move]) -> None:
        self._editor = editor
        self._moves: dict[ir.Node, Move] = {}
        for move in moves:
            self._moves[move.nodes[0]] = self._moves[move.nodes[-1]] = move
        self._orders: dict[ir.Value, Order] = {}
        self._waiting: list[ir.Value] = []
        self._later: list[ir.Node] = []
        self._touched: dict[ir.Node, Relation] = {}
        self._gone: dict[ir.Node, Move] = {}

    # --- finding -----------------------------------------------------------------------------------------------------

    def require(self, value: ir.Value, order: Order) -> None:
        """Let a value be stored in this order.

        Raises:
            BlockedError: It has another one by now, or is an input or output of the graph.
        """
        known = self._orders.get(value)
        if known is not None and known != order:
            raise BlockedError("two orders of channels meet")
        if known is not None:
            return
        self._orders[value] = order
        if not _is_identity(order):
            if value.is_graph_output() or value.producer() is None:
                raise BlockedError("the order of channels reaches an input or output of the graph")
            self._waiting.append(value)

    def settle(self) -> None:
        """Follow the relations until every value concerned has its order.

        Raises:
            BlockedError: There are no such orders.
        """
        while self._waiting or self._later:
            if not self._waiting:
                self._relate(self._later.pop(0))
                continue
            value = self._waiting.pop()
            for node in dict.fromkeys((value.producer(), *self._editor.consumers(value))):
                self._visit(node)

    def _visit(self, node: ir.Node | None) -> None:
        if node is None or not self._editor.holds(node) or node.domain not in ("", "ai.onnx"):
            raise BlockedError("the order of channels reaches a node outside the graph")
        move = self._moves.get(node)
        if move is not None:
            self._vanish(move)
        elif node.op_type in ("Concat", "Split"):
            self._later.append(node)  # when all parts that get an order have it
        else:
            self._relate(node)

    def _relate(self, node: ir.Node) -> None:
        relation = relation_of(self._editor, node)
        self._touched[node] = relation
        if isinstance(relation, Alike):
            self._link(relation.values)
        elif isinstance(relation, Joined):
            self._join(relation)
        elif isinstance(relation, Weighted):
            self._convolve(relation)
        elif relation.out in self._orders:
            raise BlockedError(f"{node.op_type} reduces the channels")

    def _vanish(self, move: Move) -> None:
        """Let a move vanish: ``source`` stored as p and ``result`` as q are the same numbers where p = order[q]."""
        stored, made = self._orders.get(move.source), self._orders.get(move.result)
        if stored is not None:
            self.require(move.result, _after(_inverse(move.order), stored))
        elif made is not None:
            self.require(move.source, _after(move.order, made))
        self._gone[move.nodes[-1]] = move

    def _link(self, values: Sequence[ir.Value]) -> None:
        """Give the values one order in common, where one of them has an order."""
        order = next((self._orders[value] for value in values if value in self._orders), None)
        if order is None:
            return
        for value in values:
            if channels(value) != len(order):
                raise BlockedError("the number of channels changes without a convolution")
            self.require(value, order)

    def _join(self, relation: Joined) -> None:
        """Let the whole be the parts one after the other, each in its order."""
        ends = list(accumulate(relation.sizes))
        starts = [0, *ends[:-1]]
        order = self._orders.get(relation.whole)
        for part, start, end in zip(relation.parts, starts, ends, strict=True):
            if order is None:
                self.require(part, self._orders.get(part) or tuple(range(end - start)))
            else:
                self.require(part, _part(order, start, end))
        pairs = zip(relation.parts, starts, strict=True)
        joined = ((start + i for i in self._orders.get(part) or ()) for part, start in pairs)
        self.require(relation.whole, tuple(chain.from_iterable(joined)))

    def _convolve(self, relation: Weighted) -> None:
        """Let whole groups lie in one order on both sides; within a group any order will do."""
        values = (relation.source, relation.out)
        sides = [_group_order(self._orders.get(value), relation.group) for value in values]
        known = [side for side in sides if side is not None]
        if len(known) == 2 and known[0] != known[1]:
            raise BlockedError("the order of channels mixes the groups of a convolution")
        for value, side in zip(values, sides, strict=True):
            if side is None and not _is_identity(known[0]):
                size = (channels(value) or 0) // relation.group
                self.require(value, tuple(g * size + i for g in known[0] for i in range(size)))

    # --- applying ----------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Permute the constants of every node concerned and let the moves vanish."""
        for node, relation in self._touched.items():
            write_constants(self._editor, node, relation, self._orders)
        for move in self._gone.values():
            last = move.nodes[-1]
            source = last.inputs[0] if len(move.nodes) == 1 else move.nodes[0].inputs[0]
            if source is not None:
                self._editor.replace(move.result, source, before=last)
                self._editor.remove_with(move.result)
        self._editor.changes += len(self._gone)


def _group_order(order: Order | None, group: int) -> Order | None:
    """Return the order of whole groups; None where nothing is known of it."""
    if order is None:
        return None
    size = len(order) // group
    blocks = [{channel // size for channel in order[g * size : (g + 1) * size]} for g in range(group)]
    if any(len(block) != 1 for block in blocks):
        raise BlockedError("the order of channels mixes the groups of a convolution")
    return tuple(block.pop() for block in blocks)


def _part(order: Order, start: int, end: int) -> Order:
    """Return the order of one part of a joined value."""
    block = order[start:end]
    if sorted(block) != list(range(start, end)):
        raise BlockedError("the order of channels crosses the parts of a Concat or Split")
    return tuple(i - start for i in block)
