"""The exact postprocessing: logits of any size to labels of any size, without the full class x height x width tensor.

What is called logits here may be probabilities (`PostprocessSpec.activation`): labels come of them in the same way.

The answer is that of "bilinear resize of the logits, then argmax over the classes, the lowest index winning ties", in
float32. There are two methods:

- dense: tiles of the output that stay in cache. Two small matrix products per tile interpolate; a running maximum over
the classes labels.
- sparse: argmax at the logits' own resolution. Bilinear weights are convex, so a class that wins at all four corners of
a cell wins everywhere in it. Only cells whose corners disagree are interpolated, and there only the classes that no
corner's winner beats at all four corners. It runs in numpy, or in C++ where edgeseg was
  installed with a compiler at hand (`edgeseg.postprocess.compiled`), which is the fastest for every map.

All differ from exact arithmetic by float32 rounding alone. Every buffer belongs to its call, so calls may run side by
side. A call uses one thread. In numpy, pieces small enough for the cache are calls so short that a second thread waits
for the interpreter lock. The compiled method is done in less time than it takes to wake a second thread
(docs/export.md).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeseg.errors import UsageError
from edgeseg.labels import LabelMap
from edgeseg.postprocess.axes import F32, Band, Region, check_place, checked, interpolation_bands, prepare
from edgeseg.postprocess.compiled import compiled_labels, is_usable
from edgeseg.postprocess.dense import interpolate_all
from edgeseg.postprocess.sparse import Cells, coarse_argmax, interpolate_cells, repeat_labels
from edgeseg.postprocess.undo import undo_resize
from edgeseg.specs import PostprocessSpec, Size

__all__ = [
    "Band",
    "Method",
    "Region",
    "interpolation_bands",
    "labels_from_logits",
    "scores_from_logits",
    "undo_resize",
    "warm_up",
]

Method = Literal["auto", "compiled", "dense", "sparse"]
_METHODS: tuple[Method, ...] = ("auto", "compiled", "dense", "sparse")


def labels_from_logits(
    logits: F32, size: Size, *, postprocess: PostprocessSpec, region: Region | None = None, method: Method = "auto"
) -> LabelMap:
    """Resize logits bilinearly to `size` and take the argmax, exactly.

    Source positions are those of ``torch.nn.functional.interpolate``: ``(y + 0.5) * h / H - 0.5`` clamped to ``[0, h -
    1]``, or ``y * (h - 1) / (H - 1)`` with `postprocess.align_corners`. Shrinking has no antialias, as there.

    Args:
        logits: float32 (or float16) (C, h, w), finite, 1 to 65535 classes. One class means two labels: 1 where the
            resized logit is above `postprocess.threshold`.
        size: Height x width of the labels.
        postprocess: The recorded postprocessing of the network.
        region: Part of the network's input to cut out: output row y lies at network row ``top + (y + 0.5) * height / H
            - 0.5``, which is then looked up in the logits.
        method: ``auto`` takes the fastest method for these logits: ``compiled`` where it is here.

    Returns:
        uint8 (H, W), uint16 above 255 classes: class index per pixel; equal logits go to the lowest index.

    Raises:
        UsageError: Wrong shape, type, number of classes or size; NaN or infinity among the logits.
        TargetUnavailableError: ``compiled`` was asked for and is not here, or does not load.

    Example:
        >>> logits = np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32)
        >>> labels_from_logits(logits, (1, 4), postprocess=PostprocessSpec(), method="dense").tolist()
        [[0, 0, 1, 1]]
    """
    if method not in _METHODS:
        raise UsageError(f"postprocess method '{method}' is none of {', '.join(_METHODS)}")
    if method == "compiled" or (method == "auto" and is_usable()):
        check_place(size, region)
        return compiled_labels(checked(logits, postprocess), size, postprocess, region)
    field, rows, columns = prepare(logits, size, postprocess, region)
    same_size = rows.exact and columns.exact
    coarse = None if method == "dense" and not same_size else coarse_argmax(field, postprocess)
    if coarse is not None and same_size:
        return repeat_labels(coarse, rows, columns)
    if coarse is not None:
        cells = Cells.find(coarse, rows, columns)
        if method == "sparse" or cells.cheaper(len(field)):
            return interpolate_cells(field, coarse, cells, postprocess)
    return interpolate_all(field, rows, columns, postprocess)


def scores_from_logits(
    logits: F32, size: Size, *, postprocess: PostprocessSpec, region: Region | None = None, method: Method = "auto"
) -> tuple[LabelMap, F32]:
    """Compute labels as `labels_from_logits` does, and the probability of each.

    Arguments and errors are those of `labels_from_logits`. Scores need all classes at all pixels. So they are computed
    by the dense method, whichever `method` computes the labels.

    Returns:
        Labels as `labels_from_logits` gives them, and scores, float32 (H, W) in 0..1: the probability of the label.
        It is computed from the resized logits: their softmax; for one class ``sigmoid(logit)`` where the label is 1,
        else one minus it. Where the network has applied its activation (`postprocess.activation`) it is the resized
        value itself, cut to 0..1; for one class that value where the label is 1, else one minus it. So the score of
        one class is below 0.5 where the threshold stands elsewhere than at a probability of one half, and the value
        between the two.

    Example:
        >>> logits = np.array([[[2.0]], [[2.0]]], np.float32)
        >>> labels, scores = scores_from_logits(logits, (1, 1), postprocess=PostprocessSpec())
        >>> labels.tolist(), scores.tolist()
        ([[0]], [[0.5]])
        >>> probabilities = np.array([[[0.75]], [[0.25]]], np.float32)
        >>> scores_from_logits(probabilities, (1, 1), postprocess=PostprocessSpec(activation="softmax"))[1].tolist()
        [[0.75]]
    """
    field, rows, columns = prepare(logits, size, postprocess, region)
    scores = np.empty((len(rows.low), len(columns.low)), np.float32)
    labels = interpolate_all(field, rows, columns, postprocess, scores)
    if method != "dense" and method != "auto":
        labels = labels_from_logits(logits, size, postprocess=postprocess, region=region, method=method)
    return labels, scores


def warm_up() -> str:
    """Load the compiled postprocessing, so that the first picture takes no longer than the next.

    Returns:
        What `labels_from_logits` will use: ``compiled`` or ``numpy``.
    """
    return "compiled" if is_usable() else "numpy"
