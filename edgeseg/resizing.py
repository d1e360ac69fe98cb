"""Resize uint8 pictures by the filters of `edgeseg.specs.ResizeRule`, bit for bit the same on every machine.

OpenCV's own linear, area and cubic filters are other code on every processor (IPP, Carotene, KleidiCV, fused
multiplications), whose last bits differ. What is used here is arithmetic of whole numbers: OpenCV's bit-exact linear
filter, Pillow's filter in fixed point, and the others below.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import TargetUnavailableError
from edgeseg.specs import ResizeFilter, Size

__all__ = ["resize"]

_U8 = NDArray[np.uint8]
_CUBIC_ONE = 2048  # what the weights of a cubic filter sum to
_CUBIC = -0.75  # OpenCV's coefficient


def resize(image: _U8, size: Size, kind: ResizeFilter) -> _U8:
    """Resize a picture.

    Args:
        image: uint8 (H, W) or (H, W, C). Each channel is resized alone.
        size: Height x width.
        kind: ``linear``: the two nearest pixels of each axis, weights in 256ths; ``area``: the mean of what a pixel
            covers, rounded once; ``cubic``: the four nearest, weights in 2048ths; ``nearest``: the pixel that OpenCV's
            ``INTER_NEAREST`` takes; ``pillow_bilinear``: Pillow's, which widens its kernel when shrinking (antialias).

    Returns:
        uint8 of that size; the same array where it has it.

    Raises:
        TargetUnavailableError: The filter is Pillow's, which is not installed.

    Example:
        >>> resize(np.array([[0, 30, 60, 91]], np.uint8), (1, 2), "area")
        array([[15, 76]], dtype=uint8)
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    if kind == "nearest":
        return image.take(_nearest(image.shape[0], height), axis=0).take(_nearest(image.shape[1], width), axis=1)
    if kind in ("area", "cubic"):
        taps = _area if kind == "area" else _cubic
        return _resampled(image, taps(image.shape[0], height), taps(image.shape[1], width))
    if image.ndim == 3 and image.shape[2] != 3:  # OpenCV takes up to 4 channels, and Pillow weighs the others by alpha
        planes = [resize(np.ascontiguousarray(image[..., k]), size, kind) for k in range(image.shape[2])]
        return np.stack(planes, axis=2)
    if kind == "pillow_bilinear":
        return _pillow_bilinear(image, size)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)


@dataclass(frozen=True)
class _Taps:
    """What each new pixel of an axis is made of.

    Attributes:
        indices: (new, taps) old pixels.
        weights: (new, taps) whole numbers.
        total: What the weights of each new pixel sum to.
    """

    indices: NDArray[np.int64]
    weights: NDArray[np.int64]
    total: int


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """Index of the old pixel that each new one takes; float64 rounds alike on every machine."""
    step = 1.0 / (new / old)
    indices: NDArray[np.int64] = np.floor(np.arange(new) * step).astype(np.int64)
    return np.minimum(indices, old - 1, out=indices)


def _area(old: int, new: int) -> _Taps:
    """Take what a new pixel covers of each old one, in parts of 1/`new` of an old pixel."""
    start = np.arange(new, dtype=np.int64)[:, None] * old
    first = start // new
    most = int((-(-(start + old) // new) - first).max())
    indices = first + np.arange(most)
    covered = np.minimum((indices + 1) * new, start + old) - np.maximum(indices * new, start)
    return _Taps(np.minimum(indices, old - 1), np.maximum(covered, 0), old)


def _cubic(old: int, new: int) -> _Taps:
    """Weigh the four nearest old pixels; beyond the border its last pixel goes on."""
    centre = (np.arange(new) + 0.5) * (1.0 / (new / old)) - 0.5
    first = np.floor(centre)
    x = (centre - first)[:, None] + np.array([1.0, 0.0, -1.0])
    near, far = np.abs(x[:, 1:]), x[:, :1]
    inner = ((_CUBIC + 2.0) * near - (_CUBIC + 3.0)) * near * near + 1.0
    outer = ((_CUBIC * far - 5.0 * _CUBIC) * far + 8.0 * _CUBIC) * far - 4.0 * _CUBIC
    weights = np.rint(np.hstack([outer, inner]) * _CUBIC_ONE).astype(np.int64)
    weights = np.hstack([weights, _CUBIC_ONE - weights.sum(axis=1, keepdims=True)])
    indices = first.astype(np.int64)[:, None] + np.arange(-1, 3)
    return _Taps(np.clip(indices, 0, old - 1), weights, _CUBIC_ONE)


def _resampled(image: _U8, rows: _Taps, columns: _Taps) -> _U8:
    """Sum the weighted pixels exactly, and round once, half upwards."""
    sums = _summed(_summed(image, rows, 0, np.int32), columns, 1, np.int64)
    total = rows.total * columns.total
    return np.clip((2 * sums + total) // (2 * total), 0, 255).astype(np.uint8)


def _summed(values: NDArray[np.generic], taps: _Taps, axis: int, kind: type[np.signedinteger]) -> NDArray[np.int64]:
    shape = [1] * values.ndim
    shape[axis] = -1
    sums: NDArray[np.int64] | None = None
    for indices, weights in zip(taps.indices.T, taps.weights.T, strict=True):
        if weights.any():
            part = values.take(indices, axis=axis) * weights.astype(kind).reshape(shape)
            sums = part if sums is None else np.add(sums, part, out=sums)
    assert sums is not None  # weights sum to more than 0
    return sums


def _pillow_bilinear(image: _U8, size: Size) -> _U8:
    try:
        from PIL import Image
    except ImportError as error:
        message = "this network's resize rule is Pillow's bilinear, and Pillow is not installed"
        raise TargetUnavailableError(f"{message}; install it with pip install 'edgeseg[pillow]'") from error
    whole, bilinear = Image.fromarray(image), Image.Resampling.BILINEAR
    # an axis a time: Pillow rounds after each, and which is first depends on its version
    return np.array(whole.resize((size[1], image.shape[0]), bilinear).resize((size[1], size[0]), bilinear), np.uint8)
