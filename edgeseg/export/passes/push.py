"""Move per-pixel linear maps towards the input, through resizes, averages, concats and sums, into what they can join.

Identities, for y = W x + b at every pixel (`edgeseg.export.graph.affine`):
    W resize(x) + b       = resize(W x + b)                weights of the resize sum to one; the same for averages
    W concat(x1, x2) + b  = W1 x1 + b + W2 x2              columns of W by part; a diagonal W gives a concat again
    W (x1 + x2) + b       = W x1 + b + W x2
    W (K * x + c) + b     = (W K) * x + (W c + b)          into the convolution before, whatever its padding
    W expand(x) + b       = expand(W x + b)                a broadcast of a single pixel
A sum collects: what is resized by one rule is added before that resize, a broadcast pixel is added where the map is
smallest, and parts that stay as they are keep one convolution over a smaller concat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgeseg.export.graph.affine import Affine, affine_of, conv_parts, draft_affine, draft_conv
from edgeseg.export.graph.cost import BANDWIDTH, cost_of, node_cost, numel
from edgeseg.export.graph.editor import Draft, GraphEditor, attribute_int, attribute_ints
from edgeseg.export.passes._base import GraphPass
from edgeseg.export.passes.resize import ResizeRule, draft_resize, resize_rule

__all__ = ["PushLinear"]

_DEPTH = 12
"""Nodes a map is moved through at most."""

_TIE = 1e-9
"""Seconds that two places of a map are as good as equal by: a move must not hang on how a sum rounds."""

_KEEPS_LAYOUT = ("AveragePool", "Concat", "MaxPool", "Resize")
"""Operators that engines run in the layout their input comes in."""

_FLOAT_BYTES = 4

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Direct:
    """The map of a value, as it is."""

    affine: Affine
    value: ir.Value
    shape: Shape


@dataclass(frozen=True, eq=False)
class _Conv:
    """A convolution that took the map in."""

    node: ir.Node
    affine: Affine


@dataclass(frozen=True, eq=False)
class _Resized:
    """A sum, resized."""

    rule: ResizeRule
    inner: _Sum


@dataclass(frozen=True, eq=False)
class _Spread:
    """A sum of single pixels, broadcast."""

    inner: _Sum


@dataclass(frozen=True, eq=False)
class _Averaged:
    """A sum, averaged by a node like the one given."""

    node: ir.Node
    inner: _Sum


@dataclass(frozen=True, eq=False)
class _Joined:
    """Sums side by side."""

    parts: tuple[_Sum, ...]


_Term = _Direct | _Conv | _Resized | _Spread | _Averaged | _Joined


@dataclass(frozen=True, eq=False)
class _Sum:
    """A sum of terms of one shape, and the seconds that replacing saves in nodes that fall away on the way to them."""

    terms: tuple[_Term, ...]
    shape: Shape
    saved: float = 0.0
    notes: tuple[str, ...] = field(default=())


class PushLinear(GraphPass):
    """Move 1x1 convolutions and per-channel scales and shifts to where they cost least.

    The module's text has the identities.

    Requires fixed shapes and constant weights, in maps of rank 4. Declines per map, where no place found is cheaper by
    `edgeseg.export.graph.cost`; what is read by others too stays and is counted as still being computed. Declines too
    where a sum of uneven resizes would take a convolution's place and save less than the layout behind it is worth
    (`_layout_toll`).
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for _ in range(4):
            before = editor.changes
            for node in reversed(editor.nodes()):
                if editor.holds(node):
                    _push(editor, node)
            if editor.changes == before:
                return


