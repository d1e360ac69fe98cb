"""Boundary IoU: how well the outlines of classes are met, whatever their size.

Cheng, Girshick, Dollár, Berg and Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR
2021. Of every class only the pixels within a distance of its outline count, in the label map and in the prediction. The
distance is 2 % of the picture's diagonal, as published, in the steps of a 3x3 erosion.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.labels import LabelMap
from edgeseg.metrics import at_most, check_classes, check_pair, mean_of, ratio_of

__all__ = ["BoundaryMatrix", "boundary_width"]

PART = 0.02
"""Of the diagonal: the published distance."""

_NARROW = 254  # classes whose labels, void and the frame around the picture fit into 8 bits


def boundary_width(height: int, width: int, part: float = PART) -> int:
    """Give the distance from an outline, in pixels, that counts as boundary: `part` of the diagonal, and 1 at least.

    Example:
        >>> boundary_width(1024, 2048)
        46
    """
    return max(1, round(part * float(np.hypot(height, width))))


class BoundaryMatrix:
    """Pixels near the outlines of classes, added up over pictures.

    Void is taken out of the label map and of the prediction before outlines are drawn.

    Args:
        num_classes: Scored classes, 1 to 4096.
        part: Distance from the outline that counts, as a share of the diagonal, above 0.

    Attributes:
        hits: int64 (num_classes,): boundary pixels of a class in both maps.
        unions: int64 (num_classes,): boundary pixels of a class in either map.

    Raises:
        UsageError: A number of classes or share that cannot be.

    Example:
        >>> matrix = BoundaryMatrix(2)
        >>> matrix.update(np.array([[0, 1, 1]], np.uint8), np.array([[0, 1, 0]], np.uint8))
        >>> matrix.iou.tolist()
        [0.5, 0.5]
    """

    def __init__(self, num_classes: int, part: float = PART) -> None:
        check_classes(num_classes)
        if not part > 0.0:
            raise UsageError(f"part is {part}; it is a share of the diagonal, above 0 (0.02 is the published one)")
        self.num_classes, self.part = num_classes, part
        self.hits: NDArray[np.int64] = np.zeros(num_classes, np.int64)
        self.unions: NDArray[np.int64] = np.zeros(num_classes, np.int64)

    def update(self, labels_true: LabelMap, labels_pred: LabelMap, ignore: int | None = None) -> None:
        """Add one picture.

        Args:
            labels_true: uint8 or uint16 (H, W).
            labels_pred: uint8 or uint16 (H, W).
            ignore: Label of void in `labels_true`. Where it is one of the classes, that class is not scored.

        Raises:
            InputError: Sizes differ, or not uint8 or uint16.
        """
        check_pair(labels_true, labels_pred)
        true, pred = self._narrowed(labels_true), self._narrowed(labels_pred)
        if ignore is not None:
            void = labels_true == ignore
            true[void] = pred[void | (labels_pred == ignore)] = self.num_classes
        width = boundary_width(*_size(true), self.part)
        near_true, near_pred = _near_outlines(true, width), _near_outlines(pred, width)
        hits = self._count(true[near_true & near_pred & (true == pred)])
        self.hits += hits
        self.unions += self._count(true[near_true]) + self._count(pred[near_pred]) - hits

    def _narrowed(self, labels: LabelMap) -> LabelMap:
        """Copy labels, every one outside the classes as the first that is none."""
        kind = np.uint8 if self.num_classes <= _NARROW else np.uint16
        return at_most(labels, self.num_classes).astype(kind)

    def _count(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        counts = np.bincount(labels, minlength=self.num_classes + 1)[: self.num_classes]
        return counts.astype(np.int64, copy=False)

    @property
    def iou(self) -> NDArray[np.float64]:
        """float64 (num_classes,): intersection over union of boundaries, 0..1; NaN for a class in neither map."""
        return ratio_of(self.hits.astype(np.float64), self.unions)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that are there; NaN where none is."""
        return mean_of(self.iou)


def _size(labels: LabelMap) -> tuple[int, int]:
    return labels.shape[0], labels.shape[1]


def _near_outlines(labels: LabelMap, width: int) -> NDArray[np.bool_]:
    """Find the pixels with another label, or the picture's edge, within `width` rows and columns.

    Of every class these are its mask without its erosion: all classes at once, where largest and smallest label of the
    window differ.
    """
    outside = int(np.iinfo(labels.dtype).max)  # no class, so that the picture's edge is an outline too
    framed = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=[outside])
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    near: NDArray[np.bool_] = (cv2.dilate(framed, window) != cv2.erode(framed, window))[1:-1, 1:-1]
    return near
