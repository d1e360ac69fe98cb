"""The confusion matrix against hand-made counts and a naive implementation."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.errors import InputError, UsageError
from edgeseg.metrics import ConfusionMatrix, agreement

U8 = NDArray[np.uint8]


def labels(*rows: tuple[int, ...]) -> U8:
    return np.array(rows, np.uint8)


def filled(true: U8, pred: U8, classes: int, ignore: int | None = None, *, void: bool = False) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes, count_void_as_error=void)
    matrix.update(true, pred, ignore)
    return matrix


def test_scores_by_hand() -> None:
    matrix = filled(labels((0, 0, 0, 1), (1, 1, 2, 2)), labels((0, 0, 1, 1), (1, 0, 2, 2)), 3)
    assert matrix.counts.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 2, 0]]
    assert matrix.iou.tolist() == [2 / 4, 2 / 4, 1.0]
    assert matrix.miou == pytest.approx(2 / 3)
    assert matrix.class_accuracy.tolist() == [2 / 3, 2 / 3, 1.0]
    assert matrix.mean_class_accuracy == pytest.approx(7 / 9)
    assert matrix.pixel_accuracy == 6 / 8


def test_the_two_readings_of_void_by_hand() -> None:
    """Two classes, void 2: one void pixel is predicted as class 0, one as void."""
    true, pred = labels((0, 0, 1, 1), (2, 2, 1, 0)), labels((0, 0, 1, 1), (0, 2, 1, 0))
    ignored = filled(true, pred, 2, 2)
    assert ignored.iou.tolist() == [1.0, 1.0]
    assert ignored.pixel_accuracy == 1.0
    counted = filled(true, pred, 2, 2, void=True)
    assert counted.iou.tolist() == [3 / 4, 1.0]
    assert counted.miou == 7 / 8
    assert counted.class_accuracy.tolist() == [1.0, 1.0]
    assert counted.pixel_accuracy == 6 / 7
    assert ignored.with_void_as_error().to_json() == counted.to_json()
    assert ignored.void.tolist() == [1, 0, 1]


def test_predicting_void_is_a_miss_of_the_true_class() -> None:
    for void in (False, True):
        matrix = filled(labels((0, 0, 1, 1)), labels((0, 2, 1, 1)), 2, 2, void=void)
        assert matrix.iou.tolist() == [1 / 2, 1.0]
        assert matrix.class_accuracy.tolist() == [1 / 2, 1.0]
        assert matrix.pixel_accuracy == 3 / 4


def test_void_among_the_classes_is_not_scored() -> None:
    """ENet's Cityscapes numbering has 0 = unlabeled."""
    matrix = filled(labels((0, 0, 1, 2)), labels((1, 0, 0, 2)), 3, 0)
    assert np.isnan(matrix.iou[0])
    assert matrix.iou[1:].tolist() == [0.0, 1.0]
    assert matrix.pixel_accuracy == 1 / 2


def test_absent_classes_are_left_out_of_the_means() -> None:
    matrix = filled(labels((0, 0, 1)), labels((0, 3, 1)), 5)
    assert matrix.iou[:2].tolist() == [0.5, 1.0]
    assert np.isnan(matrix.iou[[2, 4]]).all()
    assert matrix.iou[3] == 0.0  # predicted though not there: an error, not an absence
    assert matrix.miou == 0.5
    assert matrix.mean_class_accuracy == 0.75


def test_nothing_counted_gives_nan() -> None:
    matrix = ConfusionMatrix(2)
    assert math.isnan(matrix.miou)
    assert math.isnan(matrix.mean_class_accuracy)
    assert math.isnan(matrix.pixel_accuracy)
    assert json.loads(json.dumps(matrix.to_json(), allow_nan=False))["miou"] is None


