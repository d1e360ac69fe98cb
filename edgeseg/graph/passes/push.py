"""Move per-pixel linear maps towards the input, through resizes, averages, concats and sums, into what they can join.

Identities, for y = W x + b at every pixel (`edgeseg.graph.affine`):
    W resize(x) + b       = resize(W x + b)                weights of the resize sum to one; the same for averages
    W concat(x1, x2) + b  = W1 x1 + b + W2 x2              columns of W by part; a diagonal W gives a concat again
    W (x1 + x2) + b       = W x1 + b + W x2
    W (K * x + c) + b     = (W K) * x + (W c + b)          into the convolution before, whatever its padding
    W expand(x) + b       = expand(W x + b)                a broadcast of a single pixel
A sum collects: what is resized by one rule is added before that resize, a broadcast pixel is added where the map is
smallest, and parts that stay as they are keep one convolution over a smaller concat.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgeseg.graph.affine import Affine, affine_of, conv_parts
from edgeseg.graph.averages import is_mean
from edgeseg.graph.cost import node_cost, numel
from edgeseg.graph.editor import GraphEditor, attribute_int
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.passes._push_build import Builder
from edgeseg.graph.passes._push_terms import (
    Averaged,
    Broadcast,
    Convolved,
    Direct,
    Joined,
    Resized,
    Shape,
    Sum,
    Term,
)
from edgeseg.graph.passes.resize import resize_rule
from edgeseg.graph.profile import active_profile

__all__ = ["PushLinear"]

_DEPTH = 12
"""Nodes a map is moved through at most."""

_TIE = 1e-9
"""Seconds that two places of a map are as good as equal by: a move must not hang on how a sum rounds."""

_KEEPS_LAYOUT = ("AveragePool", "Concat", "MaxPool", "Resize")
"""Operators that engines run in the layout their input comes in."""

_FLOAT_BYTES = 4


class PushLinear(GraphPass):
    """Move 1x1 convolutions and per-channel scales and shifts to where they cost least.

    The module's text has the identities.

    Requires fixed shapes and constant weights, in maps of rank 4. Declines per map, where no place found is cheaper by
    `edgeseg.graph.cost`; what is read by others too stays and is counted as still being computed. Declines too
    where a sum of uneven resizes would take a convolution's place and save less than the layout behind it is worth
    (`_layout_penalty`).
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
    if len(best.terms) == 1 and isinstance(best.terms[0], Direct) and best.terms[0].value is source:
        if _blocks(editor, source):
            editor.decline(f"{root.op_type} {root.name}: moving it before {source.producer().op_type} costs more")  # type: ignore[union-attr]
        return
    draft = editor.draft(_stem(root))
    result = Builder(editor, draft, norm=search.norm).total(best)
    if draft.pays([out], penalty=_layout_penalty(editor, root, best)):
        draft.commit({out: result}, before=root)
        return
    if draft.pays([out]):
        editor.decline(f"Conv {root.name}: a sum in its place saves less than the layout behind it is worth")
    draft.discard()


def _layout_penalty(editor: GraphEditor, root: ir.Node, total: Sum) -> float:
    """Estimate the seconds that what follows a convolution loses once a sum of uneven resizes takes its place.

    Engines keep what follows a convolution in their blocked layout. Sums of maps of one size and resizes by whole
    factors keep it too; a resize by another factor is plain, and so is what reads it until the next convolution. In
    SFNet-R18 on ONNX Runtime, whose pooling pyramid (factors 8/3 and 8/6) is read by a resize and a concat of four
    maps, that loses many times what the sum saves.
    """
    uneven = any(isinstance(term, Resized) and not term.rule.whole for term in total.terms)
    if root.op_type != "Conv" or len(total.terms) == 1 or not uneven:
        return 0.0
    readers = editor.consumers(root.outputs[0])
    readers += [after for node in readers if node.op_type == "Relu" for after in editor.consumers(node.outputs[0])]
    plain = [reader.outputs[0] for reader in readers if reader.op_type in _KEEPS_LAYOUT]
    return sum(2 * _FLOAT_BYTES * numel(value) for value in plain) / active_profile().bandwidth


def _stem(node: ir.Node) -> str:
    name = node.outputs[0].name or node.op_type.lower()
    return name if name.endswith("_moved") else f"{name}_moved"


def _blocks(editor: GraphEditor, source: ir.Value) -> bool:
    return editor.producer(source, "Concat", "Resize", "Conv") is not None


