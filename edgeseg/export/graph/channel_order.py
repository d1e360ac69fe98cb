"""Orders of channels that agree across a graph: what lets a channel shuffle disappear into the weights around it.

Every value may be stored with its channels (axis 1) in another order than the network means. Nodes that treat channels
alike pass an order on; convolutions with constant weights take any order on either side, since their weights can be
written in that order; everything else needs the channels as they were. `ChannelOrders` starts from one value's order,
follows these rules to all neighbours, and either finds orders for every value concerned or says what is in the way.
Nothing is computed anew: constants are only permuted, so the numbers stay bit for bit what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.export.graph.editor import GraphEditor, attribute_int

__all__ = ["BlockedError", "ChannelOrders", "Move", "Order", "channels", "same_dims"]

Order = tuple[int, ...]
"""Stored position -> the channel that lies there."""


class BlockedError(Exception):
    """Why no orders agree; never leaves the passes."""


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


def channels(value: ir.Value | None) -> int | None:
    """Length of axis 1 where it is a known number, else None."""
    if value is None or value.shape is None or len(value.shape) < 2:
        return None
    length = value.shape[1]
    return length if isinstance(length, int) else None


def same_dims(first: ir.Value, second: ir.Value, axes: Iterable[int]) -> bool:
    """Whether these axes have the same length in both, by number or by name; unknown ones have not."""
    if first.shape is None or second.shape is None:
        return False
    pairs = [(first.shape[axis], second.shape[axis]) for axis in axes]
    return all(a == b and (isinstance(a, int) or a.value is not None) for a, b in pairs)


def _inverse(order: Order) -> Order:
    return tuple(int(i) for i in np.argsort(order))


def _after(first: Order, second: Order) -> Order:
    return tuple(first[i] for i in second)


def _straight(order: Order) -> bool:
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
        self._touched: dict[ir.Node, None] = {}
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
        if not _straight(order):
            if value.is_graph_output() or value.producer() is None:
                raise BlockedError("the order of channels reaches an input or output of the graph")
            self._waiting.append(value)

    def settle(self) -> None:
        """Follow the rules until every value concerned has its order.

        Raises:
            BlockedError: There are no such orders.
        """
        while self._waiting or self._later:
            if not self._waiting:
                self._rule(self._later.pop(0))
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
            self._rule(node)

    def _rule(self, node: ir.Node) -> None:
        rule = _RULES.get(node.op_type)
        if rule is None:
            raise BlockedError(f"{node.op_type} needs its channels in order")
        self._touched[node] = None
        rule(self, node)

    def _vanish(self, move: Move) -> None:
        """``source`` stored as p and ``result`` as q are the same numbers where p = order[q]."""
        stored, made = self._orders.get(move.source), self._orders.get(move.result)
        if stored is not None:
            self.require(move.result, _after(_inverse(move.order), stored))
        elif made is not None:
            self.require(move.source, _after(move.order, made))
        self._gone[move.nodes[-1]] = move

    def link(self, values: Sequence[ir.Value]) -> None:
        """The values have one order in common, where one of them has an order."""
        order = next((self._orders[value] for value in values if value in self._orders), None)
        if order is None:
            return
        for value in values:
            if channels(value) != len(order):
                raise BlockedError("the number of channels changes without a convolution")
            self.require(value, order)

    def order(self, value: ir.Value) -> Order | None:
        """The value's order so far."""
        return self._orders.get(value)

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether the value's numbers are known."""
        return self._editor.constant(value) is not None

    def integers(self, value: ir.Value | None) -> list[int] | None:
        """A constant list of integers."""
        found = self._editor.constant(value)
        return None if found is None else [int(i) for i in found.ravel()]

    # --- applying ----------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Permute the constants of every node concerned and let the moves vanish."""
        for node in self._touched:
            writer = _WRITERS.get(node.op_type, _write_elementwise)
            writer(self, node)
        for move in self._gone.values():
            last = move.nodes[-1]
            source = last.inputs[0] if len(move.nodes) == 1 else move.nodes[0].inputs[0]
            if source is not None:
                self._editor.replace(move.result, source, before=last)
                self._editor.remove_with(move.result)
        self._editor.changes += len(self._gone)

    def positions(self, value: ir.Value, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The value's order as an array, straight where it has none."""
        return np.array(self._orders.get(value, tuple(range(count))), dtype=np.int64)

    def rewrite(self, node: ir.Node, index: int, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Give a node another constant."""
        old = node.inputs[index] if index < len(node.inputs) else None
        found = self._editor.constant(old)
        if old is None or found is None:
            return
        changed = change(found)
        if not np.array_equal(changed, found):
            self._editor.set_input(node, index, self._editor.add_initialiser(changed, f"{old.name}_ordered"))


# --- rules: what orders a node's values must have ---


def _elementwise(orders: ChannelOrders, node: ir.Node) -> None:
    out = node.outputs[0]
    values = [out]
    for value in node.inputs:
        if value is None or orders.is_constant(value) or _is_scalar(value):
            continue
        if out.shape is None or value.shape is None or len(value.shape) != len(out.shape):
            raise BlockedError(f"{node.op_type} combines values of different rank")
        if channels(value) != 1 or channels(out) == 1:
            values.append(value)
    orders.link(values)


def _is_scalar(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) == 0


def _passes_on(orders: ChannelOrders, node: ir.Node) -> None:
    """Every channel is treated alike and by itself (or by a function that treats all alike)."""
    first = node.inputs[0]
    if first is None:
        raise BlockedError(f"{node.op_type} has no input")
    orders.link([first, node.outputs[0]])


def _per_channel(orders: ChannelOrders, node: ir.Node) -> None:
    if not all(orders.is_constant(value) for value in node.inputs[1:]):
        raise BlockedError(f"{node.op_type} has parameters that are not constant")
    _passes_on(orders, node)


def _convolution(orders: ChannelOrders, node: ir.Node) -> None:
    """Within a group any order will do; whole groups may change places on both sides alike."""
    source, out = node.inputs[0], node.outputs[0]
    if source is None or not all(orders.is_constant(value) for value in node.inputs[1:] if value is not None):
        raise BlockedError("a convolution's weights are not constant")
    group = attribute_int(node, "group", 1)
    sides = [_group_order(orders.order(value), group) for value in (source, out)]
    known = [side for side in sides if side is not None]
    if len(known) == 2 and known[0] != known[1]:
        raise BlockedError("the order of channels mixes the groups of a convolution")
    for value, side in zip((source, out), sides, strict=True):
        if side is None and not _straight(known[0]):
            size = (channels(value) or 0) // group
            orders.require(value, tuple(g * size + i for g in known[0] for i in range(size)))


def _group_order(order: Order | None, group: int) -> Order | None:
    if order is None:
        return None
    size = len(order) // group
    blocks = [{channel // size for channel in order[g * size : (g + 1) * size]} for g in range(group)]
    if any(len(block) != 1 for block in blocks):
        raise BlockedError("the order of channels mixes the groups of a convolution")
    return tuple(block.pop() for block in blocks)


def _concat(orders: ChannelOrders, node: ir.Node) -> None:
    parts = [value for value in node.inputs if value is not None]
    if _axis(node, 0) != 1:
        orders.link([*parts, node.outputs[0]])
    else:
        _blocks(orders, node.outputs[0], parts)


def _split(orders: ChannelOrders, node: ir.Node) -> None:
    whole = node.inputs[0]
    if whole is None or _axis(node, 0) != 1:
        orders.link([value for value in (whole, *node.outputs) if value is not None])
    else:
        _blocks(orders, whole, list(node.outputs))


def _axis(node: ir.Node, default: int) -> int:
    axis = attribute_int(node, "axis", default)
    shape = node.outputs[0].shape
    if axis < 0 and shape is None:
        raise BlockedError(f"the rank of a {node.op_type} is not known")
    return axis + len(shape) if axis < 0 and shape is not None else axis


def _blocks(orders: ChannelOrders, whole: ir.Value, parts: Sequence[ir.Value]) -> None:
    """`whole` is the parts one after the other along the channels."""
    sizes = [channels(part) for part in parts]
    if None in sizes:
        raise BlockedError("the number of channels is not known")
    ends = list(accumulate(size or 0 for size in sizes))
    starts = [0, *ends[:-1]]
    order = orders.order(whole)
    for part, start, end in zip(parts, starts, ends, strict=True):
        if order is None:
            orders.require(part, orders.order(part) or tuple(range(end - start)))
        else:
            orders.require(part, _part(order, start, end))
    joined = ((start + i for i in orders.order(part) or ()) for part, start in zip(parts, starts, strict=True))
    orders.require(whole, tuple(chain.from_iterable(joined)))


def _part(order: Order, start: int, end: int) -> Order:
    block = order[start:end]
    if sorted(block) != list(range(start, end)):
        raise BlockedError("the order of channels crosses the parts of a Concat or Split")
    return tuple(i - start for i in block)


def _reduce(orders: ChannelOrders, node: ir.Node) -> None:
    """Over the channels themselves the order does not matter."""
    axes = _axes(orders, node, 1)
    if axes is None or 0 in axes:
        raise BlockedError(f"{node.op_type} reduces over unknown axes or the batch")
    if 1 not in axes:
        _passes_on(orders, node)
    elif orders.order(node.outputs[0]) is not None:
        raise BlockedError(f"{node.op_type} reduces the channels")


def _axes(orders: ChannelOrders, node: ir.Node, index: int) -> list[int] | None:
    """Axes an operator names in an attribute or a constant input, counted from the front."""
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    found = node.attributes.get("axes")
    axes = list(found.as_ints()) if found is not None else None
    if axes is None and len(node.inputs) > index:
        axes = orders.integers(node.inputs[index])
    if axes is None or shape is None:
        return None
    return [axis % len(shape) for axis in axes]


def _pad(orders: ChannelOrders, node: ir.Node) -> None:
    pads = orders.integers(node.inputs[1]) if len(node.inputs) > 1 else None
    if pads is None or len(node.inputs) > 3 or any(pads[i] for i in (0, 1, len(pads) // 2, len(pads) // 2 + 1)):
        raise BlockedError("Pad adds channels, or an unknown number of them")
    _passes_on(orders, node)


def _slice(orders: ChannelOrders, node: ir.Node) -> None:
    axes = _axes(orders, node, 3)
    if axes is None or 1 in axes:
        raise BlockedError("Slice takes some of the channels")
    _passes_on(orders, node)


def _reshape(orders: ChannelOrders, node: ir.Node) -> None:
    """Batch and channels stay, and so the places of a channel stay together."""
    source, out = node.inputs[0], node.outputs[0]
    if source is None or not same_dims(source, out, range(2)):
        raise BlockedError("Reshape mixes the channels with places")
    _passes_on(orders, node)


def _matrix(orders: ChannelOrders, node: ir.Node) -> None:
    """Products of maps (N, C, ., .) with constant matrices, as of pooling: one per channel."""
    maps = [value for value in node.inputs if value is not None and not orders.is_constant(value)]
    if any(value.shape is None or len(value.shape) < 4 for value in maps):
        raise BlockedError("MatMul may mix the channels")
    if any(value is not None and len(value.shape or ()) > 2 for value in node.inputs if value not in maps):
        raise BlockedError("MatMul has a matrix per channel")
    orders.link([*maps, node.outputs[0]])


_ELEMENTWISE = [
    "Abs",
    "Add",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Div",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "Max",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "Pow",
    "PRelu",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Tanh",
    "ThresholdedRelu",
]
_ALIKE = [
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "LogSoftmax",
    "LpPool",
    "MaxPool",
    "Resize",
    "Softmax",
    "GlobalLpPool",
    "Hardmax",
]
_REDUCTIONS = [
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]

_RULES: Mapping[str, Callable[[ChannelOrders, ir.Node], None]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_ALIKE, _passes_on),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "BatchNormalization": _per_channel,
    "Concat": _concat,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "InstanceNormalization": _per_channel,
    "MatMul": _matrix,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
}


# --- writers: the constants of a node in its values' orders ---


def _write_elementwise(orders: ChannelOrders, node: ir.Node) -> None:
    out = node.outputs[0]
    order = orders.order(out)
    if node.op_type not in _ELEMENTWISE or order is None or out.shape is None:
        return
    for index, value in enumerate(node.inputs):
        if value is None or value.shape is None or not orders.is_constant(value):
            continue
        axis = len(value.shape) - len(out.shape) + 1
        if axis >= 0 and value.shape[axis] == len(order):
            orders.rewrite(node, index, partial(np.take, indices=order, axis=axis))


def _write_per_channel(orders: ChannelOrders, node: ir.Node) -> None:
    order = orders.order(node.outputs[0])
    if order is not None:
        for index in range(1, len(node.inputs)):
            orders.rewrite(node, index, lambda array: np.take(array, order, axis=0))


def _write_convolution(orders: ChannelOrders, node: ir.Node) -> None:
    source, out = node.inputs[0], node.outputs[0]
    cin, cout = channels(source), channels(out)
    if source is None or cin is None or cout is None:
        return
    group = attribute_int(node, "group", 1)
    inner, outer = orders.positions(source, cin), orders.positions(out, cout)
    rows, columns = (outer, inner) if node.op_type == "Conv" else (inner, outer)
    within = columns.reshape(group, -1) % (len(columns) // group)
    picks = within[np.arange(len(rows)) // (len(rows) // group)]
    orders.rewrite(node, 1, lambda array: array[rows[:, None], picks])
    orders.rewrite(node, 2, lambda array: array[outer])


_WRITERS: Mapping[str, Callable[[ChannelOrders, ir.Node], None]] = {
    "BatchNormalization": _write_per_channel,
    "Conv": _write_convolution,
    "ConvTranspose": _write_convolution,
    "InstanceNormalization": _write_per_channel,
}
