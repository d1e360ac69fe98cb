"""Compare two benchmarks of one machine: was the later one slower, and is that more than noise?

A stage counts as slower only where three things agree. The ratio of medians is beyond the allowed change. A rank test
finds that the two series differ. The ratio's confidence interval, which allows for neighbouring frames being alike,
leaves 1 outside. A ratio beyond the allowed change that noise could explain is called unclear, never slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.bench.machine import Machine
from edgeseg.bench.report import STAGES, TOTAL, BenchmarkReport
from edgeseg.errors import RegressionError, UsageError

__all__ = [
    "Comparison",
    "StageChange",
    "Verdict",
    "compare_reports",
    "compare_samples",
    "mann_whitney",
    "ratio_interval",
]

Verdict = Literal["slower", "faster", "no difference", "unclear"]
Samples = Sequence[float] | NDArray[np.float64]
ByKey = dict[tuple[str, str], BenchmarkReport]

ALPHA = 0.05
_RESAMPLES = 2000


@dataclass(frozen=True)
class StageChange:
    """The change of one stage of one bundle on one target.

    Attributes:
        bundle: Name of the bundle.
        target: Canonical target name.
        stage: ``decode``, ``pre``, ``infer``, ``postprocess`` or ``total``.
        before_ms: Median of the first file.
        after_ms: Median of the second file.
        ratio: Second over first; above 1 is slower.
        ratio_low: Lower end of the ratio's 95 % interval.
        ratio_high: Upper end of it.
        p_value: Mann-Whitney U test, two-sided.
        verdict: ``slower`` or ``faster`` beyond the threshold and beyond noise, ``unclear`` where the ratio is beyond
            the threshold and noise could explain it, else ``no difference``.
    """

    bundle: str
    target: str
    stage: str
    before_ms: float
    after_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    p_value: float
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """Two benchmarks side by side.

    Attributes:
        threshold: Relative change allowed, 0.05 for 5 %.
        changes: One per bundle, target and stage that both hold.
        only_before: ``bundle on target`` that the second file lacks.
        only_after: ``bundle on target`` that the first file lacks.
        machine_differences: Sentences; empty where both ran on one machine.
        notes: Sentences on what else differed (versions, options, clocks).
    """

    threshold: float
    changes: tuple[StageChange, ...]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()
    machine_differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def regressions(self) -> tuple[StageChange, ...]:
        """Totals that became slower. A slower stage inside a total that did not is shown, but does not count."""
        return tuple(c for c in self.changes if c.stage == TOTAL and c.verdict == "slower")

    def check(self) -> None:
        """Refuse a regression.

        Raises:
            RegressionError: A total became slower than the threshold allows.
        """
        if not self.regressions:
            return
        words = (f"{c.bundle} on {c.target} {c.before_ms:.2f} -> {c.after_ms:.2f} ms" for c in self.regressions)
        limit = f"{100 * self.threshold:g} %"
        raise RegressionError(
            f"slower by more than the {limit} allowed: {'; '.join(words)}; see which stage it is above"
        )

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values; a ratio over a median of zero is null."""
        data = asdict(self)
        data["changes"] = [
            {key: None if value in (math.inf, -math.inf) else value for key, value in change.items()}
            for change in data["changes"]
        ]
        return {"kind": "edgeseg-benchmark-comparison", "schema_version": 1, **data}


