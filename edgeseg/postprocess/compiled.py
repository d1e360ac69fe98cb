"""The sparse way of the postprocessing compiled by numba, where numba is installed: two to four times as fast as numpy.

The functions here are plain Python that numba compiles: `load` does so once (about two seconds, kept in numba's cache
beside this file or in the user's), and every call after it lets go of the interpreter lock. Nothing of numba is
imported before. No fast-math: products and sums are rounded one by one, so every processor gives the same labels.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeseg._optional import is_installed, require
from edgeseg.errors import TargetUnavailableError
from edgeseg.labels import LabelMap, label_dtype
from edgeseg.postprocess.axes import F32, Axis, runs_of
from edgeseg.specs import PostprocessSpec

Ints = NDArray[np.int64]
Kernel = Callable[..., None]

_CELLS, _FLOATS = 512, 1 << 15  # most cells, and classes x cells, gathered at once, so that their corners stay in cache


def is_usable() -> bool:
    """Whether numba is there and compiles; False with a warning where it is there and does not."""
    return is_installed("numba") and _usable()


@functools.cache
def _usable() -> bool:
    try:
        load()
    except TargetUnavailableError as error:
        warnings.warn(
            f"{error}; until then the postprocessing runs in numpy, at a half to a quarter of the speed", stacklevel=2
        )
        return False
    return True


def compiled_labels(field: F32, rows: Axis, columns: Axis, postprocess: PostprocessSpec) -> LabelMap:
    """Labels (rows, columns) of float32 (C, h, w) logits.

    Raises:
        TargetUnavailableError: numba is missing or does not import.
    """
    fill = load()
    dtype = label_dtype(len(field))
    if len(field) == 1:  # a constant second class turns the threshold into an argmax; ties go to label 0
        field = np.concatenate((np.full_like(field, postprocess.threshold), field))
    down, across = runs_of(rows), runs_of(columns)
    labels = np.empty((len(rows.low), len(columns.low)), dtype)
    most = int(np.clip(_FLOATS // len(field), 8, _CELLS))
    edges = [
        (axis.low, axis.high, np.ascontiguousarray(axis.pixels[0]), axis.t, axis.lengths) for axis in (down, across)
    ]
    fill(field, *edges[0], *edges[1], most, labels)
    return labels


@functools.cache
def load() -> Kernel:
    """The compiled `_fill_labels`.

    Raises:
        TargetUnavailableError: numba is missing or does not import.
    """
    numba: Any = require("numba", extra="numba", why="the compiled postprocessing")
    from numba.extending import register_jitable

    for helper in (_coarse_argmax, _gather, _find_losers, _label_cell):
        register_jitable(helper)
    ints, floats = numba.int64[::1], numba.types.Array(numba.float32, 2, "C", readonly=True)
    axis = (ints, ints, ints, floats, ints)
    field = numba.types.Array(numba.float32, 3, "C", readonly=True)
    kinds = (numba.uint8, numba.uint16)
    signatures = [numba.void(field, *axis, *axis, numba.int64, kind[:, ::1]) for kind in kinds]
    options = {"nogil": True, "error_model": "numpy"}
    try:
        compiled = numba.njit(signatures, cache=True, **options)(_fill_labels)
    except RuntimeError:  # neither this folder nor the user's cache can be written: compiled anew in every process
        compiled = numba.njit(signatures, **options)(_fill_labels)
    return cast(Kernel, compiled)


def _fill_labels(  # one argument per array: numba takes no dataclasses
    field: F32,
    y_low: Ints,
    y_high: Ints,
    y_first: Ints,
    y_t: F32,
    y_count: Ints,
    x_low: Ints,
    x_high: Ints,
    x_first: Ints,
    x_t: F32,
    x_count: Ints,
    most: int,
    labels: LabelMap,
) -> None:
    """Label every cell: at once where its four corners agree, else by the classes that may win inside it.

    Args:
        field: (C, h, w), C at least 2.
        y_low: Upper row of logits of each run of output rows; `x_low` the left column, and so on for every ``x_``.
        y_high: Lower row.
        y_first: First output row of the run.
        y_t: (longest run, runs) weights of the lower row.
        y_count: Output rows of the run.
        x_low: Left column of logits.
        x_high: Right column.
        x_first: First output column.
        x_t: Weights of the right column.
        x_count: Output columns.
        most: Cells gathered at once.
        labels: uint8 or uint16 (H, W), filled.
    """
    classes = field.shape[0]
    deep, wide, runs = y_t.shape[0], x_t.shape[0], len(x_low)
    coarse = np.empty(field.shape[1:], labels.dtype)
    _coarse_argmax(field, coarse)
    ty, tx = np.empty(deep * wide, np.float32), np.empty((runs, deep * wide), np.float32)
    for j in range(runs):  # one weight per pixel of a cell, so that the loop over a cell is one long one
        for k in range(deep * wide):
            tx[j, k] = x_t[k % wide, j]
    best, found = np.empty(deep * wide, np.float32), np.empty(deep * wide, np.int32)
    corners, winners = np.empty((4, classes, most), np.float32), np.empty((4, most), np.float32)
    tops, lost = np.empty((4, 4, most), np.float32), np.empty((classes, most), np.float32)
    open_cells = np.empty(runs, np.int64)
    for i in range(len(y_low)):
        y0, y1, top, rows = y_low[i], y_high[i], y_first[i], y_count[i]
        count = 0
        for j in range(runs):
            label = coarse[y0, x_low[j]]
            for k in range(x_first[j], x_first[j] + x_count[j]):
                labels[top, k] = label
            right, below = coarse[y0, x_high[j]], coarse[y1, x_low[j]]
            if right != label or below != label or coarse[y1, x_high[j]] != label:
                open_cells[count] = j
                count += 1
        for y in range(top + 1, top + rows):
            labels[y] = labels[top]
        for k in range(deep * wide):
            ty[k] = y_t[k // wide, i]
        for start in range(0, count, most):
            cells = open_cells[start : min(start + most, count)]
            _gather(field, coarse, y0, y1, x_low, x_high, cells, corners, winners, tops)
            _find_losers(corners, winners, tops, len(cells), lost)
            for m in range(len(cells)):
                j = cells[m]
                _label_cell(corners, lost, m, ty, tx, j, best, found)
                for y in range(rows):
                    for x in range(x_count[j]):
                        labels[top + y, x_first[j] + x] = found[y * wide + x]


def _coarse_argmax(field: F32, coarse: LabelMap) -> None:
    """Argmax over the classes, the lowest winning ties: (C, h, w) to (h, w)."""
    classes, h, w = field.shape
    best, found = np.empty(w, np.float32), np.empty(w, np.int32)
    for y in range(h):
        for x in range(w):
            best[x] = field[0, y, x]
            found[x] = 0
        for c in range(1, classes):
            for x in range(w):
                value = field[c, y, x]
                found[x] = c if value > best[x] else found[x]
                best[x] = value if value > best[x] else best[x]
        for x in range(w):
            coarse[y, x] = found[x]


def _gather(
    field: F32,
    coarse: LabelMap,
    y0: int,
    y1: int,
    x_low: Ints,
    x_high: Ints,
    cells: Ints,
    corners: F32,
    winners: F32,
    tops: F32,
) -> None:
    """Corner values of some cells of one row, class by class, the winner of each corner, and its four values."""
    for m in range(len(cells)):
        x0, x1 = x_low[cells[m]], x_high[cells[m]]
        winners[0, m], winners[1, m] = coarse[y0, x0], coarse[y0, x1]
        winners[2, m], winners[3, m] = coarse[y1, x0], coarse[y1, x1]
    for c in range(field.shape[0]):
        for m in range(len(cells)):
            x0, x1 = x_low[cells[m]], x_high[cells[m]]
            corners[0, c, m], corners[1, c, m] = field[c, y0, x0], field[c, y0, x1]
            corners[2, c, m], corners[3, c, m] = field[c, y1, x0], field[c, y1, x1]
    for q in range(4):
        for corner in range(4):
            for m in range(len(cells)):
                tops[q, corner, m] = corners[corner, np.int64(winners[q, m]), m]


def _find_losers(corners: F32, winners: F32, tops: F32, count: int, lost: F32) -> None:
    """Mark (1) the classes that some corner's winner beats at all four corners; its lead is convex, so everywhere.

    A tie is lost by the higher class. "Not below zero" is written as "above the largest negative float", so that one
    comparison serves both; a processor that flushes denormals keeps a class more, which costs time and no label.
    """
    none, least, one = np.float32(0.0), np.float32(-1.4e-45), np.float32(1.0)
    for c in range(corners.shape[1]):
        label = np.float32(c)
        for m in range(count):
            lost[c, m] = none
        for q in range(4):
            for m in range(count):
                lead = tops[q, 0, m] - corners[0, c, m]
                other = tops[q, 1, m] - corners[1, c, m]
                lead = other if other < lead else lead
                other = tops[q, 2, m] - corners[2, c, m]
                lead = other if other < lead else lead
                other = tops[q, 3, m] - corners[3, c, m]
                lead = other if other < lead else lead
                limit = least if label > winners[q, m] else none
                lost[c, m] = one if lead > limit else lost[c, m]


def _label_cell(corners: F32, lost: F32, m: int, ty: F32, tx: F32, j: int, best: F32, found: NDArray[np.int32]) -> None:
    """Interpolate the classes of cell `m` that may win, and keep the first of the largest."""
    fresh = True
    for c in range(corners.shape[1]):
        if lost[c, m] > 0:
            continue
        base = corners[0, c, m]
        across, down = corners[1, c, m] - base, corners[2, c, m] - base
        twist = (corners[3, c, m] - corners[1, c, m]) - down
        if fresh:
            for k in range(len(best)):
                best[k] = (base + ty[k] * down) + tx[j, k] * (across + ty[k] * twist)
                found[k] = c
            fresh = False
            continue
        for k in range(len(best)):
            value = (base + ty[k] * down) + tx[j, k] * (across + ty[k] * twist)
            above = value > best[k]
            best[k] = value if above else best[k]
            found[k] = c if above else found[k]
