"""The dense method of the postprocessing, in numpy: every class at every pixel, in tiles that stay in cache."""

from __future__ import annotations

import itertools

import numpy as np

from edgeseg.labels import LabelMap, label_dtype
from edgeseg.postprocess.axes import F32, Axis, Band, bands
from edgeseg.postprocess.sparse import run_maximum
from edgeseg.specs import PostprocessSpec

_GEMM = 250_000  # multiply-adds per product; OpenBLAS starts its own (spinning) threads above 262144
_STRIP = 32  # output rows per tile; 8 where all classes are kept for the scores


def interpolate_all(
    field: F32, rows: Axis, columns: Axis, postprocess: PostprocessSpec, scores: F32 | None = None
) -> LabelMap:
    """Label (rows, columns) pixels from (C, h, w) logits; fill `scores` of the same size where given."""
    height, width = len(rows.low), len(columns.low)
    strip = _STRIP if scores is None else _STRIP // 4
    downs = bands(rows, strip)
    band = max(matrix.shape[0] for _, _, matrix in downs)
    tile_width = min(1024, max(32, _GEMM // (strip * band)))
    block = int(np.clip(_GEMM // (10 * len(field) * band), 16, 64))
    acrosses = [bands(columns, block, x, x + tile_width) for x in range(0, width, tile_width)]
    labels = np.zeros((height, width), label_dtype(len(field)))
    for across, (y, inputs, down) in itertools.product(acrosses, downs):
        x = slice(across[0][0].start, across[-1][0].stop)
        part = _Tile(np.ascontiguousarray(down.T), _across(field[:, inputs], across))
        part.label(labels[y, x], postprocess, None if scores is None else scores[y, x])
    return labels


class _Tile:
    """A rectangle of the output, interpolated across already; downwards class by class.

    Args:
        down: (rows, k) matrix.
        across: float32 (C, k, columns).
    """

    def __init__(self, down: F32, across: F32) -> None:
        self._down, self._across = down, across

    def value(self, label: int, out: F32 | None = None) -> F32:
        """Resize the logits of one class: float32 (rows, columns)."""
        value: F32 = np.matmul(self._down, self._across[label], out=out)
        return value

    def label(self, labels: LabelMap, postprocess: PostprocessSpec, scores: F32 | None) -> None:
        """Fill `labels`, which are zero before, and `scores` where given."""
        classes = len(self._across)
        best = self.value(0)
        if classes == 1:
            np.greater(best, np.float32(postprocess.threshold), out=labels.view(bool))
            if scores is not None:
                scores[:] = _of_one(best, labels, postprocess)
        elif scores is None or postprocess.activation != "none":
            buffer = np.empty_like(best)
            run_maximum(best, labels, ((c, self.value(c, buffer)) for c in range(1, classes)))
            if scores is not None:
                np.clip(best, 0, 1, out=scores)
        else:
            values = np.matmul(self._down, self._across)
            run_maximum(best, labels, enumerate(values[1:], 1))
            values -= best
            np.divide(1, np.exp(values, out=values).sum(axis=0), out=scores)


def _across(field: F32, blocks: list[Band]) -> F32:
    """Interpolate along rows, (C, k, w) to (C, k, columns): a banded matrix product, block by block."""
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


def _of_one(values: F32, labels: LabelMap, postprocess: PostprocessSpec) -> F32:
    """Score the labels of one resized channel."""
    if postprocess.activation == "none":
        return _sigmoid(np.where(labels, values, -values))
    return np.clip(np.where(labels, values, 1 - values), 0, 1)


def _sigmoid(values: F32) -> F32:
    return np.asarray(1 / (1 + np.exp(np.minimum(-values, 80))), np.float32)
