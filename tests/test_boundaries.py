"""Boundary IoU against the published computation: one mask at a time, eroded step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.boundaries import BoundaryMatrix, boundary_width
from edgeseg.errors import InputError, UsageError

U8 = NDArray[np.uint8]


def labels(*rows: tuple[int, ...]) -> U8:
    return np.array(rows, np.uint8)


def _boundary(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The mask without its erosion by so many 3x3 steps; outside the picture is no mask."""
    eroded = np.pad(mask, 1)
    for _ in range(width):
        padded = np.pad(eroded, 1)
        shifts = [padded[y : y + eroded.shape[0], x : x + eroded.shape[1]] for y in range(3) for x in range(3)]
        eroded = np.all(shifts, axis=0)
    kept: NDArray[np.bool_] = mask & ~eroded[1:-1, 1:-1]
    return kept


def naive(pairs: list[tuple[U8, U8]], classes: int, ignore: int | None, part: float) -> list[float]:
    found = []
    for c in range(classes):
        hits = union = 0
        for true, pred in pairs:
            kept = np.ones(true.shape, bool) if ignore is None else true != ignore
            width = max(1, round(part * math.hypot(*true.shape)))
            a, b = (_boundary((each == c) & kept, width) for each in (true, pred))
            if c != ignore:
                hits, union = hits + int((a & b).sum()), union + int((a | b).sum())
        found.append(hits / union if union else math.nan)
    return found


def test_by_hand() -> None:
    """A square of 5x5 met one column to the right, its boundary one pixel wide: 16 pixels each, 8 of them the same."""
    true, pred = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    true[2:7, 2:7], pred[2:7, 3:8] = 1, 1
    matrix = BoundaryMatrix(2)
    matrix.update(true, pred)
    assert boundary_width(9, 9) == 1
    assert (matrix.hits[1], matrix.unions[1]) == (8, 24)
    assert matrix.iou[1] == 1 / 3


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 5),
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    part=st.sampled_from([0.02, 0.1, 0.3]),
    ignore=st.sampled_from([None, 0, 255]),
)
def test_boundaries_are_those_of_each_mask_alone(
    seed: int, classes: int, size: tuple[int, int], part: float, ignore: int | None
) -> None:
    rng = np.random.default_rng(seed)
    pairs = []
    matrix = BoundaryMatrix(classes, part)
    for _ in range(2):
        coarse = rng.integers(0, classes, (2, 3, 4)).astype(np.uint8)
        true, pred = (np.kron(each, np.ones((5, 5), np.uint8))[: size[0], : size[1]] for each in coarse)
        if ignore == 255:
            true = np.where(rng.random(true.shape) < 0.1, 255, true).astype(np.uint8)
        pairs.append((true, pred))
        matrix.update(true, pred, ignore)
    np.testing.assert_allclose(matrix.iou, naive(pairs, classes, ignore, part), rtol=1e-12)


def test_many_classes_count_as_few_ones() -> None:
    rng = np.random.default_rng(0)
    true, pred = (rng.integers(0, 3, (12, 9)).astype(np.uint8) for _ in range(2))
    few, many = BoundaryMatrix(3), BoundaryMatrix(300)
    few.update(true, pred, 2)
    many.update(true.astype(np.uint16), pred.astype(np.uint16), 2)
    assert many.hits[:3].tolist() == few.hits.tolist()
    assert many.unions[:3].tolist() == few.unions.tolist()
    mixed = BoundaryMatrix(300)
    mixed.update(true, pred.astype(np.uint16), 2)
    assert (mixed.hits.tolist(), mixed.unions.tolist()) == (many.hits.tolist(), many.unions.tolist())


def test_void_is_taken_out_of_both_maps() -> None:
    true, pred = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    true[2:5, 2:5], pred[2:5, 2:5] = 255, 1
    matrix = BoundaryMatrix(2)
    matrix.update(true, pred, 255)
    assert matrix.iou[0] == 1.0
    assert math.isnan(matrix.iou[1])
    assert matrix.miou == 1.0


def test_void_among_the_classes_is_not_scored() -> None:
    matrix = BoundaryMatrix(3)
    matrix.update(labels((0, 0, 1, 2)), labels((1, 0, 0, 2)), 0)
    assert math.isnan(matrix.iou[0])
    assert matrix.iou[1:].tolist() == [0.0, 1.0]


def test_nothing_but_void_gives_nan() -> None:
    matrix = BoundaryMatrix(2)
    assert math.isnan(matrix.miou)
    matrix.update(labels((255, 255)), labels((0, 1)), 255)
    assert math.isnan(matrix.miou)


def test_a_prediction_outside_the_classes_is_a_miss() -> None:
    matrix = BoundaryMatrix(2)
    matrix.update(labels((0, 0, 1)), labels((0, 2, 1)))
    assert matrix.iou.tolist() == [0.5, 1.0]


def test_a_picture_of_one_class_has_its_edge_as_outline() -> None:
    matrix = BoundaryMatrix(1)
    matrix.update(np.zeros((6, 7), np.uint8), np.zeros((6, 7), np.uint8))
    assert (matrix.hits[0], matrix.iou[0]) == (6 * 7 - 4 * 5, 1.0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="1x2 and 2x1"):
        BoundaryMatrix(2).update(labels((0, 1)), labels((0,), (1,)))
    with pytest.raises(UsageError, match="got 4097"):
        BoundaryMatrix(4097)
    with pytest.raises(UsageError, match="above 0"):
        BoundaryMatrix(2, 0.0)
