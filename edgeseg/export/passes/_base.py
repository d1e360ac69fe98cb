"""What a pass on the ONNX graph is, and the pipeline that makes each one prove itself.

A pass states what it requires of the graph; one that does not hold makes the pass decline, with the reason in its
report. After every pass that changed something the graph runs on the same inputs as before, in ONNX Runtime on the CPU;
if an output moved by more than the tolerance, the pass is undone and the report says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.errors import ExportError
from edgeseg.export.passes.cost import graph_cost

__all__ = ["Pass", "PassReport", "PassResult", "run_graph", "run_passes"]

TOLERANCE = 1e-5
"""Largest change of an output by a pass, relative to the output's range."""


@dataclass(frozen=True)
class PassReport:
    """What a pass did.

    Attributes:
        name: Of the pass.
        modified: Whether the graph changed (False after a revert).
        nodes: Number of nodes before and after.
        reason: Why it declined or was reverted; empty otherwise.
        error: Largest change of an output relative to its range, None where nothing was measured.
        macs: Multiply-accumulates before and after; None where the pass changed nothing.
        bytes: Read and written by all nodes, before and after; None likewise.
        declined: What the pass left as it was, and why; one sentence each.
    """

    name: str
    modified: bool
    nodes: tuple[int, int]
    reason: str = ""
    error: float | None = None
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


def run_graph(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a graph once in ONNX Runtime on the CPU, without graph optimisation, and return its outputs.

    Raises:
        ExportError: ONNX Runtime refuses the graph.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs: list[NDArray[Any]] = session.run(None, dict(feeds))
    except Exception as error:
        raise ExportError(f"ONNX Runtime refuses the graph: {(str(error).splitlines() or [''])[0][:240]}") from error
    return outputs


def run_passes(
    model: onnx.ModelProto,
    passes: Sequence[Pass],
    feeds: Mapping[str, NDArray[Any]],
    *,
    tolerance: float = TOLERANCE,
    rounds: int = 1,
) -> tuple[onnx.ModelProto, list[PassReport]]:
    """Apply passes in order, each checked on `feeds` and undone where the numbers do not hold.

    Args:
        model: The graph; it is not changed.
        passes: In order.
        feeds: Input name -> array.
        tolerance: Largest change of an output relative to its range.
        rounds: How often to go through the passes at most; it ends with a round in which none changed anything.

    Returns:
        The rewritten graph, and the reports: one per pass, then one per pass that changed something in a later round.
    """
    reports: list[PassReport] = []
    expected = run_graph(model, feeds)
    active = list(passes)
    for turn in range(rounds):
        done: list[PassReport] = []
        for step in active:
            model, report = _checked(model, step, feeds, expected, tolerance)
            done.append(report)
        reports += [report for report in done if turn == 0 or report.modified or report.error is not None]
        active = [step for step, report in zip(active, done, strict=True) if report.modified or report.error is None]
        if not any(report.modified for report in done):
            break
    return model, reports


def _checked(
    model: onnx.ModelProto,
    step: Pass,
    feeds: Mapping[str, NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    tolerance: float,
) -> tuple[onnx.ModelProto, PassReport]:
    """One pass's graph and report, or the graph it was given where its numbers do not hold."""
    result = step(model)
    if not result.modified:
        return model, result.report
    error, reason = _largest_change(result.model, feeds, expected)
    if reason or error > tolerance:
        count = result.report.nodes[0]
        why = reason or f"reverted: an output moved by {error:.1e} of its range, at most {tolerance:.0e} is allowed"
        return model, PassReport(step.name, False, (count, count), why, error)
    before, after = graph_cost(model), graph_cost(result.model)
    report = replace(result.report, error=error, macs=(before.macs, after.macs), bytes=(before.bytes, after.bytes))
    return result.model, report


def _largest_change(
    model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], expected: Sequence[NDArray[Any]]
) -> tuple[float, str]:
    try:
        got = run_graph(model, feeds)
    except ExportError as error:
        return float("inf"), f"reverted: {error}"
    worst = 0.0
    for new, old in zip(got, expected, strict=True):
        if new.shape != old.shape:
            return float("inf"), f"reverted: an output changed its shape from {old.shape} to {new.shape}"
        span = float(np.ptp(old.astype(np.float64))) or 1.0
        worst = max(worst, float(np.abs(new.astype(np.float64) - old).max()) / span)
    return worst, ""