def _push(editor: GraphEditor, root: ir.Node) -> None:
    found = affine_of(editor, root)
    out, shape = root.outputs[0] if root.outputs else None, editor.shape(root.outputs[0] if root.outputs else None)
    if found is None or out is None or shape is None:
        return
    affine, source = found
    if editor.producer(source) is None:
        return
    search = _Search(editor, norm=root.op_type == "BatchNormalization")
    best = search.best(affine, source, shape, exclusive=editor.uses(source) == 1, depth=_DEPTH)
    if len(best.terms) == 1 and isinstance(best.terms[0], _Direct) and best.terms[0].value is source:
        if _blocks(editor, source):
            editor.decline(f"{root.op_type} {root.name}: moving it before {source.producer().op_type} costs more")  # type: ignore[union-attr]
        return
    draft = editor.draft(_stem(root))
    result = _Builder(editor, draft, norm=search.norm).total(best)
    if draft.pays([out], toll=_layout_toll(editor, root, best)):
        draft.commit({out: result}, before=root)
        return
    if draft.pays([out]):
        editor.decline(f"Conv {root.name}: a sum in its place saves less than the layout behind it is worth")
    draft.discard()


def _layout_toll(editor: GraphEditor, root: ir.Node, total: _Sum) -> float:
    """Seconds that resizes, pools and concats behind a convolution lose once a sum of uneven resizes takes its place.

    Engines keep what follows a convolution in their blocked layout. Sums of maps of one size and resizes by whole
    factors keep it too; a resize by another factor is plain, and so is what reads it until the next convolution.
    SFNet-R18 on ONNX Runtime, whose pooling pyramid (factors 8/3 and 8/6) is read by a resize and a concat of four
    maps: 3 of 126 ms for a sum that saves 0.2.
    """
    uneven = any(isinstance(term, _Resized) and not term.rule.whole for term in total.terms)
    if root.op_type != "Conv" or len(total.terms) == 1 or not uneven:
        return 0.0
    readers = editor.consumers(root.outputs[0])
    readers += [after for node in readers if node.op_type == "Relu" for after in editor.consumers(node.outputs[0])]
    plain = [reader.outputs[0] for reader in readers if reader.op_type in _KEEPS_LAYOUT]
    return sum(2 * _FLOAT_BYTES * numel(value) for value in plain) / BANDWIDTH


def _stem(node: ir.Node) -> str:
    name = node.outputs[0].name or node.op_type.lower()
    return name if name.endswith("_moved") else f"{name}_moved"


def _blocks(editor: GraphEditor, source: ir.Value) -> bool:
    return editor.producer(source, "Concat", "Resize", "Conv") is not None


