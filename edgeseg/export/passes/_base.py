"""What a pass on the ONNX graph is, and the pipeline that makes each one prove itself.

A pass states what it requires of the graph; one that does not hold makes the pass decline, with the reason in its
report. After every pass that changed something the graph runs on the same inputs as before, in ONNX Runtime on the CPU;
if an output moved by more than the tolerance, the pass is undone and the report says so. Some networks amplify the last
bit by more than the tolerance, whatever is done to them: where the exporter gives the exact output (float64), a pass
also holds when the graph stays about as near to it as the graph was before any pass.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.errors import ExportError
from edgeseg.export.graph.cost import graph_cost
from edgeseg.export.graph.editor import GraphEditor
from edgeseg.export.graph.run import run_graph
from edgeseg.text import first_line

__all__ = ["GraphPass", "Pass", "PassReport", "PassResult", "run_passes"]

TOLERANCE = 1e-5
"""Largest change of an output by a pass, relative to the output's range."""
SLACK = 2.0
"""How many times as far from the exact output as the first graph a rewritten one may be: rounding is random."""
Exact = Callable[[], "NDArray[np.float64] | None"]


@dataclass(frozen=True)
class PassReport:
    """What a pass did.

    Attributes:
        name: Of the pass.
        modified: Whether the graph changed (False after a revert).
        nodes: Number of nodes before and after.
        reason: Why it declined or was reverted; empty otherwise.
        error: Largest change of an output relative to its range, None where nothing was measured.
        rounding: Largest distance of the first graph and of this one from the exact output, relative to its range; None
            where the change alone was small enough, or nothing exact was given.
        macs: Multiply-accumulates before and after; None where the pass changed nothing.
        bytes: Read and written by all nodes, before and after; None likewise.
        declined: What the pass left as it was, and why; one sentence each.
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


@dataclass(frozen=True)
class PassResult:
    """A pass's graph, whether it differs from the one it was given, and the report."""

    model: onnx.ModelProto
    modified: bool
    report: PassReport


class Pass(ABC):
    """One rewrite of the graph. Subclasses never change the model they are given."""

    declined: tuple[str, ...] = ()
    """What the last call left as it was, and why; `rewrite` may set it."""

    @property
    def name(self) -> str:
        """Name in reports and flags."""
        return type(self).__name__

    def requires(self, model: onnx.ModelProto) -> str:
        """Why this graph cannot be rewritten; empty when it can."""
        return ""

    @abstractmethod
    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        """The rewritten graph, or None where there is nothing to do."""

    def __call__(self, model: onnx.ModelProto) -> PassResult:
        """Apply the pass without checking numbers."""
        count = len(model.graph.node)
        self.declined = ()
        reason = self.requires(model)
        rewritten = None if reason else self.rewrite(model)
        if rewritten is None:
            report = PassReport(self.name, False, (count, count), reason, declined=self.declined)
            return PassResult(model, False, report)
        report = PassReport(self.name, True, (count, len(rewritten.graph.node)), declined=self.declined)
        return PassResult(rewritten, True, report)


class GraphPass(Pass):
    """A pass that works on a `GraphEditor`. Subclasses implement `apply`."""

    @abstractmethod
    def apply(self, editor: GraphEditor) -> None:
        """Rewrite the graph through drafts and the editor's methods; count what is not a draft in `editor.changes`."""

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        editor = GraphEditor(model)
        self.apply(editor)
        self.declined = tuple(editor.declined)
        return editor.to_proto() if editor.changes else None


