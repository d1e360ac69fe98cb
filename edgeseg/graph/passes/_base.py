"""The one contract for every rewrite of an ONNX graph, float or int8, general or for the kernels of one engine.

A rewrite is a subclass of `Pass`: called with a model it gives a `PassResult`, the model it made and a `PassReport`.
It never changes the model it is given, keeps the names and shapes of its inputs and outputs, and declares:

- what it requires of the graph (`requires`): where that does not hold it declines, with the reason in its report;
- its `name`, that of the class: in reports, in the list of ``edgeseg export --passes``, and for ``--skip-pass``;
- its `kind`:

  ``exact``
      computes the same numbers, but for the rounding of floats. After the pass the graph runs on the same inputs as
      before it, in ONNX Runtime on the CPU. If an output moved by more than the tolerance, the pass is undone. Some
      networks amplify the last bit by more than the tolerance, whatever is done to them: where the exporter gives the
      exact output (float64), a pass also holds when the graph stays about as near to it as the graph was before.
  ``rounding``
      changes numbers of low precision, such as those of an int8 graph, by their steps. The graph before the pass and
      the one after it are scored on held-out images (the caller's `Score`: share of labels equal to fp32's, 0 to 1),
      and the pass is undone where the score drops by more than the pass declares (`allowed_drop`). Where the caller
      gives no score, the pass is held to its outputs, in root mean square, with a tolerance that is wide
      (`edgeseg.graph.passes._proof.WIDE`): enough to undo a rewrite that computes something else, not enough to tell
      how many labels it costs. The report then says so by a score of None.

`run_passes` applies passes under this contract. A pass that raises is undone like one that does not hold: the report
says why, and the export goes on without it.
"""

from __future__ import annotations

import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import onnx
from numpy.typing import NDArray

from edgeseg.graph.cost import graph_cost
from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._proof import TOLERANCE, Evidence, Exact, Proof, Score
from edgeseg.text import first_line

__all__ = ["Exact", "GraphPass", "Kind", "Pass", "PassReport", "PassResult", "Score", "apply_passes", "run_passes"]

Kind = Literal["exact", "rounding"]
"""How a pass proves itself; see the module's text."""


@dataclass(frozen=True)
class PassReport:
    """What a pass did.

    Attributes:
        name: Of the pass.
        modified: Whether the graph changed (False after a revert).
        nodes: Number of nodes before and after.
        reason: Why it declined or was undone; empty otherwise.
        error: Largest change of an output relative to its range, None where nothing was measured.
        rounding: Largest distance of the first graph and of this one from the exact output, relative to its range; None
            where the change alone was small enough, or nothing exact was given.
        macs: Multiply-accumulates before and after; None where the pass changed nothing.
        bytes: Read and written by all nodes, before and after; None likewise.
        declined: What the pass left as it was, and why; one sentence each.
        kind: Of the pass.
        score: Share of labels equal to fp32's before and after a rounding pass; None for other passes, where nothing
            changed, and where the caller gave no score.
    """

    name: str
    modified: bool
    nodes: tuple[int, int]
    reason: str = ""
    error: float | None = None
    rounding: tuple[float, float] | None = None
    macs: tuple[int, int] | None = None
    bytes: tuple[int, int] | None = None
    declined: tuple[str, ...] = ()
    kind: Kind = "exact"
    score: tuple[float, float] | None = None


@dataclass(frozen=True)
class PassResult:
    """A pass's graph, whether it differs from the one it was given, and the report."""

    model: onnx.ModelProto
    modified: bool
    report: PassReport


class Pass(ABC):
    """One rewrite of the graph, under the contract of this module.

    Subclasses declare `kind` and implement `rewrite`; the first line of their docstring is what ``--passes`` lists.
    """

    kind: ClassVar[Kind]
    """How the pass proves itself."""

    allowed_drop: ClassVar[float] = 0.0
    """Of a rounding pass: share of the labels, 0 to 1, by which its score may drop."""

    declined: tuple[str, ...] = ()
    """What the last call left as it was, and why; `rewrite` may set it."""

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        """Refuse a pass that does not say how it proves itself."""
        super().__init_subclass__()
        if not abstract and getattr(cls, "kind", None) not in ("exact", "rounding"):
            raise TypeError(f"the pass {cls.__name__} declares no kind; set it to 'exact' or 'rounding'")

    @property
    def name(self) -> str:
        """Name in reports and flags."""
        return type(self).__name__

    def requires(self, model: onnx.ModelProto) -> str:
        """Say why this graph cannot be rewritten; empty when it can."""
        return ""

    @abstractmethod
    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        """Return the rewritten graph, or None where there is nothing to do."""

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Apply the pass without proof."""
        count = len(model.graph.node)
        self.declined = ()
        reason = self.requires(model)
        rewritten = None if reason else self.rewrite(model)
        made = model if rewritten is None else rewritten
        counts = (count, len(made.graph.node))
        report = PassReport(
            self.name, rewritten is not None, counts, reason, declined=self.declined, kind=type(self).kind
        )
        return PassResult(made, report.modified, report)


class GraphPass(Pass, abstract=True):
    """A pass that works on a `GraphEditor`. Subclasses implement `apply`."""

    @abstractmethod
    def apply(self, editor: GraphEditor) -> None:
        """Rewrite the graph through drafts and the editor's methods; count what is not a draft in `editor.changes`."""

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        editor = GraphEditor(model)
        self.apply(editor)
        self.declined = tuple(editor.declined)
        return editor.to_proto() if editor.changes else None


