"""Intervals of scores against drawing the pictures one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg import intervals
from edgeseg.intervals import FEWEST, RESAMPLES, Interval, PictureCounts, draws, interval_of
from edgeseg.metrics import ConfusionMatrix


def _matrices(pictures: int, classes: int, seed: int = 0) -> list[ConfusionMatrix]:
    """Pictures of different difficulty, with void; the last class is in no picture."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(pictures):
        true = rng.integers(0, max(1, classes - 1), (6, 7)).astype(np.uint8)
        pred = np.where(rng.random((6, 7)) < rng.random(), rng.integers(0, max(1, classes - 1), (6, 7)), true)
        true[rng.random((6, 7)) < 0.1] = 255
        found.append(ConfusionMatrix(classes))
        found[-1].update(true, pred.astype(np.uint8), 255)
    return found


def _counts(matrices: list[ConfusionMatrix]) -> PictureCounts:
    counts = PictureCounts()
    for matrix in matrices:
        counts.add(matrix)
    return counts


def _ends(interval: Interval | None) -> Interval:
    assert interval is not None
    return interval


def _one_by_one(matrices: list[ConfusionMatrix], *, void: bool) -> dict[str, NDArray[Any]]:
    """Scores of each draw, of a confusion matrix that was added up anew."""
    random = np.random.default_rng(0)
    rows = []
    for drawn in random.integers(0, len(matrices), (RESAMPLES, len(matrices))):
        total = ConfusionMatrix(matrices[0].num_classes)
        for index in drawn:
            total += matrices[index]
        total = total.with_void_as_error() if void else total
        rows.append((total.miou, total.pixel_accuracy, total.frequency_weighted_iou))
    return dict(zip(("mIoU", "pixel accuracy", "frequency-weighted IoU"), np.array(rows).T, strict=True))


@pytest.mark.parametrize("void", [False, True])
def test_intervals_are_those_of_drawing_one_by_one(void: bool) -> None:
    matrices = _matrices(12, 5)
    found = _counts(matrices).intervals(count_void_as_error=void)
    expected = _one_by_one(matrices, void=void)
    assert list(found) == list(expected)
    for name, interval in found.items():
        assert interval is not None
        np.testing.assert_allclose(interval, np.quantile(expected[name], (0.025, 0.975)), rtol=1e-12)
        assert interval[0] < interval[1]


def test_intervals_do_not_hang_on_how_much_is_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = _counts(_matrices(15, 9))
    whole = counts.intervals()
    monkeypatch.setattr(intervals, "_NUMBERS", 40)
    monkeypatch.setattr(intervals, "_CLASSES", 2)
    assert {name: _ends(each) for name, each in counts.intervals().items()} == {
        name: pytest.approx(_ends(each)) for name, each in whole.items()
    }


def test_equal_pictures_leave_no_range() -> None:
    (matrix,) = _matrices(1, 4)
    found = _counts([matrix] * FEWEST).intervals()
    assert _ends(found["mIoU"]) == pytest.approx((matrix.miou, matrix.miou))


@pytest.mark.parametrize("pictures", [0, 1, FEWEST - 1])
def test_few_pictures_have_no_interval(pictures: int) -> None:
    assert _counts(_matrices(pictures, 4)).intervals() == {}


def test_pictures_of_void_alone_have_no_interval() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8), 255)
    found = _counts([matrix] * FEWEST)
    assert found.intervals() == {"mIoU": None, "pixel accuracy": None, "frequency-weighted IoU": None}
    assert found.intervals(count_void_as_error=True)["mIoU"] == (0.0, 0.0)


def test_many_classes_take_what_their_pictures_hold() -> None:
    counts = PictureCounts()
    for _ in range(FEWEST):
        matrix = ConfusionMatrix(1000)
        matrix.update(np.array([[3, 999]], np.uint16), np.array([[3, 5]], np.uint16))
        counts.add(matrix)
    assert sum(part.size for part in counts._parts) == FEWEST * 6 * 3
    assert _ends(counts.intervals()["mIoU"]) == pytest.approx((1 / 3, 1 / 3))


def test_draws_are_seeded_and_whole() -> None:
    first, second = (np.concatenate(list(draws(7))) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == (RESAMPLES, 7)
    assert set(first.sum(axis=1)) == {7.0}


def test_the_range_holds_95_per_cent() -> None:
    assert interval_of(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert interval_of(np.array([])) is None