class _Search:
    """Finds where a map costs least."""

    def __init__(self, editor: GraphEditor, *, norm: bool) -> None:
        self._editor, self.norm = editor, norm

    def best(self, affine: Affine, value: ir.Value, shape: Shape, *, exclusive: bool, depth: int) -> _Sum:
        """The cheaper of applying the map here and moving it on.

        Args:
            affine: The map.
            value: What it is applied to.
            shape: Of the result.
            exclusive: Whether nobody else reads the value.
            depth: Nodes it may still move through.
        """
        here = _Sum((_Direct(affine, value, shape),), shape)
        made = self._editor.producer(value)
        if made is None or depth == 0:
            return here
        moved = self._through(made, affine, value, shape, exclusive, depth)
        if moved is None:
            return here
        return moved if self.seconds(moved) + _TIE < self.seconds(here) else here

    def seconds(self, total: _Sum) -> float:
        """Cost of what would be built, less what falls away."""
        draft = self._editor.draft("trial")
        _Builder(self._editor, draft, norm=self.norm).total(total)
        seconds = draft.cost.seconds
        draft.discard()
        return seconds - total.saved

    def _through(
        self, made: ir.Node, affine: Affine, value: ir.Value, shape: Shape, exclusive: bool, depth: int
    ) -> _Sum | None:
        inner = affine_of(self._editor, made)
        if inner is not None:
            moved: _Sum | None = self._onward(affine.after(inner[0]), inner[1], shape, exclusive, depth)
        else:
            rule = _RULES.get(made.op_type)
            moved = None if rule is None else rule(self, made, affine, shape, exclusive, depth)
        if moved is None:
            return None
        saved = node_cost(made).seconds if exclusive else 0.0
        return _Sum(moved.terms, moved.shape, moved.saved + saved)

    def _onward(self, affine: Affine, value: ir.Value, shape: Shape, exclusive: bool, depth: int) -> _Sum:
        alone = exclusive and self._editor.uses(value) == 1
        return self.best(affine, value, shape, exclusive=alone, depth=depth - 1)

    def conv(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> _Sum | None:
        """Into a convolution: rows of its weights are mixed, or scaled where the map is diagonal."""
        parts = conv_parts(self._editor, made)
        if parts is None or (parts.group > 1 and not affine.diagonal):
            return None
        if made.op_type == "ConvTranspose" and parts.group > 1:
            return None
        return _Sum((_Conv(made, affine),), shape)

    def resize(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> _Sum | None:
        """Before a resize."""
        rule, source = resize_rule(self._editor, made), made.inputs[0]
        if rule is None or source is None:
            return None
        inner = self._onward(affine, source, (*shape[:2], *rule.source), exclusive, depth)
        term = _Spread(inner) if rule.broadcasts else _Resized(rule, inner)
        return _Sum((term,), shape, inner.saved)

    def expand(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> _Sum | None:
        """Before a broadcast of single pixels."""
        source, before = made.inputs[0], self._editor.shape(made.inputs[0])
        after = self._editor.shape(made.outputs[0])
        if source is None or before is None or after is None or len(before) != 4 or before[2:] != (1, 1):
            return None
        if before[:2] != after[:2]:
            return None
        inner = self._onward(affine, source, (*shape[:2], 1, 1), exclusive, depth)
        return _Sum((_Spread(inner),), shape, inner.saved)

    def average(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> _Sum | None:
        """Before an average, whose weights sum to one unless zeros of a padding are counted."""
        source, before = made.inputs[0], self._editor.shape(made.inputs[0])
        if source is None or before is None or not is_mean(self._editor, made):
            return None
        inner = self._onward(affine, source, (before[0], shape[1], *before[2:]), exclusive, depth)
        return _Sum((_Averaged(made, inner),), shape, inner.saved)

    def concat(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> _Sum | None:
        """To the parts of a concat over channels."""
        shapes = [self._editor.shape(value) for value in made.inputs]
        if attribute_int(made, "axis", 0) not in (1, -3) or any(part is None or len(part) != 4 for part in shapes):
            return None
        sizes = [part[1] for part in shapes if part is not None]
        pieces = list(zip(affine.split(sizes), made.inputs, sizes, strict=True))
        sums = [
            self._onward(piece, value, (shape[0], size if affine.diagonal else shape[1], *shape[2:]), exclusive, depth)
            for piece, value, size in pieces
            if value is not None
        ]
        saved = sum(part.saved for part in sums)
        if affine.diagonal:
            return _Sum((_Joined(tuple(sums)),), shape, saved)
        return _Sum(tuple(term for part in sums for term in part.terms), shape, saved)

    def add(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> _Sum | None:
        """To the addends of a sum of two maps of one size, or of a map and a broadcast pixel."""
        whole = self._editor.shape(made.outputs[0])
        terms: list[_Term] = []
        saved = 0.0
        for index, value in enumerate(made.inputs):
            size = self._editor.shape(value)
            piece = affine if index == 0 else affine.without_bias()
            if value is None or size is None or whole is None or not _adds(size, whole):
                return None
            part = self._onward(piece, value, (*shape[:2], *size[2:]), exclusive, depth)
            terms += part.terms if size == whole else (_Spread(part),)
            saved += part.saved
        return _Sum(tuple(terms), shape, saved)


_Rule = Callable[[_Search, ir.Node, Affine, Shape, bool, int], "_Sum | None"]

_RULES: dict[str, _Rule] = {
    "Conv": _Search.conv,
    "ConvTranspose": _Search.conv,
    "Resize": _Search.resize,
    "Expand": _Search.expand,
    "AveragePool": _Search.average,
    "GlobalAveragePool": _Search.average,
    "ReduceMean": _Search.average,
    "Concat": _Search.concat,
    "Add": _Search.add,
}


def _adds(part: Shape, whole: Shape) -> bool:
    return part == whole or (len(part) == 4 and part[:2] == whole[:2] and part[2:] == (1, 1))


def is_mean(editor: GraphEditor, node: ir.Node) -> bool:
    """Whether the node averages pixels by weights that sum to one, and keeps rank 4 and channels."""
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type == "AveragePool":
        counted = attribute_int(node, "count_include_pad", 0) and any(attribute_ints(node, "pads", ()))
        return not counted and not attribute_int(node, "ceil_mode", 0) and "auto_pad" not in node.attributes
    if node.op_type != "ReduceMean" or not attribute_int(node, "keepdims", 1):
        return False
    axes = editor.constant(node.inputs[1] if len(node.inputs) > 1 else None)
    given = attribute_ints(node, "axes", ()) if axes is None else tuple(int(axis) for axis in axes)
    return sorted(axis % 4 for axis in given) == [2, 3] if given else False


class _Builder:
    """Drafts the nodes of a sum."""

    def __init__(self, editor: GraphEditor, draft: Draft, *, norm: bool) -> None:
        self._editor, self._draft, self._norm = editor, draft, norm

    def total(self, total: _Sum) -> ir.Value:
        """The value of a sum, in its full shape."""
        terms = _lowered_spreads(_merged(total.terms))
        spreads = [term for term in terms if isinstance(term, _Spread)]
        direct = [term for term in terms if isinstance(term, _Direct)]
        wholes = [self._term(term, total.shape) for term in terms if not isinstance(term, (_Spread, _Direct))]
        wholes += self._direct(direct)
        pixels = [self.total(_Sum(spread.inner.terms, (*total.shape[:2], 1, 1))) for spread in spreads]
        if not wholes:
            target = self._draft.constant(np.array(total.shape, np.int64), "shape")
            return self._draft.op("Expand", [self._added(pixels, (*total.shape[:2], 1, 1)), target], total.shape)
        return self._added([*wholes[:1], *pixels, *wholes[1:]], total.shape)

    def _added(self, values: Sequence[ir.Value], shape: Shape) -> ir.Value:
        result = values[0]
        for value in values[1:]:
            result = self._draft.op("Add", [value, result], shape)
        return result

    def _direct(self, terms: Sequence[_Direct]) -> list[ir.Value]:
        """One convolution over the concat of what is convolved, or one each where that is cheaper."""
        dense = [term for term in terms if not term.affine.diagonal]
        values = [
            draft_affine(self._draft, term.affine, term.value, term.shape, norm=self._norm)
            for term in terms
            if term.affine.diagonal
        ]
        if len(dense) < 2:
            return values + self._apart(dense)
        apart, joined = self._trial(self._apart, dense), self._trial(self._convolved, dense)
        return values + (self._convolved(dense) if joined < apart else self._apart(dense))

    def _trial(self, build: Callable[[Sequence[_Direct]], list[ir.Value]], terms: Sequence[_Direct]) -> float:
        start = len(self._draft.nodes)
        self._added(build(terms), terms[0].shape)
        seconds = cost_of(self._draft.nodes[start:]).seconds
        self._draft.discard_from(start)
        return seconds

    def _apart(self, terms: Sequence[_Direct]) -> list[ir.Value]:
        return [draft_affine(self._draft, term.affine, term.value, _input_shape(term)) for term in terms]

    def _convolved(self, terms: Sequence[_Direct]) -> list[ir.Value]:
        weight = np.concatenate([term.affine.weight for term in terms], axis=1)
        bias = np.sum([term.affine.bias for term in terms], axis=0)
        first = _input_shape(terms[0])
        shape = (first[0], weight.shape[1], *first[2:])
        joined = self._draft.op("Concat", [term.value for term in terms], shape, axis=1)
        return [draft_affine(self._draft, Affine(weight, bias), joined, shape)]

    def _term(self, term: _Term, shape: Shape) -> ir.Value:
        if isinstance(term, _Resized):
            inner = self.total(_Sum(term.inner.terms, (*shape[:2], *term.rule.source)))
            return draft_resize(self._draft, term.rule, inner, (shape[0], shape[1]))
        if isinstance(term, _Averaged):
            return self._averaged(term, shape)
        if isinstance(term, _Joined):
            return self._draft.op("Concat", [self.total(part) for part in term.parts], shape, axis=1)
        if isinstance(term, _Conv):
            return self._conv(term, shape)
        raise TypeError(f"unexpected term {type(term).__name__}")

    def _averaged(self, term: _Averaged, shape: Shape) -> ir.Value:
        inner = self.total(term.inner)
        others = list(term.node.inputs[1:])
        return self._draft.op(term.node.op_type, [inner, *others], shape, copied=term.node.attributes)

    def _conv(self, term: _Conv, shape: Shape) -> ir.Value:
        parts, source = conv_parts(self._editor, term.node), term.node.inputs[0]
        if parts is None or source is None:
            raise ValueError("a convolution lost its constants while it was drafted")
        affine, weight = term.affine, parts.weight
        transposed = term.node.op_type == "ConvTranspose"
        if affine.diagonal:
            weight = weight * (affine.weight[None, :, None, None] if transposed else affine.weight[:, None, None, None])
        else:
            weight = np.tensordot(affine.weight, weight, (1, 1 if transposed else 0))
            weight = weight.swapaxes(0, 1) if transposed else weight
        scaled = affine.weight * parts.bias if affine.diagonal else affine.weight @ parts.bias
        return draft_conv(self._draft, weight, scaled + affine.bias, source, shape, parts.dtype, like=term.node)


def _input_shape(term: _Direct) -> Shape:
    inputs = term.affine.weight.shape[-1]
    return (term.shape[0], inputs, *term.shape[2:])


def _merged(terms: Sequence[_Term]) -> list[_Term]:
    """Terms of one rule, of one value, or broadcast, as one term each; in the order they first came."""
    merged: dict[object, _Term] = {}
    for term in terms:
        key = _key(term)
        merged[key] = term if key not in merged else _plus(merged[key], term)
    return list(merged.values())


def _key(term: _Term) -> object:
    if isinstance(term, _Resized):
        return term.rule
    if isinstance(term, _Spread):
        return "spread"
    return ("direct", id(term.value)) if isinstance(term, _Direct) else id(term)


def _plus(first: _Term, second: _Term) -> _Term:
    if isinstance(first, _Resized) and isinstance(second, _Resized):
        return _Resized(first.rule, _Sum(first.inner.terms + second.inner.terms, first.inner.shape))
    if isinstance(first, _Spread) and isinstance(second, _Spread):
        return _Spread(_Sum(first.inner.terms + second.inner.terms, first.inner.shape))
    if isinstance(first, _Direct) and isinstance(second, _Direct):
        return _Direct(first.affine.plus(second.affine), first.value, first.shape)
    raise TypeError("only terms of one kind can be added")


def _lowered_spreads(terms: list[_Term]) -> list[_Term]:
    """Broadcast pixels put inside the smallest resized term, where there is one: it has fewer pixels to add them to."""
    spread = next((term for term in terms if isinstance(term, _Spread)), None)
    resized = [term for term in terms if isinstance(term, _Resized) and term.rule.enlarges]
    if spread is None or not resized:
        return terms
    least = min(resized, key=lambda term: term.rule.source[0] * term.rule.source[1])
    inner = _Sum((*least.inner.terms, spread), least.inner.shape)
    return [_Resized(least.rule, inner) if term is least else term for term in terms if term is not spread]
