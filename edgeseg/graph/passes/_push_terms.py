"""The terms in which `PushLinear` writes a moved map: what is added, and where it is resized, averaged or joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgeseg.graph.affine import Affine
from edgeseg.graph.passes.resize import ResizeRule

__all__ = [
    "Averaged",
    "Broadcast",
    "Convolved",
    "Direct",
    "Joined",
    "Resized",
    "Shape",
    "Sum",
    "Term",
    "merged",
    "with_lowered_pixels",
]

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Direct:
    """The map of a value, as it is."""

    affine: Affine
    value: ir.Value
    shape: Shape


@dataclass(frozen=True, eq=False)
class Convolved:
    """A convolution that took the map in."""

    node: ir.Node
    affine: Affine


@dataclass(frozen=True, eq=False)
class Resized:
    """A sum, resized."""

    rule: ResizeRule
    inner: Sum


@dataclass(frozen=True, eq=False)
class Broadcast:
    """A sum of single pixels, broadcast."""

    inner: Sum


@dataclass(frozen=True, eq=False)
class Averaged:
    """A sum, averaged by a node like the one given."""

    node: ir.Node
    inner: Sum


@dataclass(frozen=True, eq=False)
class Joined:
    """Sums side by side."""

    parts: tuple[Sum, ...]


Term = Direct | Convolved | Resized | Broadcast | Averaged | Joined


@dataclass(frozen=True, eq=False)
class Sum:
    """A sum of terms of one shape, and the seconds that replacing saves in nodes that fall away on the way to them."""

    terms: tuple[Term, ...]
    shape: Shape
    saved: float = 0.0


def merged(terms: Sequence[Term]) -> list[Term]:
    """Merge terms of one rule, of one value, or broadcast, into one each, in the order they first came."""
    merged: dict[object, Term] = {}
    for term in terms:
        key = _key(term)
        merged[key] = term if key not in merged else _plus(merged[key], term)
    return list(merged.values())


def _key(term: Term) -> object:
    if isinstance(term, Resized):
        return term.rule
    if isinstance(term, Broadcast):
        return "broadcast"
    return ("direct", id(term.value)) if isinstance(term, Direct) else id(term)


def _plus(first: Term, second: Term) -> Term:
    if isinstance(first, Resized) and isinstance(second, Resized):
        return Resized(first.rule, Sum(first.inner.terms + second.inner.terms, first.inner.shape))
    if isinstance(first, Broadcast) and isinstance(second, Broadcast):
        return Broadcast(Sum(first.inner.terms + second.inner.terms, first.inner.shape))
    if isinstance(first, Direct) and isinstance(second, Direct):
        return Direct(first.affine.plus(second.affine), first.value, first.shape)
    raise TypeError("only terms of one kind can be added")


def with_lowered_pixels(terms: list[Term]) -> list[Term]:
    """Add broadcast pixels inside the smallest resized term, where there is one: it has fewer pixels."""
    pixels = next((term for term in terms if isinstance(term, Broadcast)), None)
    resized = [term for term in terms if isinstance(term, Resized) and term.rule.enlarges]
    if pixels is None or not resized:
        return terms
    least = min(resized, key=lambda term: term.rule.source[0] * term.rule.source[1])
    inner = Sum((*least.inner.terms, pixels), least.inner.shape)
    return [Resized(least.rule, inner) if term is least else term for term in terms if term is not pixels]
