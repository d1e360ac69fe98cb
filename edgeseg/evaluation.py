"""Accuracy of a bundle on labelled pictures: IoU of several kinds, accuracy, and how far they hang on the pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.boundaries import BoundaryMatrix
from edgeseg.bundle import Bundle, open_bundle
from edgeseg.errors import InputError, UsageError
from edgeseg.images import MAX_PIXELS
from edgeseg.intervals import FEWEST, RESAMPLES, SHARE, Interval, PictureCounts
from edgeseg.label_files import LabelFile, LabelRules, read_label_file
from edgeseg.labelled import LabelledPictures, MisreadError, check_sizes, shared_label_maps
from edgeseg.labels import LabelMap
from edgeseg.manifest import Manifest
from edgeseg.metrics import ConfusionMatrix
from edgeseg.predictor import Predictor
from edgeseg.runtimes import RuntimeOptions, SessionInfo
from edgeseg.stacks import load_picture

__all__ = ["Evaluation", "LabelledPictures", "evaluate_bundle", "read_labels"]

VOID_IGNORED, VOID_AS_ERROR = "void ignored", "predictions on void count as errors"
"""The two readings of void."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of a bundle on labelled pictures.

    Attributes:
        matrix: Confusion over all pictures, void kept apart.
        boundaries: The same near the outlines of classes, void left out.
        counts: What each picture adds to `matrix`.
        names: Class names of the scored classes.
        images: Number of pictures.
        target: Where it ran.
        engine: Engine and version.
        failures: Pictures that could not be read, or whose label map could not, each with the reason; not scored.
        damaged: Pictures that are scored although they, or their label map, are damaged, each with what is wrong.
        notes: How label values were read where that is not plain, and what the scores suggest of it.
    """

    matrix: ConfusionMatrix
    boundaries: BoundaryMatrix
    counts: PictureCounts
    names: tuple[str, ...]
    images: int
    target: str
    engine: str
    failures: tuple[tuple[str, str], ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def scores(self) -> dict[str, dict[str, float]]:
        """Give two readings: void left out, and predictions on void counted as errors (CamVid's published protocol).

        Boundary IoU is there with void left out only.
        """
        readings = {VOID_IGNORED: {**_scores(self.matrix), "boundary IoU": self.boundaries.miou}}
        if self.matrix.void.any():
            readings[VOID_AS_ERROR] = _scores(self.matrix.with_void_as_error())
        return readings

    def intervals(self) -> dict[str, dict[str, Interval | None]]:
        """Give the range of scores that 95 % of resampled pictures lie in, per reading; see `PictureCounts.intervals`.

        Empty for fewer than 10 pictures. A score without an interval is not in it; one without pixels has None.
        """
        if self.images < FEWEST:
            return {}
        readings = {reading: reading == VOID_AS_ERROR for reading in self.scores()}
        return {name: self.counts.intervals(count_void_as_error=void) for name, void in readings.items()}

    @property
    def absent(self) -> int:
        """Number of classes that are neither in the label maps nor predicted, and so in no mean."""
        return int(np.isnan(self.matrix.iou).sum())

    def rows(self) -> list[dict[str, Any]]:
        """List the classes: name, IoU, accuracy and boundary IoU with void left out, and labelled pixels.

        The first three figures are 0..1, NaN where the class is absent.
        """
        iou, accuracy, boundary = self.matrix.iou, self.matrix.class_accuracy, self.boundaries.iou
        pixels = self.matrix.counts.sum(axis=1)
        return [
            {
                "name": name,
                "iou": float(iou[i]),
                "accuracy": float(accuracy[i]),
                "boundary_iou": float(boundary[i]),
                "pixels": int(pixels[i]),
            }
            for i, name in enumerate(self.names)
        ]

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values; shares are 0..1, absent classes null, intervals null where there are none."""
        return {
            "target": self.target,
            "engine": self.engine,
            "images": self.images,
            "scores": {reading: _plain(scores) for reading, scores in self.scores().items()},
            "intervals": {"share": SHARE, "resamples": RESAMPLES, "fewest": FEWEST, "scores": self.intervals() or None},
            "absent_classes": self.absent,
            "classes": [_plain(row) for row in self.rows()],
            "failures": [{"picture": picture, "error": reason} for picture, reason in self.failures],
            "damaged": [{"picture": picture, "damage": damage} for picture, damage in self.damaged],
            "notes": list(self.notes),
        }


def _scores(matrix: ConfusionMatrix) -> dict[str, float]:
    return {
        "mIoU": float(matrix.miou),
        "class average": float(matrix.mean_class_accuracy),
        "pixel accuracy": float(matrix.pixel_accuracy),
        "frequency-weighted IoU": matrix.frequency_weighted_iou,
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN, which JSON lacks, by None."""
    return {key: None if value != value else value for key, value in values.items()}


def read_labels(
    path: Path,
    *,
    positive_label: int | None = None,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
    rules: LabelRules | None = None,
) -> LabelMap:
    """Read a label map: one channel of 8 or 16 bits, class index per pixel, or a PNG with a colour table (its indices).

    Args:
        path: The file.
        positive_label: Value that means class 1, for masks of 0 and 255.
        max_pixels: Largest height x width in pixels.
        strict: Refuse a damaged file.
        rules: What its values mean, instead of `positive_label`.

    Returns:
        uint8 or uint16 (H, W). Void has the value `LabelRules.void`.

    Raises:
        InputError: Not readable, too large, colours, or with `strict` damaged.
        UsageError: `max_pixels` is below 1, or both `rules` and `positive_label`.

    Example:
        >>> read_labels(folder / "labels" / "sample.png").shape
        (44, 52)
    """
    if rules is not None and positive_label is not None:
        raise UsageError("rules hold the positive_label; give it there alone")
    rules = rules or LabelRules(positive_label=positive_label)
    return read_label_file(path, rules, max_pixels=max_pixels, strict=strict).labels


def evaluate_bundle(
    bundle: str | Path | Bundle,
    data: LabelledPictures,
    *,
    target: str = "ort",
    options: RuntimeOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict labelled pictures and score them at the size of their label maps.

    Args:
        bundle: Folder or opened bundle.
        data: The pictures and their label maps.
        target: Where to run.
        options: How to run.
        progress: Called with the number of pictures done and of all pictures.

    Returns:
        The scores. A picture that cannot be scored (it or its label map cannot be read, is missing, has another aspect
        ratio or labels outside the classes, or the network makes no numbers of it) is listed in `Evaluation.failures`;
        the rest is scored.

    Raises:
        InputError: No pictures, none that can be scored, or label maps that plainly hold Cityscapes' label ids
            (`MisreadError`).
        UsageError: `max_pixels` below 1, or a data set or label map of other classes than the network's.

    Example:
        >>> data = LabelledPictures(folder / "images", folder / "labels")
        >>> evaluate_bundle(bundle, data).matrix.pixel_accuracy
        1.0
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    pairs = data.pairs(opened.manifest.input.image_channels)
    ambiguous = shared_label_maps(pairs)
    scoring = _Scoring(opened.manifest, data)
    with Predictor(
        opened, target, keep_image=False, options=options, max_pixels=data.max_pixels, strict=data.strict
    ) as predictor:
        for done, (picture, labels) in enumerate(pairs, 1):
            if picture in ambiguous:
                scoring.fail(picture, ambiguous[picture])
            else:
                scoring.add(predictor, picture, labels)
            if progress:
                progress(done, len(pairs))
        info = predictor.info
    if len(scoring.failures) == len(pairs):
        raise InputError(f"none of the {len(pairs)} pictures could be scored; the first: {scoring.failures[0][1]}")
    found = scoring.evaluation(info, len(pairs))
    return replace(found, notes=found.notes + data.passed_over(opened.manifest.input.image_channels))


class _Scoring:
    """Scores of the pictures so far.

    Args:
        manifest: Of the bundle.
        data: How label maps are read. Where `ignore` is the last class, that class is not scored.
    """

    def __init__(self, manifest: Manifest, data: LabelledPictures) -> None:
        self._data, self._reader = data, data.reader(manifest.labels, manifest.palette)
        self._channels = manifest.input.image_channels
        self.names = self._reader.names
        self.matrix = ConfusionMatrix(len(self.names))
        self.boundaries = BoundaryMatrix(len(self.names))
        self.pictures = PictureCounts()
        self.failures: list[tuple[str, str]] = []
        self.damaged: list[tuple[str, str]] = []
        self._notes: dict[str, int] = {}

    def add(self, predictor: Predictor, picture: Path, file: Path) -> None:
        """Predict a picture and count it against the label map in `file`.

        Raises:
            MisreadError: The label map plainly follows another rule, so that the others are read wrongly too.
        """
        try:
            read = self._reader.read(file)
            max_pixels, strict = self._data.max_pixels, self._data.strict
            decoded = load_picture(picture, self._channels, max_pixels=max_pixels, strict=strict)
            notes = check_sizes(file, read.labels.shape, decoded.image.shape[:2])
            size = (read.labels.shape[0], read.labels.shape[1])
            labels = predictor(decoded.image, output=size).labels
        except MisreadError:
            raise
        except (InputError, UsageError) as error:
            self.fail(picture, str(error))
            return
        self._count(read, labels)
        self.damaged.extend((str(picture), note) for note in decoded.damaged)
        self.damaged.extend((str(picture), f"label map '{file}': {note}") for note in read.damaged)
        for note in (*read.notes, *notes):
            self._notes[note] = self._notes.get(note, 0) + 1

    def fail(self, picture: Path, reason: str) -> None:
        """List a picture that is not scored."""
        self.failures.append((str(picture), reason))

    def _count(self, read: LabelFile, labels: LabelMap) -> None:
        one = ConfusionMatrix(len(self.names))
        one.update(read.labels, labels, ignore=read.void)
        self.matrix += one
        self.pictures.add(one)
        self.boundaries.update(read.labels, labels, ignore=read.void)

    def evaluation(self, info: SessionInfo, pairs: int) -> Evaluation:
        """Give what was scored of so many pairs."""
        return Evaluation(
            matrix=self.matrix,
            boundaries=self.boundaries,
            counts=self.pictures,
            names=self.names,
            images=pairs - len(self.failures),
            target=info.target,
            engine=info.engine,
            failures=tuple(self.failures),
            damaged=tuple(self.damaged),
            notes=self._all_notes(),
        )

    def _all_notes(self) -> tuple[str, ...]:
        """List the notes on label maps with their number, and what the scores suggest."""
        notes = [f"{note} ({count} label map{'s' * (count > 1)})" for note, count in self._notes.items()]
        return (*self._reader.notes, *notes, *self._reader.suspicions(self.matrix))
