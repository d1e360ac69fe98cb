"""Accuracy from label maps: a confusion matrix with void kept apart, and plain agreement of two maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError, UsageError
from edgeseg.labels import LabelMap

__all__ = ["ConfusionMatrix", "agreement", "at_most", "check_classes", "check_pair", "mean_of", "ratio_of"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


class ConfusionMatrix:
    """Counts of true against predicted classes, added up over pictures.

    Void (pixels whose true label is the `ignore` of `update`) is counted apart, so that one pass gives both published
    readings. Void is left out entirely (Cityscapes; the usual one), or predictions on void count as errors. The second
    is the protocol behind ESPNet's CamVid figures (Mehta et al., ECCV 2018): a confusion over 12 classes with void
    among them, of which the other 11 are averaged, so that predictions on void enlarge the unions. A prediction outside
    the scored classes (a 12-output network that predicts void) is a miss of the true class.

    Args:
        num_classes: Scored classes, 1 to 4096 (the counts of that many take 128 MB).
        count_void_as_error: Which reading the scores give.

    Attributes:
        counts: int64 (num_classes, num_classes + 1): true class x predicted class; the last column counts predictions
            outside the scored classes.
        void: int64 (num_classes + 1,): predictions on void pixels.

    Example:
        >>> matrix = ConfusionMatrix(2)
        >>> matrix.update(np.array([[0, 1, 1]], np.uint8), np.array([[0, 1, 0]], np.uint8))
        >>> matrix.iou.tolist(), matrix.miou
        ([0.5, 0.5], 0.5)
    """

    def __init__(self, num_classes: int, *, count_void_as_error: bool = False) -> None:
        check_classes(num_classes)
        self.num_classes = num_classes
        self.count_void_as_error = count_void_as_error
        self.counts: I64 = np.zeros((num_classes, num_classes + 1), np.int64)
        self.void: I64 = np.zeros(num_classes + 1, np.int64)

    def update(self, labels_true: LabelMap, labels_pred: LabelMap, ignore: int | None = None) -> None:
        """Add one picture.

        Args:
            labels_true: uint8 or uint16 (H, W).
            labels_pred: uint8 or uint16 (H, W).
            ignore: Label of void in `labels_true`. Where it is one of the classes, that class is not scored.

        Raises:
            InputError: Sizes differ, not uint8 or uint16, or a true label that is neither a class nor `ignore`.
        """
        check_pair(labels_true, labels_pred)
        n = self.num_classes
        if labels_true.dtype == np.uint16:
            labels_true, ignore = self._narrowed(labels_true, ignore)
        side = max(256, n + 1)
        predicted = at_most(labels_pred, side - 1)
        joint = np.bincount(labels_true.ravel().astype(np.intp) * side + predicted.ravel(), minlength=side * side)
        pairs = joint.reshape(side, side).astype(np.int64, copy=False)
        void = np.zeros(side, np.int64)
        if ignore is not None and 0 <= ignore < side:
            void = pairs[ignore].copy()
            pairs[ignore] = 0
        self._refuse(np.flatnonzero(pairs[n:].sum(axis=1)) + n, ignore)
        known = np.arange(n)[np.arange(n) != ignore]
        self.counts[:, known] += pairs[:n, known]
        self.counts[:, n] += pairs[:n].sum(axis=1) - pairs[:n, known].sum(axis=1)
        self.void[known] += void[known]
        self.void[n] += void.sum() - void[known].sum()

    def _narrowed(self, labels: LabelMap, ignore: int | None) -> tuple[LabelMap, int | None]:
        """Move void of a 16-bit map right behind the classes, so that the counts stay small."""
        n = self.num_classes
        strange = labels >= n if ignore is None else (labels >= n) & (labels != ignore)
        self._refuse(np.unique(labels[strange]), ignore)
        return (labels, ignore) if ignore is None or ignore < n else (at_most(labels, n), n)

    def _refuse(self, outside: NDArray[Any], ignore: int | None) -> None:
        if len(outside):
            values = ", ".join(map(str, outside[:5]))
            known = f"0..{self.num_classes - 1}" + ("" if ignore is None else f" and void ({ignore})")
            raise InputError(f"the label map holds {values}, expected {known}; name the void label with ignore")

    def with_void_as_error(self) -> ConfusionMatrix:
        """Copy the counts into a matrix that counts predictions on void as errors."""
        other = ConfusionMatrix(self.num_classes, count_void_as_error=True)
        other.counts, other.void = self.counts.copy(), self.void.copy()
        return other

    def _check_like(self, other: ConfusionMatrix) -> None:
        mine, theirs = (self.num_classes, self.count_void_as_error), (other.num_classes, other.count_void_as_error)
        if mine != theirs:
            raise UsageError(f"confusion matrices of (classes, void as error) {mine} and {theirs} cannot be added")

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Merge two matrices of the same classes and reading.

        Raises:
            UsageError: They differ in either.
        """
        self._check_like(other)
        total = ConfusionMatrix(self.num_classes, count_void_as_error=self.count_void_as_error)
        total.counts, total.void = self.counts + other.counts, self.void + other.void
        return total

    def __iadd__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Add the counts of another matrix of the same classes and reading to this one's.

        Raises:
            UsageError: They differ in either.
        """
        self._check_like(other)
        self.counts += other.counts
        self.void += other.void
        return self

    @property
    def _hits(self) -> F64:
        return np.diagonal(self.counts).astype(np.float64)

    @property
    def iou(self) -> F64:
        """float64 (num_classes,): intersection over union, 0..1; NaN for a class neither true nor predicted."""
        predicted = self.counts[:, :-1].sum(axis=0)
        if self.count_void_as_error:
            predicted = predicted + self.void[:-1]
        return ratio_of(self._hits, self.counts.sum(axis=1) + predicted - self._hits)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that are there; NaN where none is."""
        return mean_of(self.iou)

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of `iou`, each class weighted by its share of the labelled pixels; NaN without pixels."""
        pixels = self.counts.sum(axis=1)
        there = pixels > 0
        return float((self.iou[there] * pixels[there]).sum() / pixels.sum()) if there.any() else float("nan")

    @property
    def class_accuracy(self) -> F64:
        """float64 (num_classes,): recall, 0..1; NaN for a class that no pixel truly has."""
        return ratio_of(self._hits, self.counts.sum(axis=1))

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of `class_accuracy` over the classes that are there ("class average")."""
        return mean_of(self.class_accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """Share of right pixels, 0..1; NaN without pixels.

        With `count_void_as_error`, void pixels predicted as a scored class are wrong pixels; those predicted as void
        are left out.
        """
        total = self.counts.sum() + (self.void[:-1].sum() if self.count_void_as_error else 0)
        return float(self._hits.sum() / total) if total else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values: the counts and the scores, absent classes as None."""
        return {
            "num_classes": self.num_classes,
            "count_void_as_error": self.count_void_as_error,
            "counts": self.counts.tolist(),
            "void": self.void.tolist(),
            "iou": [_plain(value) for value in self.iou],
            "miou": _plain(self.miou),
            "class_accuracy": [_plain(value) for value in self.class_accuracy],
            "mean_class_accuracy": _plain(self.mean_class_accuracy),
            "pixel_accuracy": _plain(self.pixel_accuracy),
            "frequency_weighted_iou": _plain(self.frequency_weighted_iou),
        }


def agreement(labels_a: LabelMap, labels_b: LabelMap) -> tuple[int, int]:
    """Count the pixels of two label maps that differ, and all pixels.

    Raises:
        InputError: Their sizes differ, or they are not uint8 or uint16 (H, W).

    Example:
        >>> agreement(np.array([[0, 1]], np.uint8), np.array([[0, 2]], np.uint8))
        (1, 2)
    """
    check_pair(labels_a, labels_b)
    return int(np.count_nonzero(labels_a != labels_b)), int(labels_a.size)


def at_most(labels: LabelMap, most: int) -> LabelMap:
    """Lower every label above `most` to it; `most` may be more than the type holds.

    Example:
        >>> at_most(np.array([3, 255], np.uint8), 300).tolist()
        [3, 255]
    """
    return np.minimum(labels, min(most, int(np.iinfo(labels.dtype).max)))


def check_classes(num_classes: int) -> None:
    """Refuse a number of classes that cannot be scored.

    Raises:
        UsageError: Below 1, or above 4096.
    """
    if not 1 <= num_classes <= 4096:
        raise UsageError(f"1 to 4096 classes can be scored, got {num_classes}")


def check_pair(a: LabelMap, b: LabelMap) -> None:
    """Refuse label maps that cannot be compared.

    Raises:
        InputError: Their sizes differ, or they are not uint8 or uint16 (H, W).
    """
    for labels in (a, b):
        if labels.dtype not in (np.uint8, np.uint16) or labels.ndim != 2:
            raise InputError(f"a label map must be uint8 or uint16 (height, width), got {labels.dtype} {labels.shape}")
    if a.shape != b.shape:
        raise InputError(f"label maps of {_size(a)} and {_size(b)} cannot be compared; their sizes must agree")


def _size(labels: LabelMap) -> str:
    return f"{labels.shape[0]}x{labels.shape[1]}"


def ratio_of(part: F64, whole: NDArray[Any]) -> F64:
    """Divide element by element; NaN where `whole` is 0."""
    ratio: F64 = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole != 0)
    return ratio


def mean_of(values: F64) -> float:
    """Average the values that are not NaN; NaN where none is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
