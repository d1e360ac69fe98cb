"""The sparse method of the postprocessing, in numpy: only the cells whose corners disagree are interpolated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.labels import LabelMap, label_dtype
from edgeseg.postprocess.axes import F32, Axis, Index, Runs, runs_of
from edgeseg.specs import PostprocessSpec

_PIXELS = 1 << 16  # interpolated at once: 256 KiB of float32

# Cost model of `auto`: relative prices of one thread, fitted to CPU times of maps with rising disagreement
# (docs/export.md has the times). Dense: `_DENSE` per pixel and class, plus two. Sparse, per disagreeing cell: a price
# per class, one per pixel, and one for the cell.
_DENSE = 0.55
_CELL_CLASS, _CELL_PIXEL, _CELL = 40.0, 9.5, 250.0


def coarse_argmax(field: F32, postprocess: PostprocessSpec) -> LabelMap:
    """Take the argmax over the classes, uint8 (h, w), as a running maximum in pieces that stay in cache."""
    classes, h, w = field.shape
    if classes == 1:
        above: NDArray[np.bool_] = field[0] > np.float32(postprocess.threshold)
        return above.view(np.uint8)
    flat = field.reshape(classes, -1)
    labels = np.zeros(h * w, label_dtype(classes))
    for start in range(0, h * w, _PIXELS):
        part = flat[:, start : start + _PIXELS]
        run_maximum(part[0].copy(), labels[start : start + _PIXELS], enumerate(part[1:], 1))
    return labels.reshape(h, w)


def run_maximum(best: F32, labels: LabelMap, values: Iterable[tuple[int, F32]]) -> None:
    """Fill `labels`, zero before, with the class of the largest value, the lowest winning ties; `best` changes.

    Classes come in rising order, so the label of a new maximum is above every label before it. The update is therefore
    the maximum of two uint8 arrays: four times less memory traffic than a masked copy, and vectorised by numpy.
    """
    above = np.empty(best.shape, bool)
    flags = above.view(np.uint8)
    stamp = flags if labels.dtype == np.uint8 else np.empty(best.shape, labels.dtype)
    for label, value in values:
        np.greater(value, best, out=above)
        np.maximum(best, value, out=best)
        np.multiply(flags, labels.dtype.type(label), out=stamp)
        np.maximum(labels, stamp, out=labels)


def repeat_labels(coarse: LabelMap, rows: Axis, columns: Axis) -> LabelMap:
    """Look up the label of every output pixel that falls on a logit; return the map itself where the sizes agree."""
    if (len(rows.low), len(columns.low)) == coarse.shape:  # unused rows are gone, so this is the identity
        return coarse
    labels: LabelMap = coarse[rows.low][:, columns.low]
    return labels


@dataclass(frozen=True)
class Cells:
    """The cells between logits, and which of them have corners that disagree.

    Attributes:
        rows: Runs of output rows.
        columns: Runs of output columns.
        labels: uint8 or uint16 (row runs, column runs): label of the upper left corner.
        y: Row run of each disagreeing cell.
        x: Column run of each disagreeing cell.
    """

    rows: Runs
    columns: Runs
    labels: LabelMap
    y: Index
    x: Index

    @classmethod
    def find(cls, coarse: LabelMap, row_axis: Axis, column_axis: Axis) -> Cells:
        """Compare the four corners of every cell."""
        rows, columns = runs_of(row_axis), runs_of(column_axis)
        upper, lower = coarse[rows.low], coarse[rows.high]
        labels = upper[:, columns.low]
        differ = upper[:, columns.high] != labels
        differ |= lower[:, columns.low] != labels
        differ |= lower[:, columns.high] != labels
        y, x = np.divmod(np.flatnonzero(differ), len(columns.low))
        return cls(rows, columns, labels, y, x)

    def price(self, classes: int) -> float:
        """Estimate the cost of interpolating the disagreeing cells, in units of the prices above."""
        return len(self.y) * (_CELL_CLASS * classes + _CELL_PIXEL * self.area + _CELL)

    def cheaper(self, classes: int) -> bool:
        """Estimate whether the sparse method is faster than the dense one, from `_DENSE` and `price`."""
        pixels = int(self.rows.lengths.sum()) * int(self.columns.lengths.sum())
        return self.price(classes) < _DENSE * pixels * (classes + 2)

    @property
    def area(self) -> int:
        """Pixels of the largest cell."""
        return int(self.rows.pixels.shape[0] * self.columns.pixels.shape[0])


def interpolate_cells(field: F32, coarse: LabelMap, cells: Cells, postprocess: PostprocessSpec) -> LabelMap:
    """Label all pixels: those of agreeing cells at once, those of disagreeing cells by interpolation."""
    labels = cells.labels.repeat(cells.columns.lengths, axis=1).repeat(cells.rows.lengths, axis=0)
    if len(field) == 1:  # a constant second class turns the threshold into an argmax; ties go to label 0
        field = np.concatenate((np.full_like(field, postprocess.threshold), field))
    step = max(1, min(_PIXELS // cells.area, _PIXELS // len(field)))
    for start in range(0, len(cells.y), step):
        _fill(field, coarse, cells, slice(start, start + step), labels)
    return labels


def _fill(field: F32, coarse: LabelMap, cells: Cells, part: slice, labels: LabelMap) -> None:
    """Label the pixels of some disagreeing cells."""
    y, x = cells.y[part], cells.x[part]
    width = field.shape[2]
    rows, columns = cells.rows, cells.columns
    upper, lower = rows.low[y] * width, rows.high[y] * width
    left, right = columns.low[x], columns.high[x]
    points = np.stack((upper + left, upper + right, lower + left, lower + right))
    corners = field.reshape(len(field), -1).take(points, axis=1)
    possible = _possible(corners, coarse.reshape(-1).take(points))
    counts = possible.sum(axis=0)
    order = np.argsort(-counts, kind="stable")  # many candidates first: round r then works on a leading part
    y, x, counts = y[order], x[order], counts[order]
    candidates = np.nonzero(possible.T[order])[1]
    first = np.cumsum(counts) - counts
    ty, tx = rows.t[:, y][:, None], columns.t[:, x][None]
    best: F32 = np.empty(0, np.float32)
    winner: LabelMap = np.empty(0, labels.dtype)
    for turn in range(int(counts[0])):
        n = int(np.searchsorted(-counts, -turn, side="left"))
        classes = candidates[first[:n] + turn]
        values = _between(corners[classes, :, order[:n]], ty[..., :n], tx[..., :n])
        if turn == 0:
            best, winner = values, np.empty(values.shape, labels.dtype)
            winner[:] = classes
        else:
            _update(best[..., :n], winner[..., :n], values, classes.astype(winner.dtype))
    target = (rows.pixels[:, y] * labels.shape[1])[:, None] + columns.pixels[:, x][None]
    labels.reshape(-1)[target] = winner


def _possible(corners: F32, winners: LabelMap) -> NDArray[np.bool_]:
    """Find the classes that no corner's winner beats at all four corners of the cell: bool (C, K).

    Args:
        corners: (C, 4, K) logits.
        winners: (4, K) argmax at each corner.
    """
    classes, _, count = corners.shape
    possible = np.ones((classes, count), bool)
    index, cell = np.arange(classes)[:, None], np.arange(count)
    for winner in winners:
        lead = (corners[winner, :, cell].T - corners).min(axis=1)
        beaten = lead > 0
        beaten |= (lead == 0) & (index > winner)
        possible &= ~beaten
    return possible


def _between(corners: F32, ty: F32, tx: F32) -> F32:
    """Interpolate (K, 4) corners at ty (rows, 1, K) and tx (1, columns, K): (rows, columns, K)."""
    a, b, c, d = corners.T
    left = a + ty * (c - a)
    right = b + ty * (d - b)
    right -= left
    values: F32 = tx * right
    values += left
    return values


def _update(best: F32, winner: LabelMap, values: F32, classes: LabelMap) -> None:
    above = values > best
    np.maximum(best, values, out=best)
    flags = above.view(np.uint8)
    stamp = flags if winner.dtype == np.uint8 else np.empty(winner.shape, winner.dtype)
    np.multiply(flags, classes, out=stamp)
    np.maximum(winner, stamp, out=winner)
