"""Summaries: percentiles in order, and an interval of the median that covers what it says."""

from __future__ import annotations

import itertools
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.bench.stats import drift, median_interval, median_ranks, summarize
from edgeseg.errors import UsageError

VALUES = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=60)


@given(VALUES)
@settings(deadline=None)
def test_the_figures_are_in_order(values: list[float]) -> None:
    found = summarize(values)
    chain = [found.min, found.p50, found.p90, found.p95, found.p99, found.max]
    assert all(a <= b or math.isclose(a, b, rel_tol=1e-12) for a, b in itertools.pairwise(chain))
    assert found.min <= found.ci_low <= found.p50 <= found.ci_high <= found.max
    assert found.min <= found.mean <= found.max
    assert found.n == len(values)
    assert found.std >= 0.0


@given(VALUES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_samples_does_not_matter(values: list[float], random: Random) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    a, b = summarize(values), summarize(shuffled)
    assert (a.p50, a.p99, a.ci_low, a.ci_high) == (b.p50, b.p99, b.ci_low, b.ci_high)


def test_known_figures() -> None:
    found = summarize([float(x) for x in range(1, 102)])
    assert (found.min, found.p50, found.p90, found.p95, found.p99, found.max) == (1, 51, 91, 96, 100, 101)
    assert found.mean == pytest.approx(51.0, abs=1e-12)
    assert found.std == pytest.approx(math.sqrt(101 * 102 / 12), rel=1e-12)


@given(st.integers(1, 300), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
@settings(deadline=None)
def test_the_ranks_are_the_widest_that_still_cover(n: int, confidence: float) -> None:
    rank, coverage = median_ranks(n, confidence=confidence)

    def covers(k: int) -> float:
        return 1.0 - 2.0 * sum(math.comb(n, i) for i in range(k)) / 2.0**n

    assert 1 <= rank <= (n + 1) // 2
    assert coverage == pytest.approx(max(0.0, covers(rank)), abs=1e-12)
    assert rank == 1 or coverage >= confidence - 1e-12
    assert 2 * (rank + 1) > n + 1 or covers(rank + 1) < confidence


@pytest.mark.parametrize("n", [20, 51, 200])
def test_the_interval_covers_the_true_median(n: int) -> None:
    random, trials = np.random.default_rng(n), 2000
    intervals = [median_interval(row)[:2] for row in random.lognormal(size=(trials, n))]  # median 1
    covered = sum(low <= 1.0 <= high for low, high in intervals) / trials
    exact = median_ranks(n)[1]
    assert exact >= 0.95
    assert covered == pytest.approx(exact, abs=0.02)  # four standard deviations of the count


def test_few_samples_give_the_whole_range_and_say_so() -> None:
    low, high, coverage = median_interval([3.0, 1.0, 2.0])
    assert (low, high) == (1.0, 3.0)
    assert coverage == 0.75


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_cannot_be_summarised_is_refused(values: list[float]) -> None:
    with pytest.raises(UsageError, match="measure"):
        summarize(values)


@pytest.mark.parametrize(("n", "confidence"), [(0, 0.95), (5, 0.0), (5, 1.0)])
def test_impossible_confidence_is_refused(n: int, confidence: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        median_ranks(n, confidence=confidence)


def test_drift_shows_a_machine_that_became_slower() -> None:
    assert drift([1.0] * 10 + [1.2] * 10) == pytest.approx(1.2)
    assert drift([1.0, 5.0]) == 1.0
    assert drift([0.0] * 10) == 1.0
