"""Channel shuffles and flips absorbed into the weights of neighbouring convolutions.

A shuffle y = x[:, s] (ShuffleNet, Zhang et al., CVPR 2018, arXiv 1707.01083: Reshape, Transpose, Reshape) only says
where channels lie. A convolution of y with weights W is sum_i W[:, i] y[:, i] = sum_i W[:, i] x[:, s[i]], which is the
convolution of x with weights W[:, s^-1]; one that makes x can make it in the order s at once. Depthwise convolutions,
activations, normalisations, pooling and resizing treat channels by themselves and pass an order on with their
constants permuted; `edgeseg.graph.channel_relations` has the rules. So a shuffle vanishes, with it two copies of
a map, wherever every way out of it (or every way into it) ends in a convolution before something that needs the
channels where they were. The flip from RGB to BGR in front of a network is the same, on a map of the image's size.

Exact: no number is computed anew. It always pays, since nothing is added. Free height and width are allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from edgeseg.graph.channel_order import ChannelOrders, Move
from edgeseg.graph.channel_relations import BlockedError, Order, channels, same_dims
from edgeseg.graph.editor import GraphEditor, attribute_int, attribute_ints
from edgeseg.graph.passes._base import GraphPass

__all__ = ["AbsorbShuffles", "channel_moves"]


class AbsorbShuffles(GraphPass):
    """Let nodes that only reorder channels vanish.

    Declines, with what is in the way: grouped convolutions whose groups would mix (ShuffleNet V1), splits whose halves
    would mix (ShuffleNet V2, LEDNet), reshapes to tokens, outputs of the graph.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node in editor.nodes():
            move = _move_ending_in(editor, node) if editor.holds(node) else None
            if move is not None:
                reason = _absorb(editor, move)
                if reason:
                    editor.decline(f"a reordering of {len(move.order)} channels stays: {reason}")


def channel_moves(editor: GraphEditor) -> list[Move]:
    """List every run of nodes in the graph that only reorders channels."""
    found = (_move_ending_in(editor, node) for node in editor.nodes())
    return [move for move in found if move is not None]


def _absorb(editor: GraphEditor, move: Move) -> str:
    """Absorb the move behind it or before it; return why neither can be."""
    moves = channel_moves(editor)
    identity = tuple(range(len(move.order)))
    inverse = tuple(int(i) for i in np.argsort(move.order))
    reason = ""
    for stored, made in ((identity, inverse), (move.order, identity)):
        orders = ChannelOrders(editor, moves)
        try:
            orders.require(move.source, stored)
            orders.require(move.result, made)
            orders.settle()
        except BlockedError as blocked:
            reason = reason or str(blocked)
            continue
        orders.commit()
        return ""
    return reason


def _move_ending_in(editor: GraphEditor, node: ir.Node) -> Move | None:
    if node.op_type == "Reshape":
        return _shuffle(editor, node)
    if node.op_type == "Gather":
        return _gather(editor, node)
    if node.op_type == "Concat":
        return _split_and_concat(editor, node)
    return None


def _shuffle(editor: GraphEditor, last: ir.Node) -> Move | None:
    """Match Reshape (N, C, H, W) to (N, a, b, H, W), Transpose of a and b, Reshape back; any number of factors of C."""
    middle = editor.producer(last.inputs[0], "Transpose")
    first = editor.producer(middle.inputs[0], "Reshape") if middle is not None else None
    if middle is None or first is None or first.inputs[0] is None:
        return None
    if editor.uses(middle.outputs[0]) != 1 or editor.uses(first.outputs[0]) != 1:
        return None
    source, result = first.inputs[0], last.outputs[0]
    factors = _factors(source, first.outputs[0], result)
    if factors is None:
        return None
    perm = attribute_ints(middle, "perm", ())
    order = _order_of(factors, perm)
    return None if order is None else Move(source, result, order, (first, middle, last))


def _factors(source: ir.Value, split: ir.Value, result: ir.Value) -> tuple[int, ...] | None:
    """Find the lengths into which the channels are split, where batch and places stay what they are."""
    if source.shape is None or split.shape is None or result.shape is None or len(source.shape) != len(result.shape):
        return None
    places, count = len(source.shape) - 2, channels(source)
    kept = [0, *(-1 - place for place in range(places))]
    if len(split.shape) < len(source.shape) or not same_dims(source, result, range(len(source.shape))):
        return None
    if count is None or not same_dims(source, split, kept):
        return None
    inner = split.shape[1 : len(split.shape) - places]
    lengths = tuple(length for length in inner if isinstance(length, int))
    return lengths if len(lengths) == len(inner) > 1 and prod(lengths) == count else None


def _order_of(factors: tuple[int, ...], perm: Sequence[int]) -> Order | None:
    end = len(factors) + 1
    if perm[:1] != (0,) or list(perm[end:]) != list(range(end, len(perm))):
        return None
    places = np.arange(prod(factors)).reshape(factors).transpose([axis - 1 for axis in perm[1:end]])
    return tuple(int(i) for i in places.ravel())


def _gather(editor: GraphEditor, node: ir.Node) -> Move | None:
    picks = editor.constant(node.inputs[1])
    source, count = node.inputs[0], channels(node.inputs[0])
    if source is None or picks is None or picks.ndim != 1 or attribute_int(node, "axis", 0) != 1 or count is None:
        return None
    order = tuple(int(i) % count for i in picks)
    return Move(source, node.outputs[0], order, (node,)) if sorted(order) == list(range(count)) else None


def _split_and_concat(editor: GraphEditor, last: ir.Node) -> Move | None:
    """Match a Split along the channels whose parts are put together again in another order."""
    first = editor.producer(last.inputs[0], "Split")
    if first is None or first.inputs[0] is None or {id(v) for v in last.inputs} != {id(v) for v in first.outputs}:
        return None
    axes = [attribute_int(node, "axis", 0) for node in (first, last)]
    if axes != [1, 1] or any(editor.uses(part) != 1 for part in first.outputs):
        return None
    sizes = [channels(part) for part in first.outputs]
    if None in sizes:
        return None
    ends = np.cumsum([size or 0 for size in sizes])
    blocks = zip(first.outputs, sizes, ends, strict=True)
    ranges = {id(part): range(int(end) - (size or 0), int(end)) for part, size, end in blocks}
    order = tuple(i for part in last.inputs for i in ranges[id(part)])
    return Move(first.inputs[0], last.outputs[0], order, (first, last))
