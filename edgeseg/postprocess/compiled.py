"""The sparse method of the postprocessing, compiled by numba where that is installed.

The functions here are plain Python that numba compiles. `load` does that once and keeps the result in numba's cache,
beside this file or in the user's folder. Nothing of numba is imported before. A compiled call releases the interpreter
lock. There is no fast-math: products and sums are rounded one by one, so every processor gives the same labels. Axes
are passed as tuples of arrays, since numba takes no dataclasses.
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
AxisRuns = tuple[Ints, Ints, Ints, F32, Ints]
"""Runs of output pixels of one axis: lower and higher input, first pixel, weights (longest run, runs), lengths."""

_WHY = "the compiled postprocessing"

# At most so many cells, and so many classes x cells, are gathered at once, so that their corners stay in cache.
_CELLS, _FLOATS = 512, 1 << 15


def is_usable() -> bool:
    """Tell whether numba is installed and compiles. Warn where it is installed and does not compile."""
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
    """Label (rows, columns) pixels from float32 (C, h, w) logits.

    Raises:
        TargetUnavailableError: numba is missing or does not import.
    """
    fill = load()
    dtype = label_dtype(len(field))
    if len(field) == 1:  # a constant second class turns the threshold into an argmax; ties go to label 0
        field = np.concatenate((np.full_like(field, postprocess.threshold), field))
    labels = np.empty((len(rows.low), len(columns.low)), dtype)
    most = int(np.clip(_FLOATS // len(field), 8, _CELLS))
    fill(field, _runs(rows), _runs(columns), most, labels)
    return labels


def _runs(axis: Axis) -> AxisRuns:
    runs = runs_of(axis)
    return runs.low, runs.high, np.ascontiguousarray(runs.pixels[0]), runs.t, runs.lengths


def keeps_code() -> bool:
    """Tell whether numba can keep what it compiles; else every process compiles anew, which takes seconds.

    Raises:
        TargetUnavailableError: numba is missing or does not import.
    """
    numba: Any = require("numba", extra="numba", why=_WHY)
    try:
        numba.njit(cache=True)(_fill_labels)  # compiles nothing yet
    except RuntimeError:
        return False
    return True


@functools.cache
def load() -> Kernel:
    """Compile `_fill_labels`, or read it from numba's cache.

    Raises:
        TargetUnavailableError: numba is missing or does not import.
    """
    numba: Any = require("numba", extra="numba", why=_WHY)
    from numba.extending import register_jitable

    for helper in (_coarse_argmax, _pixel_weights, _label_agreeing, _gather, _find_losers, _label_cell):
        register_jitable(helper)
    ints, floats = numba.int64[::1], numba.types.Array(numba.float32, 2, "C", readonly=True)
    axis = numba.types.Tuple((ints, ints, ints, floats, ints))
    field = numba.types.Array(numba.float32, 3, "C", readonly=True)
    kinds = (numba.uint8, numba.uint16)
    signatures = [numba.void(field, axis, axis, numba.int64, kind[:, ::1]) for kind in kinds]
    options = {"nogil": True, "error_model": "numpy"}
    try:
        compiled = numba.njit(signatures, cache=True, **options)(_fill_labels)
    except RuntimeError:  # neither this folder nor the user's cache can be written: compiled anew in every process
        compiled = numba.njit(signatures, **options)(_fill_labels)
    return cast(Kernel, compiled)


def _fill_labels(field: F32, rows: AxisRuns, columns: AxisRuns, most: int, labels: LabelMap) -> None:
    """Label every cell: at once where its four corners agree, else by the classes that may win inside it.

    Args:
        field: (C, h, w), C at least 2.
        rows: Runs of output rows between two rows of logits.
        columns: Runs of output columns between two columns of logits.
        most: Cells gathered at once.
        labels: uint8 or uint16 (H, W), filled.
    """
    classes = field.shape[0]
    y_low, y_high, y_first, y_t, y_count = rows
    x_low, x_high, x_first, x_t, x_count = columns
    deep, wide, runs = y_t.shape[0], x_t.shape[0], len(x_low)
    coarse = np.empty(field.shape[1:], labels.dtype)
    _coarse_argmax(field, coarse)
    ty, tx = np.empty(deep * wide, np.float32), _pixel_weights(x_t, deep)
    best, winner = np.empty(deep * wide, np.float32), np.empty(deep * wide, np.int32)
    corners, winners = np.empty((4, classes, most), np.float32), np.empty((4, most), np.float32)
    tops, lost = np.empty((4, 4, most), np.float32), np.empty((classes, most), np.float32)
    open_cells = np.empty(runs, np.int64)
    for i in range(len(y_low)):
        top, height = y_first[i], y_count[i]
        pair = (coarse[y_low[i]], coarse[y_high[i]])
        count = _label_agreeing(pair, columns, labels[top : top + height], open_cells)
        for k in range(deep * wide):
            ty[k] = y_t[k // wide, i]
        for start in range(0, count, most):
            cells = open_cells[start : min(start + most, count)]
            _gather(field, pair, (y_low[i], y_high[i]), (x_low, x_high), cells, (corners, winners, tops))
            _find_losers(corners, winners, tops, len(cells), lost)
            for m in range(len(cells)):
                j = cells[m]
                _label_cell(corners, lost, m, ty, tx[j], best, winner)
                for y in range(height):
                    for x in range(x_count[j]):
                        labels[top + y, x_first[j] + x] = winner[y * wide + x]


def _pixel_weights(x_t: F32, deep: int) -> F32:
    """Repeat the column weights of every run, (wide, runs), for every pixel of its cells: (runs, deep * wide).

    With one weight per pixel the loop over a cell is one long one.
    """
    wide, runs = x_t.shape
    tx = np.empty((runs, deep * wide), np.float32)
    for j in range(runs):
        for k in range(deep * wide):
            tx[j, k] = x_t[k % wide, j]
    return tx


def _label_agreeing(pair: tuple[LabelMap, LabelMap], columns: AxisRuns, strip: LabelMap, open_cells: Ints) -> int:
    """Label the output rows between two rows of logits as if all corners agreed.

    Args:
        pair: Argmax of the upper and of the lower row of logits.
        columns: Runs of output columns.
        strip: (rows, W), filled with the label of each cell's upper left corner.
        open_cells: Filled with the cells whose corners disagree.

    Returns:
        The number of those cells.
    """
    x_low, x_high, x_first, _, x_count = columns
    upper, lower = pair
    count = 0
    for j in range(len(x_low)):
        label = upper[x_low[j]]
        for k in range(x_first[j], x_first[j] + x_count[j]):
            strip[0, k] = label
        right, below = upper[x_high[j]], lower[x_low[j]]
        if right != label or below != label or lower[x_high[j]] != label:
            open_cells[count] = j
            count += 1
    for y in range(1, len(strip)):
        strip[y] = strip[0]
    return count


def _coarse_argmax(field: F32, coarse: LabelMap) -> None:
    """Take the argmax over the classes, the lowest winning ties: (C, h, w) to (h, w)."""
    classes, h, w = field.shape
    best, winner = np.empty(w, np.float32), np.empty(w, np.int32)
    for y in range(h):
        for x in range(w):
            best[x] = field[0, y, x]
            winner[x] = 0
        for c in range(1, classes):
            for x in range(w):
                value = field[c, y, x]
                winner[x] = c if value > best[x] else winner[x]
                best[x] = value if value > best[x] else best[x]
        for x in range(w):
            coarse[y, x] = winner[x]


def _gather(
    field: F32,
    pair: tuple[LabelMap, LabelMap],
    rows: tuple[int, int],
    columns: tuple[Ints, Ints],
    cells: Ints,
    out: tuple[F32, F32, F32],
) -> None:
    """Collect what decides some cells between two rows of logits, class by class.

    Args:
        field: (C, h, w).
        pair: Argmax of the upper and of the lower row of logits.
        rows: Upper and lower row of logits.
        columns: Left and right column of logits of each run of output columns.
        cells: Runs of output columns to collect for.
        out: Filled: values at the four corners (4, C, cells), the winner of each corner (4, cells), and the four
            values of each corner's winner (4, 4, cells).
    """
    corners, winners, tops = out
    upper, lower = pair
    y0, y1 = rows
    x_low, x_high = columns
    for m in range(len(cells)):
        x0, x1 = x_low[cells[m]], x_high[cells[m]]
        winners[0, m], winners[1, m] = upper[x0], upper[x1]
        winners[2, m], winners[3, m] = lower[x0], lower[x1]
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
    """Mark with 1 the classes that some corner's winner beats at all four corners.

    Its lead is interpolated between them, so it beats them in the whole cell. The higher class loses a tie. "Not below
    zero" is written as "above the largest negative float", so that one comparison serves both. A processor that
    flushes denormals keeps a class more, which costs time and changes no label.
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


def _label_cell(corners: F32, lost: F32, m: int, ty: F32, tx: F32, best: F32, winner: NDArray[np.int32]) -> None:
    """Interpolate the classes of cell `m` that may win, and keep the lowest class of the largest value.

    Args:
        corners: (4, C, cells) logits.
        lost: (C, cells): 1 where a class cannot win.
        m: The cell.
        ty: Weight of the lower row for each pixel of the cell.
        tx: Weight of the right column for each pixel.
        best: Filled: the largest value of each pixel.
        winner: Filled: its class.
    """
    fresh = True
    for c in range(corners.shape[1]):
        if lost[c, m] > 0:
            continue
        base = corners[0, c, m]
        across, down = corners[1, c, m] - base, corners[2, c, m] - base
        twist = (corners[3, c, m] - corners[1, c, m]) - down
        if fresh:
            for k in range(len(best)):
                best[k] = (base + ty[k] * down) + tx[k] * (across + ty[k] * twist)
                winner[k] = c
            fresh = False
            continue
        for k in range(len(best)):
            value = (base + ty[k] * down) + tx[k] * (across + ty[k] * twist)
            above = value > best[k]
            best[k] = value if above else best[k]
            winner[k] = c if above else winner[k]
