"""Positions of output pixels among the logits: neighbours, weights, runs and bands; and the checks of the logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.labels import MOST_CLASSES
from edgeseg.specs import PostprocessSpec, Size

F32 = NDArray[np.float32]
Index = NDArray[np.intp]
Band = tuple[slice, slice, F32]
"""Some outputs of an axis, the inputs they look at, and the (inputs, outputs) matrix between them."""

NOT_FINITE = "the logits hold NaN or infinity; an fp16 network that overflows does this: use fp32"
"""What is said of logits that have no label."""

_RUN = 64  # longest stretch of rows or columns handled as one cell, so that huge strides keep memory bounded


@dataclass(frozen=True)
class Region:
    """The part of the network's input that the picture covers after a letterbox.

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
class Axis:
    """Interpolation along one axis: output pixel i is ``(1 - t[i]) * in[low[i]] + t[i] * in[high[i]]``."""

    low: Index
    high: Index
    t: F32

    @property
    def exact(self) -> bool:
        """Whether every output falls on an input, so that nothing is to be interpolated."""
        return not self.t.any()


@dataclass(frozen=True)
class Runs:
    """Output pixels of one axis grouped by the pair of inputs they lie between.

    `pixels` and `t` are (longest run, runs); shorter runs repeat their last pixel.
    """

    low: Index
    high: Index
    pixels: Index
    t: F32
    lengths: Index


def prepare(logits: F32, size: Size, postprocess: PostprocessSpec, region: Region | None) -> tuple[F32, Axis, Axis]:
    """Check logits, and lay out the interpolation.

    Returns:
        The logits that outputs depend on, float32 (C, h, w), and the axes over their rows and columns.

    Raises:
        UsageError: As `edgeseg.postprocess.labels_from_logits`.
    """
    field = checked(logits, postprocess)
    if not (np.isfinite(field.min()) and np.isfinite(field.max())):
        raise UsageError(NOT_FINITE)
    rows, columns = _axes(field.shape[1:], size, postprocess, region)
    return _used(field, rows, columns)


def checked(logits: Any, postprocess: PostprocessSpec) -> F32:
    """Check the type, shape and classes of logits; whether they are finite is not looked at.

    Returns:
        The logits, float32 (C, h, w), C-contiguous.

    Raises:
        UsageError: As `edgeseg.postprocess.labels_from_logits`.
    """
    if not isinstance(logits, np.ndarray) or logits.ndim != 3 or 0 in logits.shape:
        got = f"shape {logits.shape}" if isinstance(logits, np.ndarray) else type(logits).__name__
        raise UsageError(f"logits must be a numpy array of shape (classes, height, width), got {got}")
    if logits.dtype not in (np.float32, np.float16):
        raise UsageError(f"logits must be float32, got {logits.dtype}; convert them with .astype(numpy.float32)")
    if logits.shape[0] > MOST_CLASSES:
        raise UsageError(f"labels are uint16, so at most {MOST_CLASSES} classes fit; the logits have {logits.shape[0]}")
    postprocess.check_channels(len(logits))
    return np.ascontiguousarray(logits, np.float32)


def check_place(size: Size, region: Region | None) -> None:
    """Refuse a size or a region that is empty.

    Raises:
        UsageError: It is.
    """
    if min(size) < 1:
        raise UsageError(f"labels of {size[0]}x{size[1]} were asked for; height and width must be at least 1")
    if region is not None and (min(region.height, region.width) <= 0 or min(region.net_size) < 1):
        raise UsageError(f"the region {region} is empty; its height and width must be above 0")


def places(shape: Size, size: Size, postprocess: PostprocessSpec, region: Region | None) -> tuple[Axis, Axis]:
    """Lay out the interpolation among all logits, for a kernel that gets them as they are.

    Args:
        shape: Height x width of the logits.
        size: Height x width of the labels.
        postprocess: As `edgeseg.postprocess.labels_from_logits`.
        region: As there.

    Returns:
        The axes over rows and columns that `prepare` gives, with the places of the logits before any is dropped.

    Raises:
        UsageError: As there.
    """
    return _axes(shape, size, postprocess, region)


def _axes(shape: tuple[int, ...], size: Size, postprocess: PostprocessSpec, region: Region | None) -> tuple[Axis, Axis]:
    check_place(size, region)
    h, w = shape
    spans: tuple[tuple[int, float, float] | None, ...] = (None, None)
    if region is not None:
        net = region.net_size
        spans = (net[0], region.top, region.height), (net[1], region.left, region.width)
    rows = _axis(_positions(h, size[0], postprocess.align_corners, spans[0]), h)
    columns = _axis(_positions(w, size[1], postprocess.align_corners, spans[1]), w)
    return rows, columns


