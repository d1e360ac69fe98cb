"""The exact tail: logits of any size to labels of any size, without the full class x height x width tensor.

The answer is that of "bilinear resize of the logits, then argmax over the classes, the lowest index winning ties", in
float32. There are two ways to it:

- dense: tiles of the output that stay in cache; two small matrix products per tile interpolate, a running maximum over
  the classes labels.
- sparse: argmax at the logits' own resolution. Bilinear weights are convex, so a class that wins at all four corners of
  a cell wins everywhere in it. Only cells whose corners disagree are interpolated, and there only the classes that no
  corner's winner beats at all four corners.

Both differ from exact arithmetic by float32 rounding alone. numpy only; every buffer belongs to its call, so calls may
run side by side. One thread per call: pieces small enough for the cache are numpy calls so short that a second thread
spends its time waiting for the interpreter lock (dense, 19 classes to 512x1024: 5.6 ms with one, 15 ms with two).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.labels import MOST_CLASSES, LabelMap, label_dtype
from edgeseg.specs import Size, TailSpec

__all__ = ["Band", "Method", "Region", "interpolation_bands", "labels_from_logits", "scores_from_logits"]

Method = Literal["auto", "dense", "sparse"]

F32 = NDArray[np.float32]
Index = NDArray[np.intp]
Band = tuple[slice, slice, F32]
"""Some outputs of an axis, the inputs they look at, and the (inputs, outputs) matrix between them."""

_RUN = 64  # longest stretch of rows or columns handled as one cell, so that huge strides keep memory bounded
_PIXELS = 1 << 16  # interpolated at once in the sparse way: 256 KiB of float32
_GEMM = 250_000  # multiply-adds per product; OpenBLAS starts its own (spinning) threads above 262144
_STRIP = 32  # output rows per tile of the dense way; 8 where all classes are kept for the scores

# What `auto` goes by: nanoseconds of one thread, fitted to CPU times on an AVX-512 Xeon (2 cores, 2.6 GHz) over maps of
# rising disagreement. Dense, per pixel and class (plus two): 19 classes to 512x1024 take 5.3 ms, 150 to 512x512 24 ms.
# Sparse, per disagreeing cell: 40 per class, 9.5 per pixel, 250 besides. They meet where 45 % of the cells disagree at
# 19 classes and stride 8 (measured 4.7 ms sparse against 5.3 dense at 39 %, 6.6 against 5.8 at 53 %), at 16 % with
# stride 4 (5.2 against 8.8 at 16 %, 8.3 against 8.7 at 27 %), at 76 % with 150 classes (15.9 against 24.7 at 67 %, 43
# against 27 at 96 %) and at 7 % with 2 classes and stride 4 (1.0 against 1.4 at 5.5 %, 1.8 against 1.3 at 8.8 %).
_DENSE = 0.55


@dataclass(frozen=True)
class Region:
    """The rectangle of the network's input that holds the picture, after a letterbox.

    Attributes:
        net_size: Height x width of the network's input.
        top: First row of the picture in the input, network pixels.
        left: First column.
        height: Rows the picture covers.
        width: Columns the picture covers.
    """

    net_size: Size
    top: float
    left: float
    height: float
    width: float


@dataclass(frozen=True)
class _Axis:
    """Interpolation along one axis: output pixel i is ``(1 - t[i]) * in[low[i]] + t[i] * in[high[i]]``."""

    low: Index
    high: Index
    t: F32

    @property
    def exact(self) -> bool:
        """Whether every output falls on an input, so that nothing is to be interpolated."""
        return not self.t.any()


@dataclass(frozen=True)
class _Runs:
    """Output pixels of one axis grouped by the pair of inputs they lie between.

    `pixels` and `t` are (longest run, runs); shorter runs repeat their last pixel.
    """

    low: Index
    high: Index
    pixels: Index
    t: F32
    lengths: Index


def labels_from_logits(
    logits: F32, size: Size, *, tail: TailSpec, region: Region | None = None, method: Method = "auto"
) -> LabelMap:
    """Resize logits bilinearly to `size` and take the argmax, exactly.

    Source positions are those of ``torch.nn.functional.interpolate``: ``(y + 0.5) * h / H - 0.5`` clamped to
    ``[0, h - 1]``, or ``y * (h - 1) / (H - 1)`` with `tail.align_corners`; shrinking has no antialias, as there.

    Args:
        logits: float32 (or float16) (C, h, w), finite, 1 to 65535 classes. One class means two labels: 1 where the
            resized logit is above `tail.threshold`.
        size: Height x width of the labels.
        tail: The recorded tail of the network.
        region: Part of the network's input to cut out: output row y lies at network row
            ``top + (y + 0.5) * height / H - 0.5``, which is then looked up in the logits.
        method: ``auto`` takes the faster way for these logits.

    Returns:
        uint8 (H, W), uint16 above 255 classes: class index per pixel; equal logits go to the lowest index.

    Raises:
        UsageError: Wrong shape, type, number of classes or size; NaN or infinity among the logits.
    """
    field, rows, columns = _prepare(logits, size, tail, region)
    if method not in ("auto", "dense", "sparse"):
        raise UsageError(f"tail method '{method}' is none of auto, dense, sparse")
    coarse = None if method == "dense" and not (rows.exact and columns.exact) else _argmax(field, tail)
    if coarse is not None and rows.exact and columns.exact:
        return _spread(coarse, rows, columns)
    if coarse is not None:
        cells = _Cells.find(coarse, rows, columns)
        if method == "sparse" or cells.cheaper(len(field)):
            return _sparse(field, coarse, cells, tail)
    return _dense(field, rows, columns, tail)


def scores_from_logits(
    logits: F32, size: Size, *, tail: TailSpec, region: Region | None = None, method: Method = "auto"
) -> tuple[LabelMap, F32]:
    """Labels as `labels_from_logits` gives them, and how sure the network is of each.

    Arguments and errors are those of `labels_from_logits`. All classes are needed at all pixels here, so this takes
    the dense way for the scores whatever `method` says of the labels.

    Returns:
        Labels as `labels_from_logits` gives them, and scores, float32 (H, W) in 0..1: the softmax probability of the
        label, computed from the resized logits. One class: ``sigmoid(logit)`` where the label is 1, else one minus it.
    """
    field, rows, columns = _prepare(logits, size, tail, region)
    scores = np.empty((len(rows.low), len(columns.low)), np.float32)
    labels = _dense(field, rows, columns, tail, scores)
    if method != "dense" and method != "auto":
        labels = labels_from_logits(logits, size, tail=tail, region=region, method=method)
    return labels, scores


def interpolation_bands(n: int, out: int, align_corners: bool, length: int) -> list[Band]:
    """Bilinear interpolation along one axis as small matrices.

    Args:
        n: Inputs.
        out: Outputs.
        align_corners: As in `labels_from_logits`.
        length: Outputs per band.
    """
    return _bands(_axis(_positions(n, out, align_corners, None), n), length)


# --- positions ---------------------------------------------------------------------------------------------------


def _prepare(logits: F32, size: Size, tail: TailSpec, region: Region | None) -> tuple[F32, _Axis, _Axis]:
    field = _checked(logits)
    if min(size) < 1:
        raise UsageError(f"labels of {size[0]}x{size[1]} were asked for; height and width must be at least 1")
    _, h, w = field.shape
    spans: tuple[tuple[int, float, float] | None, ...] = (None, None)
    if region is not None:
        if min(region.height, region.width) <= 0 or min(region.net_size) < 1:
            raise UsageError(f"the region {region} is empty; its height and width must be above 0")
        net = region.net_size
        spans = (net[0], region.top, region.height), (net[1], region.left, region.width)
    rows = _axis(_positions(h, size[0], tail.align_corners, spans[0]), h)
    columns = _axis(_positions(w, size[1], tail.align_corners, spans[1]), w)
    return _used(field, rows, columns)


def _checked(logits: Any) -> F32:
    if not isinstance(logits, np.ndarray) or logits.ndim != 3 or 0 in logits.shape:
        got = f"shape {logits.shape}" if isinstance(logits, np.ndarray) else type(logits).__name__
        raise UsageError(f"logits must be a numpy array of shape (classes, height, width), got {got}")
    if logits.dtype not in (np.float32, np.float16):
        raise UsageError(f"logits must be float32, got {logits.dtype}; convert them with .astype(numpy.float32)")
    if logits.shape[0] > MOST_CLASSES:
        raise UsageError(f"labels are uint16, so at most {MOST_CLASSES} classes fit; the logits have {logits.shape[0]}")
    field = np.ascontiguousarray(logits, np.float32)
    if not (np.isfinite(field.min()) and np.isfinite(field.max())):  # 1 % of the tail's time
        raise UsageError("the logits hold NaN or infinity; an fp16 network that overflows does this: use fp32")
    return field


def _positions(n: int, out: int, align_corners: bool, span: tuple[int, float, float] | None) -> NDArray[np.float64]:
    """Where each of `out` pixels lies among `n` logits; `span` is net length, start and length of the region."""
    steps = np.arange(out, dtype=np.float64)
    if span is not None:
        net, start, length = span
        steps = start + (steps + 0.5) * length / out - 0.5
        out = net
    if align_corners:
        return steps * ((n - 1) / (out - 1)) if out > 1 else np.zeros_like(steps)
    return (steps + 0.5) * (n / out) - 0.5


def _axis(positions: NDArray[np.float64], n: int) -> _Axis:
    whole = np.floor(np.clip(positions, -1.0, n))
    low = np.clip(whole, 0, n - 1).astype(np.intp)
    high = np.clip(whole + 1, 0, n - 1).astype(np.intp)
    t = np.where(low == high, 0.0, positions - whole).astype(np.float32)
    return _Axis(low, high, t)


def _used(field: F32, rows: _Axis, columns: _Axis) -> tuple[F32, _Axis, _Axis]:
    """Drop the logits that no output pixel looks at: most of them when shrinking, the padding of a letterbox."""
    short_rows, keep_rows = _compact(rows, field.shape[1])
    short_columns, keep_columns = _compact(columns, field.shape[2])
    if keep_rows is not None:
        field = field[:, keep_rows]
    if keep_columns is not None:
        field = np.ascontiguousarray(field[:, :, keep_columns])
    return field, short_rows, short_columns


def _compact(axis: _Axis, n: int) -> tuple[_Axis, Index | None]:
    seen = np.zeros(n, bool)
    seen[axis.low] = True
    seen[axis.high[axis.t != 0]] = True
    if seen.all():
        return axis, None
    place = np.cumsum(seen) - 1
    high = np.where(axis.t != 0, axis.high, axis.low)
    return _Axis(place[axis.low], place[high], axis.t), np.flatnonzero(seen)


def _runs(axis: _Axis) -> _Runs:
    change = (np.diff(axis.low) != 0) | (np.diff(axis.high) != 0)
    starts = np.concatenate(([0], np.flatnonzero(change) + 1))
    first = starts
    lengths = np.diff(np.append(starts, len(axis.low)))
    if lengths.max() > _RUN:
        pieces = [np.arange(at, at + n, _RUN) for at, n in zip(starts, lengths, strict=True)]
        first = np.concatenate(pieces)
        lengths = np.diff(np.append(first, len(axis.low)))
    pixels = first + np.minimum(np.arange(lengths.max())[:, None], lengths - 1)
    return _Runs(axis.low[first], axis.high[first], pixels, axis.t[pixels], lengths)


# --- argmax at the logits' own resolution ------------------------------------------------------------------------


def _argmax(field: F32, tail: TailSpec) -> LabelMap:
    """uint8 (h, w): argmax over the classes, a running maximum in pieces that stay in cache."""
    classes, h, w = field.shape
    if classes == 1:
        above: NDArray[np.bool_] = field[0] > np.float32(tail.threshold)
        return above.view(np.uint8)
    flat = field.reshape(classes, -1)
    labels = np.zeros(h * w, label_dtype(classes))
    for start in range(0, h * w, _PIXELS):
        part = flat[:, start : start + _PIXELS]
        _run_maximum(part[0].copy(), labels[start : start + _PIXELS], enumerate(part[1:], 1))
    return labels.reshape(h, w)


def _run_maximum(best: F32, labels: LabelMap, values: Iterable[tuple[int, F32]]) -> None:
    """Fill `labels` (zeros at first) with the class of the largest value, the lowest winning ties; `best` changes.

    Classes come in rising order, so the label of a new maximum is above every label before it and the update is the
    maximum of two uint8 arrays: four times less memory traffic than a masked copy, and vectorised by numpy.
    """
    above = np.empty(best.shape, bool)
    flags = above.view(np.uint8)
    stamp = flags if labels.dtype == np.uint8 else np.empty(best.shape, labels.dtype)
    for label, value in values:
        np.greater(value, best, out=above)
        np.maximum(best, value, out=best)
        np.multiply(flags, labels.dtype.type(label), out=stamp)
        np.maximum(labels, stamp, out=labels)


def _spread(coarse: LabelMap, rows: _Axis, columns: _Axis) -> LabelMap:
    """Look up labels where every output pixel falls on a logit; the map itself where the sizes agree."""
    if (len(rows.low), len(columns.low)) == coarse.shape:  # unused rows are gone, so this is the identity
        return coarse
    spread: LabelMap = coarse[rows.low][:, columns.low]
    return spread


# --- sparse ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cells:
    """The cells between logits, and which of them have corners that disagree.

    Attributes:
        rows: Runs of output rows.
        columns: Runs of output columns.
        labels: uint8 or uint16 (row runs, column runs): label of the upper left corner.
        y: Row run of each disagreeing cell.
        x: Column run of each disagreeing cell.
    """

    rows: _Runs
    columns: _Runs
    labels: LabelMap
    y: Index
    x: Index

    @classmethod
    def find(cls, coarse: LabelMap, row_axis: _Axis, column_axis: _Axis) -> _Cells:
        """Compare the four corners of every cell."""
        rows, columns = _runs(row_axis), _runs(column_axis)
        upper, lower = coarse[rows.low], coarse[rows.high]
        labels = upper[:, columns.low]
        differ = upper[:, columns.high] != labels
        differ |= lower[:, columns.low] != labels
        differ |= lower[:, columns.high] != labels
        y, x = np.divmod(np.flatnonzero(differ), len(columns.low))
        return cls(rows, columns, labels, y, x)

    def nanoseconds(self, classes: int) -> float:
        """Estimated cost of interpolating the disagreeing cells."""
        return len(self.y) * (40.0 * classes + 9.5 * self.area + 250.0)

    def cheaper(self, classes: int) -> bool:
        """Whether the sparse way is expected to beat the dense one; coefficients are `_DENSE` and `nanoseconds`."""
        pixels = int(self.rows.lengths.sum()) * int(self.columns.lengths.sum())
        return self.nanoseconds(classes) < _DENSE * pixels * (classes + 2)

    @property
    def area(self) -> int:
        """Pixels of the largest cell."""
        return int(self.rows.pixels.shape[0] * self.columns.pixels.shape[0])


def _sparse(field: F32, coarse: LabelMap, cells: _Cells, tail: TailSpec) -> LabelMap:
    labels = cells.labels.repeat(cells.columns.lengths, axis=1).repeat(cells.rows.lengths, axis=0)
    if len(field) == 1:  # a constant second class turns the threshold into an argmax; ties go to label 0
        field = np.concatenate((np.full_like(field, tail.threshold), field))
    step = max(1, min(_PIXELS // cells.area, _PIXELS // len(field)))
    for start in range(0, len(cells.y), step):
        _fill(field, coarse, cells, slice(start, start + step), labels)
    return labels


def _fill(field: F32, coarse: LabelMap, cells: _Cells, part: slice, labels: LabelMap) -> None:
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
    found: LabelMap = np.empty(0, labels.dtype)
    for turn in range(int(counts[0])):
        n = int(np.searchsorted(-counts, -turn, side="left"))
        classes = candidates[first[:n] + turn]
        values = _between(corners[classes, :, order[:n]], ty[..., :n], tx[..., :n])
        if turn == 0:
            best, found = values, np.empty(values.shape, labels.dtype)
            found[:] = classes
        else:
            _update(best[..., :n], found[..., :n], values, classes.astype(found.dtype))
    target = (rows.pixels[:, y] * labels.shape[1])[:, None] + columns.pixels[:, x][None]
    labels.reshape(-1)[target] = found


def _possible(corners: F32, winners: LabelMap) -> NDArray[np.bool_]:
    """Bool (C, K): classes that no corner's winner beats at all four corners of the cell.

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


