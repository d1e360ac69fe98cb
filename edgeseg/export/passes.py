"""Every pass of an export in one list: those for all engines, and those for the kernels of one.

Adding a general pass is a line in `_REWRITES`; adding one for an engine is a line in the tuples that its record gives
(`edgeseg.runtimes.ENGINE.passes`). From here it is listed by ``edgeseg export --passes``, run, reported, and left out
by ``--skip-pass NAME``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from edgeseg.errors import UnknownNameError
from edgeseg.graph.passes._base import Kind, Pass
from edgeseg.graph.passes.activations import OrderGelu
from edgeseg.graph.passes.attention import ProjectValues
from edgeseg.graph.passes.border import ConvolveBroadcast
from edgeseg.graph.passes.branches import SumBranches
from edgeseg.graph.passes.cleanup import MergeDuplicates, RemoveUnused, StripNotes
from edgeseg.graph.passes.compose import ComposeConvs, ShrinkFirst
from edgeseg.graph.passes.leftovers import DropRepeatedRelu
from edgeseg.graph.passes.push import PushLinear
from edgeseg.graph.passes.pyramids import NestPools
from edgeseg.graph.passes.resize import SimplifyResizes
from edgeseg.graph.passes.shuffles import AbsorbShuffles
from edgeseg.graph.passes.tiny import FlushTiny
from edgeseg.runtimes import Engine, engines

__all__ = ["ROUNDS", "PassEntry", "default_passes", "engine_passes", "list_passes", "pass_names"]

ROUNDS = 3
"""How often an export goes through the passes at most: one pass makes room for another."""


@dataclass(frozen=True)
class PassEntry:
    """A pass as it is listed.

    Attributes:
        step: The class.
        engine: Target whose graph it is for; empty where it is for all.
    """

    step: type[Pass]
    engine: str = ""

    @property
    def name(self) -> str:
        """Name in reports and flags."""
        return self.step.__name__

    @property
    def kind(self) -> Kind:
        """How it proves itself: exact or rounding."""
        return self.step.kind

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.step.__doc__ or "").strip().partition("\n")[0]


def default_passes(*, rewrites: bool = True, skip: Collection[str] = ()) -> tuple[Pass, ...]:
    """Make the passes an export runs for all engines, in order.

    Args:
        rewrites: Also those that change what is computed; without them only the exporter's leftovers go.
        skip: Names of passes to leave out.

    Raises:
        UnknownNameError: `skip` names none of all passes, those of engines included.
    """
    return _chosen([*_TIDY, *(_REWRITES if rewrites else ()), *_LAST], skip)


def engine_passes(
    record: Engine, precision: str, *, rewrites: bool = True, skip: Collection[str] = ()
) -> tuple[Pass, ...]:
    """Make the passes for the graph that one engine alone runs, after `default_passes`.

    Args:
        record: The engine; one without passes of its own has none.
        precision: Of the numbers in the graph: ``fp32``, ``fp16`` or ``int8``.
        rewrites: False for none.
        skip: Names of passes to leave out.

    Raises:
        UnknownNameError: `skip` names none of all passes.
    """
    return _chosen(_steps_of(record, precision) if rewrites else (), skip)


def list_passes() -> tuple[PassEntry, ...]:
    """List every pass once, in the order of an export; one that is for all engines counts as such."""
    entries = [PassEntry(step) for step in (*_TIDY, *_REWRITES, *_LAST)]
    for record in engines():
        entries += [PassEntry(step, record.name) for kind in _IN_GRAPHS for step in _steps_of(record, kind)]
    unique: dict[str, PassEntry] = {}
    for entry in entries:
        unique.setdefault(entry.name, entry)
    return tuple(unique.values())


def pass_names() -> tuple[str, ...]:
    """Name every pass once, in order."""
    return tuple(entry.name for entry in list_passes())


def _steps_of(record: Engine, precision: str) -> tuple[type[Pass], ...]:
    return () if record.passes is None else record.passes(precision)


def _chosen(steps: Iterable[type[Pass]], skip: Collection[str]) -> tuple[Pass, ...]:
    known = pass_names()
    for name in skip:
        if name not in known:
            raise UnknownNameError("pass", name, known, hint=f"known are {', '.join(known)}.")
    return tuple(step() for step in steps if step.__name__ not in skip)


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
    ConvolveBroadcast,
    ProjectValues,
    FlushTiny,
)
_LAST: tuple[type[Pass], ...] = (StripNotes,)
_IN_GRAPHS = ("fp32", "fp16", "int8")
"""Precisions of the numbers in a graph."""