def run_passes(
    model: onnx.ModelProto,
    passes: Sequence[Pass],
    feeds: Mapping[str, NDArray[Any]],
    *,
    tolerance: float = TOLERANCE,
    rounds: int = 1,
    exact: Exact | None = None,
) -> tuple[onnx.ModelProto, list[PassReport]]:
    """Apply passes in order, each checked on `feeds` and undone where the numbers do not hold.

    Args:
        model: The graph; it is not changed.
        passes: In order.
        feeds: Input name -> array.
        tolerance: Largest change of an output relative to its range.
        exact: Gives the one output in float64 on `feeds`, or None; asked for only where a pass moves the output by more
            than the tolerance.
        rounds: How often to go through the passes at most; it ends with a round in which none changed anything.

    Returns:
        The rewritten graph, and the reports: one per pass, then one per pass that changed something in a later round.
    """
    reports: list[PassReport] = []
    judge = _Judge(feeds, run_graph(model, feeds), tolerance, exact)
    active = list(passes)
    for turn in range(rounds):
        done: list[PassReport] = []
        for step in active:
            model, report = _checked(model, step, judge)
            done.append(report)
        reports += [report for report in done if turn == 0 or report.modified or report.error is not None]
        active = [step for step, report in zip(active, done, strict=True) if report.modified or report.error is None]
        if not any(report.modified for report in done):
            break
    return model, reports


def _checked(model: onnx.ModelProto, step: Pass, judge: _Judge) -> tuple[onnx.ModelProto, PassReport]:
    """One pass's graph and report, or the graph it was given where its numbers do not hold, or the pass fails."""
    try:
        result = step(model)
    except Exception as error:  # a pass may meet a graph that nobody thought of; the export goes on without it
        count, kind = len(model.graph.node), type(error).__name__
        return model, PassReport(step.name, False, (count, count), f"undone: {kind}: {first_line(error)}", math.inf)
    if not result.modified:
        return model, result.report
    verdict = judge(result.model)
    if verdict.reason:
        count = result.report.nodes[0]
        return model, PassReport(step.name, False, (count, count), verdict.reason, verdict.error, verdict.rounding)
    before, after = graph_cost(model), graph_cost(result.model)
    return result.model, replace(
        result.report,
        error=verdict.error,
        rounding=verdict.rounding,
        macs=(before.macs, after.macs),
        bytes=(before.bytes, after.bytes),
    )


@dataclass(frozen=True)
class _Verdict:
    """Why a graph does not hold (empty where it does), and the figures of `PassReport`."""

    reason: str
    error: float
    rounding: tuple[float, float] | None = None


class _Judge:
    """Holds graphs to the outputs of the first one, and to the exact output where rounding is all there is."""

    def __init__(
        self,
        feeds: Mapping[str, NDArray[Any]],
        expected: Sequence[NDArray[Any]],
        tolerance: float,
        exact: Exact | None,
    ) -> None:
        self._feeds, self._expected, self._tolerance = feeds, expected, tolerance
        self._exact: Exact = functools.cache(exact) if exact else lambda: None

    def __call__(self, model: onnx.ModelProto) -> _Verdict:
        """Run the graph and compare."""
        try:
            got = run_graph(model, self._feeds)
        except ExportError as error:
            return _Verdict(f"reverted: {error}", float("inf"))
        worst = 0.0
        for new, old in zip(got, self._expected, strict=True):
            if new.shape != old.shape:
                return _Verdict(f"reverted: an output changed its shape from {old.shape} to {new.shape}", float("inf"))
            worst = max(worst, _distance(new, old, old))
        if worst <= self._tolerance:
            return _Verdict("", worst)
        moved = f"reverted: an output moved by {worst:.1e} of its range, at most {self._tolerance:.0e} is allowed"
        exact = self._exact() if len(got) == 1 and np.isfinite(worst) else None
        if exact is None or exact.shape != got[0].shape:
            return _Verdict(moved, worst)
        first, now = (_distance(output, exact, exact) for output in (self._expected[0], got[0]))
        if now <= max(self._tolerance, SLACK * first):
            return _Verdict("", worst, (first, now))
        why = f"{moved}; it is {now:.1e} from the exact output, the graph before was {first:.1e}"
        return _Verdict(why, worst, (first, now))


def _distance(new: NDArray[Any], old: NDArray[Any], scale: NDArray[Any]) -> float:
    """Largest difference relative to the range of `scale`; infinite where a value is no number on one side alone."""
    span = float(np.ptp(scale.astype(np.float64))) or 1.0
    distance = float(np.abs(new.astype(np.float64) - old).max(initial=0.0)) / span
    return distance if math.isfinite(distance) else math.inf
