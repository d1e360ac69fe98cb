"""Summaries of latency samples: percentiles and an exact confidence interval of the median. numpy only.

Nothing is trimmed: the slowest frame is a frame the user waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError

__all__ = ["CI_METHOD", "Summary", "drift", "median_interval", "median_ranks", "summarize"]

CI_METHOD = "order statistics, binomial(n, 1/2), distribution-free"
"""How `median_interval` is made, in words, for reports."""


@dataclass(frozen=True)
class Summary:
    """Figures of one stage's samples; milliseconds where the samples are.

    Percentiles interpolate linearly between order statistics (numpy's default, Hyndman and Fan's type 7).

    Attributes:
        n: Number of samples.
        mean: Arithmetic mean.
        std: Standard deviation with n - 1 in the denominator; 0 for one sample.
        min: Smallest sample.
        max: Largest sample.
        p50: Median.
        p90: 90th percentile.
        p95: 95th percentile.
        p99: 99th percentile.
        ci_low: Lower end of the median's confidence interval.
        ci_high: Upper end of the median's confidence interval.
        ci_coverage: Coverage the interval has for independent samples, 0..1: at least what was asked for, or less where
            there are too few samples (under six for 95 %), and then the interval is the whole range.
    """

    n: int
    mean: float
    std: float
    min: float
    max: float
    p50: float
    p90: float
    p95: float
    p99: float
    ci_low: float
    ci_high: float
    ci_coverage: float

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return asdict(self)


def summarize(samples: Sequence[float] | NDArray[np.float64], *, confidence: float = 0.95) -> Summary:
    """Summarise samples of one quantity.

    Args:
        samples: One value per frame, any finite numbers.
        confidence: Of the median's interval, between 0 and 1.

    Raises:
        UsageError: No samples, values that are not finite, or a confidence outside 0..1.

    Example:
        >>> summary = summarize([3.0, 1.0, 2.0])
        >>> summary.p50, summary.min, summary.max
        (2.0, 1.0, 3.0)
    """
    values = _checked(samples)
    low, high, coverage = median_interval(values, confidence=confidence)
    p50, p90, p95, p99 = (float(x) for x in np.percentile(values, (50, 90, 95, 99)))
    smallest, largest = float(values.min()), float(values.max())
    return Summary(
        n=values.size,
        mean=min(max(float(values.mean()), smallest), largest),  # a sum rounds; a mean lies inside its samples
        std=float(values.std(ddof=1)) if values.size > 1 else 0.0,
        min=smallest,
        max=largest,
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        ci_low=low,
        ci_high=high,
        ci_coverage=coverage,
    )


def median_interval(
    samples: Sequence[float] | NDArray[np.float64], *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Compute a confidence interval of the median from order statistics.

    The number of samples below the true median is binomial(n, 1/2) whatever the distribution. So the interval between
    the k-th smallest and the k-th largest sample covers it with a probability that is known exactly (W. R. Thompson,
    "On confidence ranges for the median", Annals of Mathematical Statistics, 1936).

    Returns:
        Lower end, upper end, coverage 0..1.

    Raises:
        UsageError: As `summarize`.

    Example:
        >>> median_interval([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
        (1.0, 6.0, 0.96875)
    """
    values = np.sort(_checked(samples))
    rank, coverage = median_ranks(values.size, confidence=confidence)
    return float(values[rank - 1]), float(values[values.size - rank]), coverage


def median_ranks(n: int, *, confidence: float = 0.95) -> tuple[int, float]:
    """Find the largest k for which [k-th smallest, k-th largest] of `n` samples covers the median with `confidence`.

    Returns:
        k, counted from 1, and the exact coverage. Where even the whole range covers less, k is 1.

    Raises:
        UsageError: `n` below 1 or a confidence outside 0..1.

    Example:
        >>> median_ranks(10)
        (2, 0.978515625)
    """
    if n < 1 or not 0.0 < confidence < 1.0:
        raise UsageError(f"got {n} samples and confidence {confidence}; expected at least 1 and one between 0 and 1")
    whole = 1 << n
    allowed = int((1.0 - confidence) / 2.0 * (1 << 60)) * whole >> 60  # whole numbers: exact for any n
    rank, term, below = 1, 1, 1  # below = sum of binomial coefficients over i < rank
    while 2 * (rank + 1) <= n + 1:
        term = term * (n - rank + 1) // rank
        if below + term > allowed:
            break
        rank, below = rank + 1, below + term
    return rank, max(0.0, 1.0 - (below << 61) // whole / (1 << 60))


def drift(samples: Sequence[float] | NDArray[np.float64]) -> float:
    """Divide the median of the later half by that of the earlier half: above 1 the machine became slower.

    Returns:
        The ratio; 1.0 for fewer than four samples or an earlier median of zero.

    Example:
        >>> drift([1.0, 1.0, 2.0, 2.0])
        2.0
    """
    values = np.asarray(samples, np.float64)
    half = values.size // 2
    before = float(np.median(values[:half])) if values.size >= 4 else 0.0
    return float(np.median(values[half:])) / before if before else 1.0


def _checked(samples: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(samples, np.float64).ravel()
    if not values.size:
        raise UsageError("there are no samples to summarise; measure at least one frame")
    if not np.isfinite(values).all():
        raise UsageError("the samples hold values that are not finite numbers; measure again")
    return values
