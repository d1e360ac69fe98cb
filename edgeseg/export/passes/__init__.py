"""Rewrites of the ONNX graph, one file per idea, each of which proves itself (`edgeseg.export.passes._base`)."""

from __future__ import annotations

from collections.abc import Collection

from edgeseg.errors import UnknownNameError
from edgeseg.export.passes._base import Pass, PassReport, PassResult, run_passes
from edgeseg.export.passes.activations import OrderGelu
from edgeseg.export.passes.attention import ProjectValues
from edgeseg.export.passes.border import ConvolveSpread
from edgeseg.export.passes.branches import SumBranches
from edgeseg.export.passes.cleanup import MergeDuplicates, RemoveUnused, StripNotes
from edgeseg.export.passes.compose import ComposeConvs, ShrinkFirst
from edgeseg.export.passes.labels import AppendLabels
from edgeseg.export.passes.leftovers import DropRepeatedRelu
from edgeseg.export.passes.norms import SplitNorms
from edgeseg.export.passes.prelu import SpreadPRelu
from edgeseg.export.passes.push import PushLinear
from edgeseg.export.passes.pyramids import NestPools
from edgeseg.export.passes.resize import SimplifyResizes
from edgeseg.export.passes.shuffles import AbsorbShuffles
from edgeseg.export.passes.tiny import FlushTiny

__all__ = [
    "ROUNDS",
    "AbsorbShuffles",
    "AppendLabels",
    "ComposeConvs",
    "ConvolveSpread",
    "DropRepeatedRelu",
    "FlushTiny",
    "MergeDuplicates",
    "NestPools",
    "OrderGelu",
    "Pass",
    "PassReport",
    "PassResult",
    "ProjectValues",
    "PushLinear",
    "RemoveUnused",
    "ShrinkFirst",
    "SimplifyResizes",
    "SplitNorms",
    "SpreadPRelu",
    "StripNotes",
    "SumBranches",
    "default_passes",
    "ort_passes",
    "pass_names",
    "run_passes",
]


ROUNDS = 3
"""How often an export goes through the passes at most: one pass makes room for another."""


def default_passes(*, rewrites: bool = True, skip: Collection[str] = ()) -> tuple[Pass, ...]:
    """The passes an export runs, in order.

    Args:
        rewrites: Also those that change what is computed; without them only the exporter's leftovers go.
        skip: Names of passes to leave out.

    Raises:
        UnknownNameError: `skip` names none of them.
    """
    known = pass_names()
    for name in skip:
        if name not in known:
            raise UnknownNameError("pass", name, known, hint=f"known are {', '.join(known)}.")
    chosen = [*_TIDY, *(_REWRITES if rewrites else ()), *_LAST]
    return tuple(kind() for kind in chosen if kind.__name__ not in skip)


def ort_passes(*, rewrites: bool = True, skip: Collection[str] = ()) -> tuple[Pass, ...]:
    """The passes for the graph that ONNX Runtime runs on the CPU alone, after `default_passes`."""
    return tuple(kind() for kind in _ORT if rewrites and kind.__name__ not in skip)


def pass_names() -> tuple[str, ...]:
    """Names of all passes of an export, in order."""
    return tuple(dict.fromkeys(kind.__name__ for kind in (*_TIDY, *_REWRITES, *_LAST, *_ORT)))


_TIDY: tuple[type[Pass], ...] = (RemoveUnused, MergeDuplicates)
_REWRITES: tuple[type[Pass], ...] = (
    OrderGelu,
    DropRepeatedRelu,
    AbsorbShuffles,
    SumBranches,
    NestPools,
    SimplifyResizes,
    PushLinear,
    ShrinkFirst,
    ComposeConvs,
    ConvolveSpread,
    ProjectValues,
    FlushTiny,
)
_LAST: tuple[type[Pass], ...] = (StripNotes,)
_ORT: tuple[type[Pass], ...] = (SpreadPRelu, SplitNorms, FlushTiny)