class _Search:
    """Finds where a map costs least."""

    def __init__(self, editor: GraphEditor, *, norm: bool) -> None:
        self._editor, self.norm = editor, norm

    def best(self, affine: Affine, value: ir.Value, shape: Shape, *, exclusive: bool, depth: int) -> Sum:
        """Find the cheaper of applying the map here and moving it on.

        Args:
            affine: The map.
            value: What it is applied to.
            shape: Of the result.
            exclusive: Whether nobody else reads the value.
            depth: Nodes it may still move through.
        """
        here = Sum((Direct(affine, value, shape),), shape)
        made = self._editor.producer(value)
        if made is None or depth == 0:
            return here
        moved = self._through(made, affine, value, shape, exclusive, depth)
        if moved is None:
            return here
        return moved if self.seconds(moved) + _TIE < self.seconds(here) else here

    def seconds(self, total: Sum) -> float:
        """Estimate what would be built, less what falls away."""
        draft = self._editor.draft("trial")
        Builder(self._editor, draft, norm=self.norm).total(total)
        seconds = draft.cost.seconds
        draft.discard()
        return seconds - total.saved

    def _through(
        self, made: ir.Node, affine: Affine, value: ir.Value, shape: Shape, exclusive: bool, depth: int
    ) -> Sum | None:
        inner = affine_of(self._editor, made)
        if inner is not None:
            moved: Sum | None = self._onward(affine.after(inner[0]), inner[1], shape, exclusive, depth)
        else:
            rule = _RULES.get(made.op_type)
            moved = None if rule is None else rule(self, made, affine, shape, exclusive, depth)
        if moved is None:
            return None
        saved = node_cost(made).seconds if exclusive else 0.0
        return Sum(moved.terms, moved.shape, moved.saved + saved)

    def _onward(self, affine: Affine, value: ir.Value, shape: Shape, exclusive: bool, depth: int) -> Sum:
        alone = exclusive and self._editor.uses(value) == 1
        return self.best(affine, value, shape, exclusive=alone, depth=depth - 1)

    def conv(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> Sum | None:
        """Move into a convolution: rows of its weights are mixed, or scaled where the map is diagonal."""
        parts = conv_parts(self._editor, made)
        if parts is None or (parts.group > 1 and not affine.diagonal):
            return None
        if made.op_type == "ConvTranspose" and parts.group > 1:
            return None
        return Sum((Convolved(made, affine),), shape)

    def resize(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> Sum | None:
        """Move before a resize."""
        rule, source = resize_rule(self._editor, made), made.inputs[0]
        if rule is None or source is None:
            return None
        inner = self._onward(affine, source, (*shape[:2], *rule.source), exclusive, depth)
        term = Broadcast(inner) if rule.broadcasts else Resized(rule, inner)
        return Sum((term,), shape, inner.saved)

    def expand(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> Sum | None:
        """Move before a broadcast of single pixels."""
        source, before = made.inputs[0], self._editor.shape(made.inputs[0])
        after = self._editor.shape(made.outputs[0])
        if source is None or before is None or after is None or len(before) != 4 or before[2:] != (1, 1):
            return None
        if before[:2] != after[:2]:
            return None
        inner = self._onward(affine, source, (*shape[:2], 1, 1), exclusive, depth)
        return Sum((Broadcast(inner),), shape, inner.saved)

    def average(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> Sum | None:
        """Move before an average, whose weights sum to one unless zeros of a padding are counted."""
        source, before = made.inputs[0], self._editor.shape(made.inputs[0])
        if source is None or before is None or not is_mean(self._editor, made):
            return None
        inner = self._onward(affine, source, (before[0], shape[1], *before[2:]), exclusive, depth)
        return Sum((Averaged(made, inner),), shape, inner.saved)

    def concat(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> Sum | None:
        """Move to the parts of a concat over channels."""
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
            return Sum((Joined(tuple(sums)),), shape, saved)
        return Sum(tuple(term for part in sums for term in part.terms), shape, saved)

    def add(self, made: ir.Node, affine: Affine, shape: Shape, exclusive: bool, depth: int) -> Sum | None:
        """Move to the addends of a sum of two maps of one size, or of a map and a broadcast pixel."""
        whole = self._editor.shape(made.outputs[0])
        terms: list[Term] = []
        saved = 0.0
        for index, value in enumerate(made.inputs):
            size = self._editor.shape(value)
            piece = affine if index == 0 else affine.without_bias()
            if value is None or size is None or whole is None or not _adds(size, whole):
                return None
            part = self._onward(piece, value, (*shape[:2], *size[2:]), exclusive, depth)
            terms += part.terms if size == whole else (Broadcast(part),)
            saved += part.saved
        return Sum(tuple(terms), shape, saved)


_Rule = Callable[[_Search, ir.Node, Affine, Shape, bool, int], "Sum | None"]

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
