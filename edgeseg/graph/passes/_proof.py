"""Measure whether a rewritten graph holds: against the outputs before, the exact output, or a score of its labels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.errors import ExportError
from edgeseg.graph.run import run_graph

__all__ = ["TOLERANCE", "WIDE", "Evidence", "Exact", "Proof", "Score"]

TOLERANCE = 1e-5
"""Largest change of an output by exact passes, relative to the output's range."""
WIDE = 0.05
"""Largest root mean square change of an output by a rounding pass that nothing scores, relative to the output's range.

A step of int8 is 1/127 of a tensor's range, and a rewrite may round some numbers to the step beside. A rewrite that
computes something else changes an output by a large part of its range. The largest change alone cannot tell the two
apart: one number that falls on another step, far up in the network, moves some outputs by many steps."""
SLACK = 2.0
"""How many times as far from the exact output as the first graph a rewritten one may be: rounding is random."""

Exact = Callable[[], "NDArray[np.float64] | None"]
"""Gives the one output in float64, or None where there is none."""
Score = Callable[[onnx.ModelProto], float]
"""Gives the share of a graph's labels on held-out images that equal fp32's, 0 to 1."""


@dataclass(frozen=True)
class Evidence:
    """Why a graph does not hold (empty where it does), and the figures of `PassReport`."""

    reason: str
    error: float
    rounding: tuple[float, float] | None = None
    score: tuple[float, float] | None = None


class Proof:
    """Holds rewritten graphs to the outputs of the first one, or of the last one a rounding pass made.

    Args:
        model: The graph before any pass.
        feeds: Input name -> array.
        tolerance: Of exact passes, relative to an output's range.
        exact: Gives the exact output, where rounding is all there is to a change.
        score: Scores graphs before and after a rounding pass.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        feeds: Mapping[str, NDArray[Any]],
        tolerance: float,
        *,
        exact: Exact | None = None,
        score: Score | None = None,
    ) -> None:
        self._feeds, self._tolerance, self._score = feeds, tolerance, score
        self._expected: Sequence[NDArray[Any]] = run_graph(model, feeds)
        self._exact: Exact = functools.cache(exact) if exact else lambda: None
        self._scored: tuple[onnx.ModelProto, float] | None = None

    def exact(self, model: onnx.ModelProto) -> Evidence:
        """Compare the graph's outputs with those before, then with the exact one where they moved too far."""
        try:
            got = self._run(model)
        except ExportError as error:
            return Evidence(f"reverted: {error}", math.inf)
        worst = max((_distance(new, old, old) for new, old in zip(got, self._expected, strict=True)), default=0.0)
        if worst <= self._tolerance:
            return Evidence("", worst)
        moved = f"reverted: an output moved by {worst:.1e} of its range, at most {self._tolerance:.0e} is allowed"
        exact = self._exact() if len(got) == 1 and np.isfinite(worst) else None
        if exact is None or exact.shape != got[0].shape:
            return Evidence(moved, worst)
        first, now = (_distance(output, exact, exact) for output in (self._expected[0], got[0]))
        if now <= max(self._tolerance, SLACK * first):
            return Evidence("", worst, (first, now))
        why = f"{moved}; it is {now:.1e} from the exact output, the graph before was {first:.1e}"
        return Evidence(why, worst, (first, now))

    def rounding(self, before: onnx.ModelProto, after: onnx.ModelProto, allowed_drop: float) -> Evidence:
        """Compare the scores of two graphs, or their outputs where nothing scores them."""
        try:
            got = self._run(after)
        except ExportError as error:
            return Evidence(f"reverted: {error}", math.inf)
        pairs = list(zip(got, self._expected, strict=True))
        worst = max((_distance(new, old, old) for new, old in pairs), default=0.0)
        evidence = Evidence("", worst)
        if self._score is not None:
            evidence = self._scores(self._score, before, after, allowed_drop, evidence)
        elif not (mean := max((_mean_distance(new, old) for new, old in pairs), default=0.0)) <= WIDE:
            moved = f"an output moved by {mean:.1e} of its range in root mean square"
            evidence = replace(evidence, reason=f"reverted: {moved}, at most {WIDE:g} is allowed")
        if not evidence.reason:
            self._expected = got
        return evidence

    def _scores(
        self, score: Score, before: onnx.ModelProto, after: onnx.ModelProto, allowed: float, evidence: Evidence
    ) -> Evidence:
        known = self._scored is not None and self._scored[0] is before
        first = self._scored[1] if self._scored is not None and known else score(before)
        now = score(after)
        holds = first - now <= allowed
        self._scored = (after, now) if holds else (before, first)
        reason = "" if holds else f"reverted: {first - now:.2%} of the labels are lost, at most {allowed:.2%} may be"
        return replace(evidence, reason=reason, score=(first, now))

    def _run(self, model: onnx.ModelProto) -> list[NDArray[Any]]:
        """Run the graph.

        Raises:
            ExportError: The engine refuses it, or an output has another shape.
        """
        got = run_graph(model, self._feeds)
        for new, old in zip(got, self._expected, strict=True):
            if new.shape != old.shape:
                raise ExportError(f"an output changed its shape from {old.shape} to {new.shape}")
        return got


def _distance(new: NDArray[Any], old: NDArray[Any], scale: NDArray[Any]) -> float:
    """Measure the largest difference relative to the range of `scale`; infinite where a number is none."""
    distance = float(np.abs(new.astype(np.float64) - old).max(initial=0.0)) / _span(scale)
    return distance if math.isfinite(distance) else math.inf


def _mean_distance(new: NDArray[Any], old: NDArray[Any]) -> float:
    """Measure the root mean square difference relative to the range of `old`; infinite where a number is none."""
    if not new.size:
        return 0.0
    distance = math.sqrt(float(np.square(new.astype(np.float64) - old).mean())) / _span(old)
    return distance if math.isfinite(distance) else math.inf


def _span(scale: NDArray[Any]) -> float:
    return float(np.ptp(scale.astype(np.float64))) or 1.0
