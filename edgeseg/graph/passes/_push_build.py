"""Draft the nodes that compute a moved map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from edgeseg.graph.affine import Affine, conv_parts, draft_affine, draft_conv
from edgeseg.graph.cost import cost_of
from edgeseg.graph.editor import Draft, GraphEditor
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
    merged,
    with_lowered_pixels,
)
from edgeseg.graph.passes.resize import draft_resize

__all__ = ["Builder"]


class Builder:
    """Drafts the nodes of a sum."""

    def __init__(self, editor: GraphEditor, draft: Draft, *, norm: bool) -> None:
        self._editor, self._draft, self._norm = editor, draft, norm

    def total(self, total: Sum) -> ir.Value:
        """Draft a sum, in its full shape."""
        terms = with_lowered_pixels(merged(total.terms))
        broadcasts = [term for term in terms if isinstance(term, Broadcast)]
        direct = [term for term in terms if isinstance(term, Direct)]
        wholes = [self._term(term, total.shape) for term in terms if not isinstance(term, (Broadcast, Direct))]
        wholes += self._direct(direct)
        pixels = [self.total(Sum(broadcast.inner.terms, (*total.shape[:2], 1, 1))) for broadcast in broadcasts]
        if not wholes:
            target = self._draft.constant(np.array(total.shape, np.int64), "shape")
            return self._draft.op("Expand", [self._added(pixels, (*total.shape[:2], 1, 1)), target], total.shape)
        return self._added([*wholes[:1], *pixels, *wholes[1:]], total.shape)

    def _added(self, values: Sequence[ir.Value], shape: Shape) -> ir.Value:
        result = values[0]
        for value in values[1:]:
            result = self._draft.op("Add", [value, result], shape)
        return result

    def _direct(self, terms: Sequence[Direct]) -> list[ir.Value]:
        """Draft one convolution over the concat of what is convolved, or one each where that is cheaper."""
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

    def _trial(self, build: Callable[[Sequence[Direct]], list[ir.Value]], terms: Sequence[Direct]) -> float:
        start = len(self._draft.nodes)
        self._added(build(terms), terms[0].shape)
        seconds = cost_of(self._draft.nodes[start:]).seconds
        self._draft.discard_from(start)
        return seconds

    def _apart(self, terms: Sequence[Direct]) -> list[ir.Value]:
        return [draft_affine(self._draft, term.affine, term.value, _input_shape(term)) for term in terms]

    def _convolved(self, terms: Sequence[Direct]) -> list[ir.Value]:
        weight = np.concatenate([term.affine.weight for term in terms], axis=1)
        bias = np.sum([term.affine.bias for term in terms], axis=0)
        first = _input_shape(terms[0])
        shape = (first[0], weight.shape[1], *first[2:])
        joined = self._draft.op("Concat", [term.value for term in terms], shape, axis=1)
        return [draft_affine(self._draft, Affine(weight, bias), joined, shape)]

    def _term(self, term: Term, shape: Shape) -> ir.Value:
        if isinstance(term, Resized):
            inner = self.total(Sum(term.inner.terms, (*shape[:2], *term.rule.source)))
            return draft_resize(self._draft, term.rule, inner, (shape[0], shape[1]))
        if isinstance(term, Averaged):
            return self._averaged(term, shape)
        if isinstance(term, Joined):
            return self._draft.op("Concat", [self.total(part) for part in term.parts], shape, axis=1)
        if isinstance(term, Convolved):
            return self._conv(term, shape)
        raise TypeError(f"unexpected term {type(term).__name__}")

    def _averaged(self, term: Averaged, shape: Shape) -> ir.Value:
        inner = self.total(term.inner)
        others = list(term.node.inputs[1:])
        return self._draft.op(term.node.op_type, [inner, *others], shape, copied=term.node.attributes)

    def _conv(self, term: Convolved, shape: Shape) -> ir.Value:
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


def _input_shape(term: Direct) -> Shape:
    inputs = term.affine.weight.shape[-1]
    return (term.shape[0], inputs, *term.shape[2:])