def _positions(n: int, out: int, align_corners: bool, span: tuple[int, float, float] | None) -> NDArray[np.float64]:
    """Place each of `out` pixels among `n` logits; `span` is net length, start and length of the region."""
    steps = np.arange(out, dtype=np.float64)
    if span is not None:
        net, start, length = span
        steps = start + (steps + 0.5) * length / out - 0.5
        out = net
    if align_corners:
        return steps * ((n - 1) / (out - 1)) if out > 1 else np.zeros_like(steps)
    return (steps + 0.5) * (n / out) - 0.5


def _axis(positions: NDArray[np.float64], n: int) -> Axis:
    whole = np.floor(np.clip(positions, -1.0, n))
    low = np.clip(whole, 0, n - 1).astype(np.intp)
    high = np.clip(whole + 1, 0, n - 1).astype(np.intp)
    t = np.where(low == high, 0.0, positions - whole).astype(np.float32)
    return Axis(low, np.where(t != 0, high, low), t)  # a neighbour of weight zero decides nothing


def _used(field: F32, rows: Axis, columns: Axis) -> tuple[F32, Axis, Axis]:
    """Drop the logits that no output pixel depends on: most of them when shrinking, the padding of a letterbox."""
    short_rows, keep_rows = _compact(rows, field.shape[1])
    short_columns, keep_columns = _compact(columns, field.shape[2])
    if keep_rows is not None:
        field = field[:, keep_rows]
    if keep_columns is not None:
        field = field[:, :, keep_columns]
    return np.ascontiguousarray(field), short_rows, short_columns


def _compact(axis: Axis, n: int) -> tuple[Axis, Index | None]:
    seen = _seen(axis, n)
    if seen.all():
        return axis, None
    place = np.cumsum(seen) - 1
    return Axis(place[axis.low], place[axis.high], axis.t), np.flatnonzero(seen)


def _seen(axis: Axis, n: int) -> NDArray[np.bool_]:
    """Which of `n` inputs an output depends on."""
    seen = np.zeros(n, bool)
    seen[axis.low] = True
    seen[axis.high] = True
    return seen


def runs_of(axis: Axis) -> Runs:
    """Group output pixels by the pair of inputs they lie between, at most `_RUN` in a group."""
    change = (np.diff(axis.low) != 0) | (np.diff(axis.high) != 0)
    starts = np.concatenate(([0], np.flatnonzero(change) + 1))
    first = starts
    lengths = np.diff(np.append(starts, len(axis.low)))
    if lengths.max() > _RUN:
        pieces = [np.arange(at, at + n, _RUN) for at, n in zip(starts, lengths, strict=True)]
        first = np.concatenate(pieces)
        lengths = np.diff(np.append(first, len(axis.low)))
    pixels = first + np.minimum(np.arange(lengths.max())[:, None], lengths - 1)
    return Runs(axis.low[first], axis.high[first], pixels, axis.t[pixels], lengths)


def interpolation_bands(n: int, out: int, align_corners: bool, length: int) -> list[Band]:
    """Express bilinear interpolation along one axis as small matrices.

    Args:
        n: Inputs.
        out: Outputs.
        align_corners: As in `labels_from_logits`.
        length: Outputs per band.

    Example:
        >>> for outputs, inputs, matrix in interpolation_bands(2, 4, False, length=4):
        ...     print(outputs, inputs, matrix[1].tolist())
        slice(0, 4, None) slice(0, 2, None) [0.0, 0.25, 0.75, 1.0]
    """
    return bands(_axis(_positions(n, out, align_corners, None), n), length)


def bands(axis: Axis, length: int, start: int = 0, stop: int | None = None) -> list[Band]:
    """Cut an axis into pieces: outputs, the inputs they depend on, and the (inputs, outputs) matrix between them."""
    end = min(len(axis.low), len(axis.low) if stop is None else stop)
    return [_band(axis, slice(at, min(at + length, end))) for at in range(start, end, length)]


def _band(axis: Axis, outputs: slice) -> Band:
    low, high, t = axis.low[outputs], axis.high[outputs], axis.t[outputs]
    first, last = int(low[0]), int(high[-1]) + 1
    matrix = np.zeros((last - first, len(low)), np.float32)
    out = np.arange(len(low))
    matrix[high - first, out] = t
    matrix[low - first, out] = 1 - t
    return outputs, slice(first, last), matrix