def apply_passes(model: onnx.ModelProto, passes: Sequence[Pass]) -> onnx.ModelProto:
    """Apply passes in order without proof, as a search does that tries many graphs.

    Args:
        model: It is not changed.
        passes: In order; those on a `GraphEditor` that follow one another and require nothing of the graph share one,
            so that shapes are inferred once.
    """
    for shared, group in itertools.groupby(passes, key=_may_share):
        if shared:
            model = _edited(model, [step for step in group if isinstance(step, GraphPass)])
        else:
            model = functools.reduce(lambda made, step: step(made).model, group, model)
    return model


def _may_share(step: Pass) -> bool:
    return isinstance(step, GraphPass) and type(step).requires is Pass.requires


def _edited(model: onnx.ModelProto, steps: Sequence[GraphPass]) -> onnx.ModelProto:
    editor = GraphEditor(model)
    for step in steps:
        step.apply(editor)
    return editor.to_proto() if editor.changes else model


def run_passes(
    model: onnx.ModelProto,
    passes: Sequence[Pass],
    feeds: Mapping[str, NDArray[Any]],
    *,
    tolerance: float = TOLERANCE,
    rounds: int = 1,
    exact: Exact | None = None,
    score: Score | None = None,
) -> tuple[onnx.ModelProto, list[PassReport]]:
    """Apply passes in order, each proven by its kind and undone where it does not hold.

    Args:
        model: The graph; it is not changed.
        passes: In order.
        feeds: Input name -> array.
        tolerance: Largest change of an output by exact passes, relative to its range.
        rounds: How often to go through the passes at most; it ends with a round in which none changed anything.
        exact: Gives the one output in float64 on `feeds`, or None; asked for only where an exact pass moves the output
            by more than the tolerance.
        score: Gives the share of a graph's labels that equal fp32's on held-out images; asked for only where a rounding
            pass changed the graph.

    Returns:
        The rewritten graph, and the reports: one per pass, then one per pass that changed something in a later round.
    """
    reports: list[PassReport] = []
    proof = Proof(model, feeds, tolerance, exact=exact, score=score)
    active = list(passes)
    for turn in range(rounds):
        done: list[PassReport] = []
        for step in active:
            model, report = _proven(model, step, proof)
            done.append(report)
        reports += [report for report in done if turn == 0 or report.modified or report.error is not None]
        active = [step for step, report in zip(active, done, strict=True) if report.modified or report.error is None]
        if not any(report.modified for report in done):
            break
    return model, reports


def _proven(model: onnx.ModelProto, step: Pass, proof: Proof) -> tuple[onnx.ModelProto, PassReport]:
    """Return the pass's graph and report, or the graph it was given where it does not hold or raises."""
    kind, count = type(step).kind, len(model.graph.node)
    try:
        result = step(model)
        if not result.modified:
            return model, result.report
        evidence = _evidence(model, result.model, step, proof)
        before, after = graph_cost(model), graph_cost(result.model)
    except Exception as error:  # a pass may meet a graph that nobody thought of; the export goes on without it
        reason = f"undone: {type(error).__name__}: {first_line(error)}"
        return model, PassReport(step.name, False, (count, count), reason, math.inf, kind=kind)
    if evidence.reason:
        undone = PassReport(step.name, False, (count, count), evidence.reason, kind=kind)
        return model, _with_figures(undone, evidence)
    report = replace(result.report, macs=(before.macs, after.macs), bytes=(before.bytes, after.bytes))
    return result.model, _with_figures(report, evidence)


def _evidence(before: onnx.ModelProto, after: onnx.ModelProto, step: Pass, proof: Proof) -> Evidence:
    if type(step).kind == "exact":
        return proof.exact(after)
    return proof.rounding(before, after, type(step).allowed_drop)


def _with_figures(report: PassReport, evidence: Evidence) -> PassReport:
    return replace(report, error=evidence.error, rounding=evidence.rounding, score=evidence.score)