def compare_reports(
    before: Sequence[BenchmarkReport],
    after: Sequence[BenchmarkReport],
    *,
    threshold: float = 0.05,
    any_machine: bool = False,
) -> Comparison:
    """Compare two benchmark files, matching bundle name and target.

    Args:
        before: Reports of the first file.
        after: Reports of the second file.
        threshold: Relative change allowed, 0.05 for 5 %.
        any_machine: Compare though the machines differ; the differences are then listed.

    Raises:
        UsageError: Different machines without `any_machine`, a file that holds one bundle and target twice, nothing in
            common, or a threshold below 0.

    Example:
        >>> from edgeseg.bench import benchmark
        >>> before = benchmark(bundle, in_process=True, min_samples=1, max_samples=2, warmup_frames=0)
        >>> comparison = compare_reports([before], [before])
        >>> [change.ratio for change in comparison.changes if change.stage == "total"]
        [1.0]
    """
    if not (math.isfinite(threshold) and threshold >= 0.0):
        raise UsageError(f"the allowed regression is {threshold}; it must be 0 or more, such as 0.05 for 5 %")
    first, second = _by_key(before), _by_key(after)
    pairs = _pairs(first, second)
    machines = _machine_differences(pairs)
    if machines and not any_machine:
        raise UsageError(
            f"the benchmarks ran on different machines ({'; '.join(machines)}); measure both on one, "
            "or compare them with --any-machine"
        )
    return Comparison(
        threshold=threshold,
        changes=tuple(change for pair in pairs for change in _changes(*pair, threshold)),
        only_before=tuple(f"{bundle} on {target}" for bundle, target in first if (bundle, target) not in second),
        only_after=tuple(f"{bundle} on {target}" for bundle, target in second if (bundle, target) not in first),
        machine_differences=machines,
        notes=_unique(note for pair in pairs for note in _notes(*pair)),
    )


def compare_samples(
    before: Samples, after: Samples, *, threshold: float = 0.05
) -> tuple[float, float, float, float, Verdict]:
    """Compare two series of latencies.

    Args:
        before: Milliseconds of the first series, in the order they were measured.
        after: Milliseconds of the second series, in the order they were measured.
        threshold: Relative change allowed.

    Returns:
        Ratio of medians (second over first), its interval's ends, p value, verdict. A first median of zero (an empty
        stage) gives a ratio of 1 where the second is zero too, else infinity.

    Example:
        >>> ratio, low, high, p_value, verdict = compare_samples([1.0, 1.1] * 20, [2.0, 2.2] * 20)
        >>> round(ratio, 3), verdict
        (2.0, 'slower')
    """
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    ratio = _ratio(float(np.median(a)), float(np.median(b)))
    low, high = ratio_interval(a, b)
    p_value = mann_whitney(a, b)[1]
    if 1.0 / (1.0 + threshold) <= ratio <= 1.0 + threshold:
        return ratio, low, high, p_value, "no difference"
    shown = p_value < ALPHA and not low <= 1.0 <= high
    return ratio, low, high, p_value, ("slower" if ratio > 1.0 else "faster") if shown else "unclear"


def mann_whitney(before: Samples, after: Samples) -> tuple[float, float]:
    """Test by ranks whether two series differ (Mann-Whitney U), two-sided, with tie and continuity corrections.

    The test asks whether a value drawn from one series tends to be larger than one from the other. It assumes no
    distribution (H. B. Mann and D. R. Whitney, Annals of Mathematical Statistics, 1947). Its normal approximation is
    good from about eight values a side.

    Returns:
        U of the first series, and the p value; p is 1 where all values are equal.

    Example:
        >>> mann_whitney([1.0, 2.0], [1.0, 2.0])
        (2.0, 1.0)
    """
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    n, m = a.size, b.size
    _, inverse, counts = np.unique(np.concatenate((a, b)), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2.0)[inverse.ravel()]  # ties share the mean of their ranks
    u = float(ranks[:n].sum()) - n * (n + 1) / 2.0
    total = n + m
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / (total * (total - 1.0)) if total > 1 else 0.0
    variance = n * m / 12.0 * (total + 1.0 - ties)
    if variance <= 0.0:
        return u, 1.0
    z = max(0.0, abs(u - n * m / 2.0) - 0.5) / math.sqrt(variance)
    return u, math.erfc(z / math.sqrt(2.0))


