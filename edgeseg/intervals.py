"""How far scores hang on the pictures that happened to be taken: intervals by drawing the pictures anew.

Pixels of a picture are not independent; pictures are. So pictures are drawn with replacement, as many as there are, and
scored, a thousand times (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993). The interval is what 95 % of
these scores lie in. The draws are seeded, so that the same pictures give the same interval.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeseg.metrics import ConfusionMatrix

__all__ = ["FEWEST", "RESAMPLES", "SHARE", "Interval", "PictureCounts", "draws", "interval_of"]

F64 = NDArray[np.float64]

Interval = tuple[float, float]
"""Lower and upper end."""

RESAMPLES = 1000
"""How often the pictures are drawn."""

SHARE = 0.95
"""Share of the draws whose scores lie in an interval."""

FEWEST = 10
"""Pictures that are enough for an interval of scores: draws of fewer are too alike."""

_NUMBERS = 1 << 22  # of an array that is in memory at once
_CLASSES = 256  # that are drawn at once


def draws(pictures: int) -> Iterator[F64]:
    """Draw so many pictures with replacement, `RESAMPLES` times.

    Args:
        pictures: Number of pictures, 1 or more.

    Yields:
        float64 (draws, pictures): how often each picture was drawn, for some of the draws.

    Example:
        >>> [block.shape for block in draws(3)], {float(row.sum()) for block in draws(3) for row in block}
        ([(1000, 3)], {3.0})
    """
    random, left = np.random.default_rng(0), RESAMPLES
    while left:
        rows = min(left, max(1, _NUMBERS // pictures))
        drawn = random.integers(0, pictures, (rows, pictures))
        drawn += np.arange(rows)[:, None] * pictures
        yield np.bincount(drawn.ravel(), minlength=rows * pictures).reshape(rows, pictures).astype(np.float64)
        left -= rows


def interval_of(scores: F64) -> Interval | None:
    """Give the range that `SHARE` of the draws' scores lie in; None where no draw has a score.

    Example:
        >>> interval_of(np.array([0.5, 0.5, np.nan])), interval_of(np.array([np.nan]))
        ((0.5, 0.5), None)
    """
    there = scores[~np.isnan(scores)]
    if not there.size:
        return None
    low, high = np.quantile(there, ((1 - SHARE) / 2, (1 + SHARE) / 2))
    return float(low), float(high)


class PictureCounts:
    """What each picture adds to a confusion matrix, for the classes that it holds only.

    Attributes:
        pictures: Number of pictures.

    Example:
        >>> matrix, counts = ConfusionMatrix(2), PictureCounts()
        >>> matrix.update(np.array([[0, 1]], np.uint8), np.array([[0, 1]], np.uint8))
        >>> for _ in range(FEWEST):
        ...     counts.add(matrix)
        >>> counts.intervals()["mIoU"]
        (1.0, 1.0)
    """

    def __init__(self) -> None:
        self.pictures = 0
        self._parts: list[NDArray[np.int64]] = []

    def add(self, matrix: ConfusionMatrix) -> None:
        """Add the matrix of one picture."""
        true, predicted = matrix.counts.sum(axis=1), matrix.counts[:, :-1].sum(axis=0)
        columns = np.stack((np.diagonal(matrix.counts), true, predicted, matrix.void[:-1]))
        (there,) = np.nonzero(columns.any(axis=0))
        self._parts.append(np.vstack((np.full(len(there), self.pictures), there, columns[:, there])))
        self.pictures += 1

    def intervals(self, *, count_void_as_error: bool = False) -> dict[str, Interval | None]:
        """Compute the interval of each score, by the name it has in `Evaluation.scores`.

        Args:
            count_void_as_error: The reading, as in `ConfusionMatrix`.

        Returns:
            mIoU, pixel accuracy and frequency-weighted IoU: each two shares, 0..1, or None where no draw has pixels.
            Empty where there are fewer than `FEWEST` pictures.
        """
        if self.pictures < FEWEST:
            return {}
        counts = np.hstack(self._parts)
        found = [self._scores(counts, weights, count_void_as_error) for weights in draws(self.pictures)]
        miou, accuracy, weighted = (interval_of(np.concatenate(scores)) for scores in zip(*found, strict=True))
        return {"mIoU": miou, "pixel accuracy": accuracy, "frequency-weighted IoU": weighted}

    def _scores(self, counts: NDArray[np.int64], weights: F64, with_void: bool) -> tuple[F64, F64, F64]:
        """Score draws; the classes are summed up block by block."""
        ious, classes, hits, pixels, weighted, void = np.zeros((6, len(weights)))
        for block in self._blocks(counts):
            hit, true, predicted, on_void = (weights @ each for each in block)
            union = true + predicted - hit + (on_void if with_void else 0.0)
            iou = np.divide(hit, union, out=np.zeros_like(hit), where=union > 0)
            ious += iou.sum(axis=1)
            classes += (union > 0).sum(axis=1)
            hits, pixels, void = hits + hit.sum(axis=1), pixels + true.sum(axis=1), void + on_void.sum(axis=1)
            weighted += (true * iou).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return ious / classes, hits / (pixels + (void if with_void else 0.0)), weighted / pixels

    def _blocks(self, counts: NDArray[np.int64]) -> Iterator[F64]:
        """Spread the counts out: float64 (4, pictures, classes) for some of the classes that are there."""
        picture, label, *columns = counts
        present, place = np.unique(label, return_inverse=True)
        most = max(1, min(_CLASSES, _NUMBERS // self.pictures))
        for start in range(0, len(present), most):
            here = (place >= start) & (place < start + most)
            dense = np.zeros((4, self.pictures, min(most, len(present) - start)))
            dense[:, picture[here], place[here] - start] = np.stack(columns)[:, here]
            yield dense