def _update(best: F32, found: LabelMap, values: F32, classes: LabelMap) -> None:
    above = values > best
    np.maximum(best, values, out=best)
    flags = above.view(np.uint8)
    stamp = flags if found.dtype == np.uint8 else np.empty(found.shape, found.dtype)
    np.multiply(flags, classes, out=stamp)
    np.maximum(found, stamp, out=found)


# --- dense -------------------------------------------------------------------------------------------------------


def _dense(field: F32, rows: _Axis, columns: _Axis, tail: TailSpec, scores: F32 | None = None) -> LabelMap:
    height, width = len(rows.low), len(columns.low)
    strip = _STRIP if scores is None else _STRIP // 4
    downs = _bands(rows, strip)
    band = max(matrix.shape[0] for _, _, matrix in downs)
    tile_width = min(1024, max(32, _GEMM // (strip * band)))
    block = int(np.clip(_GEMM // (10 * len(field) * band), 16, 64))
    acrosses = [_bands(columns, block, x, x + tile_width) for x in range(0, width, tile_width)]
    labels = np.zeros((height, width), label_dtype(len(field)))
    for across, (y, inputs, down) in itertools.product(acrosses, downs):
        x = slice(across[0][0].start, across[-1][0].stop)
        part = _Tile(np.ascontiguousarray(down.T), _across(field[:, inputs], across))
        part.label(labels[y, x], tail, None if scores is None else scores[y, x])
    return labels


def _bands(axis: _Axis, length: int, start: int = 0, stop: int | None = None) -> list[Band]:
    """Cut an axis into pieces: outputs, the inputs they look at, and the (inputs, outputs) matrix between them."""
    end = min(len(axis.low), len(axis.low) if stop is None else stop)
    return [_band(axis, slice(at, min(at + length, end))) for at in range(start, end, length)]


def _band(axis: _Axis, outputs: slice) -> Band:
    low, high, t = axis.low[outputs], axis.high[outputs], axis.t[outputs]
    first, last = int(low[0]), int(high[-1]) + 1
    matrix = np.zeros((last - first, len(low)), np.float32)
    out = np.arange(len(low))
    matrix[high - first, out] = t
    matrix[low - first, out] = 1 - t
    return outputs, slice(first, last), matrix


class _Tile:
    """A rectangle of the output, interpolated across already; downwards class by class.

    Args:
        down: (rows, k) matrix.
        across: float32 (C, k, columns).
    """

    def __init__(self, down: F32, across: F32) -> None:
        self._down, self._across = down, across

    def value(self, label: int, out: F32 | None = None) -> F32:
        """Resized logits of one class: float32 (rows, columns)."""
        value: F32 = np.matmul(self._down, self._across[label], out=out)
        return value

    def label(self, labels: LabelMap, tail: TailSpec, scores: F32 | None) -> None:
        """Fill `labels` (zeros at first), and `scores` where wanted."""
        classes = len(self._across)
        best = self.value(0)
        if classes == 1:
            np.greater(best, np.float32(tail.threshold), out=labels.view(bool))
            if scores is not None:
                scores[:] = _sigmoid(np.where(labels, best, -best))
        elif scores is None:
            buffer = np.empty_like(best)
            _run_maximum(best, labels, ((c, self.value(c, buffer)) for c in range(1, classes)))
        else:
            values = np.matmul(self._down, self._across)
            _run_maximum(best, labels, enumerate(values[1:], 1))
            values -= best
            np.divide(1, np.exp(values, out=values).sum(axis=0), out=scores)


def _across(field: F32, blocks: list[Band]) -> F32:
    """(C, k, w) to (C, k, columns): a banded matrix product, block by block."""
    classes, k, w = field.shape
    flat = field.reshape(classes * k, w)
    left = blocks[0][0].start
    out = np.empty((classes * k, blocks[-1][0].stop - left), np.float32)
    for outputs, inputs, matrix in blocks:
        step = max(1, _GEMM // matrix.size)
        for y in range(0, len(flat), step):
            target = out[y : y + step, outputs.start - left : outputs.stop - left]
            np.matmul(flat[y : y + step, inputs], matrix, out=target)
    return out.reshape(classes, k, -1)


def _sigmoid(values: F32) -> F32:
    return np.asarray(1 / (1 + np.exp(np.minimum(-values, 80))), np.float32)