def naive_iou(true: U8, pred: U8, classes: int, ignore: int, void: bool) -> list[float]:
    scores = []
    for c in range(classes):
        hit = both = 0
        for t, p in zip(true.ravel().tolist(), pred.ravel().tolist(), strict=True):
            if t == ignore and not void:
                continue
            hit += t == c and p == c
            both += t == c or p == c
        scores.append(hit / both if both else math.nan)
    return scores


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 12),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    void=st.booleans(),
    high=st.booleans(),
)
def test_scores_are_those_of_a_naive_count(
    seed: int, classes: int, size: tuple[int, int], void: bool, high: bool
) -> None:
    rng = np.random.default_rng(seed)
    ignore = 255 if high else classes
    true, pred = (rng.integers(0, classes + 1, size).astype(np.uint8) for _ in range(2))
    true[true == classes] = ignore
    matrix = filled(true, pred, classes, ignore, void=void)
    np.testing.assert_allclose(matrix.iou, naive_iou(true, pred, classes, ignore, void), rtol=1e-12)
    kept = true != ignore
    recall = [(pred[true == c] == c).mean() if (true == c).any() else math.nan for c in range(classes)]
    np.testing.assert_allclose(matrix.class_accuracy, recall, rtol=1e-12)
    scored = kept | (pred < classes) if void else kept
    accuracy = (true == pred)[kept].sum() / scored.sum() if scored.any() else math.nan
    np.testing.assert_allclose(matrix.pixel_accuracy, accuracy, rtol=1e-12)
    assert matrix.counts.sum() + matrix.void.sum() == true.size


def test_adding_matrices_is_updating_one() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 6, (2, 8, 9)).astype(np.uint8) for _ in range(3)]
    parts = [filled(true, pred, 5, 5) for true, pred in maps]
    whole = ConfusionMatrix(5)
    for true, pred in maps:
        whole.update(true, pred, 5)
    assert (parts[0] + parts[1] + parts[2]).to_json() == whole.to_json()
    with pytest.raises(UsageError, match="cannot be added"):
        _ = whole + ConfusionMatrix(6)
    with pytest.raises(UsageError, match="cannot be added"):
        _ = whole + whole.with_void_as_error()


def test_what_does_not_fit_is_refused() -> None:
    matrix = ConfusionMatrix(2)
    wide: Any = np.zeros((2, 2), np.int64)
    with pytest.raises(InputError, match="1x2 and 2x1"):
        matrix.update(labels((0, 1)), labels((0,), (1,)))
    with pytest.raises(InputError, match=r"holds 2, 255, expected 0..1; name the void label"):
        matrix.update(labels((0, 2, 255)), labels((0, 0, 0)))
    with pytest.raises(InputError, match="int64"):
        matrix.update(wide, labels((0, 0), (0, 0)))
    with pytest.raises(UsageError, match="got 4097"):
        ConfusionMatrix(4097)
    assert matrix.counts.sum() == 0


def test_sixteen_bit_maps_count_as_eight_bit_ones() -> None:
    wide = [np.array(rows, np.uint16) for rows in ([[0, 300, 999, 65535]], [[0, 300, 7, 12]])]
    matrix = ConfusionMatrix(1000)
    matrix.update(wide[0], wide[1], 65535)
    assert (matrix.counts[0, 0], matrix.counts[300, 300], matrix.counts[999, 7]) == (1, 1, 1)
    assert matrix.counts.sum() == 3
    assert matrix.void[12] == 1
    with pytest.raises(InputError, match=r"holds 1000, 65535, expected 0..999;"):
        matrix.update(np.array([[65535, 1000]], np.uint16), wide[1][:, :2])


def test_maps_of_eight_bits_may_have_more_classes_than_they_hold() -> None:
    matrix = ConfusionMatrix(300)
    matrix.update(labels((0, 1, 255)), labels((0, 200, 1)), 255)
    assert (matrix.counts[0, 0], matrix.counts[1, 200], matrix.void[1], matrix.counts.sum()) == (1, 1, 1, 2)


def test_frequency_weighted_iou_by_hand() -> None:
    matrix = filled(labels((0, 0, 0, 1), (1, 1, 2, 2)), labels((0, 0, 1, 1), (1, 0, 2, 2)), 4)
    assert matrix.frequency_weighted_iou == pytest.approx(3 / 8 * 1 / 2 + 3 / 8 * 1 / 2 + 2 / 8)
    assert math.isnan(ConfusionMatrix(3).frequency_weighted_iou)
    never_there = filled(labels((0, 0)), labels((0, 1)), 2)  # predicted, in no label map: its IoU is 0, its weight too
    assert never_there.frequency_weighted_iou == 1 / 2


def test_agreement() -> None:
    assert agreement(labels((0, 1), (2, 3)), labels((0, 1), (3, 3))) == (1, 4)
    with pytest.raises(InputError, match="sizes must agree"):
        agreement(labels((0, 1)), labels((0,)))