def ratio_interval(before: Samples, after: Samples, *, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Compute a bootstrap interval of the ratio of medians, drawing blocks of neighbouring frames.

    Latencies of neighbouring frames are alike (clocks, other processes), so single frames drawn at random would give
    too narrow an interval. Blocks of n^(1/3) on a circle keep the likeness (D. N. Politis and J. P. Romano, "A circular
    block-resampling procedure for stationary data", 1992). The interval is that of percentiles. The seed is fixed, so
    the same files give the same interval.

    Example:
        >>> ratio_interval([1.0] * 10, [2.0] * 10)
        (2.0, 2.0)
    """
    random = np.random.default_rng(seed)
    a, b = (_medians(np.asarray(series, np.float64), random) for series in (before, after))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(a > 0.0, b / a, np.where(b > 0.0, np.inf, 1.0))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(ratios, (tail, 1.0 - tail), method="inverted_cdf")
    return float(low), float(high)


def _medians(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    n = values.size
    block = max(1, round(n ** (1.0 / 3.0)))
    starts = random.integers(0, n, (_RESAMPLES, -(-n // block)))
    chosen = (starts[:, :, None] + np.arange(block)).reshape(_RESAMPLES, -1)[:, :n] % n
    medians: NDArray[np.float64] = np.median(values[chosen], axis=1)
    return medians


def _ratio(before: float, after: float) -> float:
    if before > 0.0:
        return after / before
    return math.inf if after > 0.0 else 1.0


def _by_key(reports: Sequence[BenchmarkReport]) -> ByKey:
    reports_by_key: ByKey = {}
    for report in reports:
        key = report.bundle.name, report.target
        if key in reports_by_key:
            raise UsageError(f"one file holds {key[0]} on {key[1]} twice; compare files that hold each target once")
        reports_by_key[key] = report
    return reports_by_key


def _pairs(first: ByKey, second: ByKey) -> list[tuple[BenchmarkReport, BenchmarkReport]]:
    """Pair the reports of one bundle and target."""
    pairs = [(first[key], second[key]) for key in first if key in second]
    if not pairs:
        raise UsageError(
            f"the files have no bundle and target in common: {_keys(first)} against {_keys(second)}; "
            "compare benchmarks of one bundle"
        )
    return pairs


def _keys(reports: ByKey) -> str:
    return ", ".join(f"{bundle} on {target}" for bundle, target in reports)


def _changes(before: BenchmarkReport, after: BenchmarkReport, threshold: float) -> list[StageChange]:
    changes = []
    for stage in (stage for stage in STAGES if stage in before.samples and stage in after.samples):
        a, b = (np.asarray(report.samples[stage], np.float64) for report in (before, after))
        ratio, low, high, p_value, verdict = compare_samples(a, b, threshold=threshold)
        medians = float(np.median(a)), float(np.median(b))
        change = StageChange(before.bundle.name, before.target, stage, *medians, ratio, low, high, p_value, verdict)
        changes.append(change)
    return changes


def _machine_differences(pairs: Sequence[tuple[BenchmarkReport, BenchmarkReport]]) -> tuple[str, ...]:
    return _unique(text for a, b in pairs for text in a.machine.differences(b.machine))


def _notes(before: BenchmarkReport, after: BenchmarkReport) -> list[str]:
    values = {
        "engine": (before.session.engine, after.session.engine),
        "device": (before.session.device, after.session.device),
        "precision": (before.session.precision, after.session.precision),
        "threads": (before.session.threads, after.session.threads),
        "options": (dict(before.options), dict(after.options)),
        "edgeseg": (before.edgeseg, after.edgeseg),
        "manifest": (before.bundle.manifest_sha256[:12], after.bundle.manifest_sha256[:12]),
        "picture sizes": (before.source_sizes, after.source_sizes),
        "own process": (before.own_process, after.own_process),
    }
    where = f"{before.bundle.name} on {before.target}: "
    notes = [f"{where}{name} was {a}, then {b}" for name, (a, b) in values.items() if a != b]
    notes += before.machine.differences(after.machine, Machine.CONDITIONS)
    return notes + [f"{which} file, {where}{text}" for which, r in _both(before, after) for text in r.warnings]


def _both(before: BenchmarkReport, after: BenchmarkReport) -> tuple[tuple[str, BenchmarkReport], ...]:
    return ("first", before), ("second", after)


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
