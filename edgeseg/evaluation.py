"""Accuracy of a bundle on labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bundle import Bundle, open_bundle
from edgeseg.decoding import decode
from edgeseg.errors import InputError, UsageError
from edgeseg.images import MAX_PIXELS, read_file
from edgeseg.labels import LabelMap
from edgeseg.metrics import ConfusionMatrix
from edgeseg.predictor import Predictor
from edgeseg.runtimes import RuntimeOptions
from edgeseg.sources import list_images
from edgeseg.text import one_line

__all__ = ["Evaluation", "evaluate_bundle", "read_labels"]


@dataclass(frozen=True)
class Evaluation:
    """Scores of a bundle.

    Attributes:
        matrix: Confusion over all pictures, void kept apart.
        names: Class names of the scored classes.
        images: Number of pictures.
        target: Where it ran.
        engine: Engine and version.
        failures: Pictures that could not be read, or whose label map could not, each with the reason; not scored.
        damaged: Pictures that are scored although they, or their label map, are damaged, each with what is wrong.
    """

    matrix: ConfusionMatrix
    names: tuple[str, ...]
    images: int
    target: str
    engine: str
    failures: tuple[tuple[str, str], ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()

    def scores(self) -> dict[str, dict[str, float]]:
        """Two readings: void left out, and predictions on void counted as errors (the published CamVid protocol)."""
        readings = {"void ignored": _scores(self.matrix)}
        if self.matrix.void.any():
            readings["predictions on void count as errors"] = _scores(self.matrix.with_void_as_error())
        return readings

    def rows(self) -> list[dict[str, Any]]:
        """Per class: name, IoU and accuracy (0..1, NaN where absent) with void left out, and labelled pixels."""
        iou, accuracy = self.matrix.iou, self.matrix.class_accuracy
        pixels = self.matrix.counts.sum(axis=1)
        return [
            {"name": name, "iou": float(iou[i]), "accuracy": float(accuracy[i]), "pixels": int(pixels[i])}
            for i, name in enumerate(self.names)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; shares are 0..1, absent classes null."""
        return {
            "target": self.target,
            "engine": self.engine,
            "images": self.images,
            "scores": {reading: _plain(scores) for reading, scores in self.scores().items()},
            "classes": [_plain(row) for row in self.rows()],
            "failures": [{"picture": picture, "error": reason} for picture, reason in self.failures],
            "damaged": [{"picture": picture, "damage": damage} for picture, damage in self.damaged],
        }


def _scores(matrix: ConfusionMatrix) -> dict[str, float]:
    return {
        "mIoU": float(matrix.miou),
        "class average": float(matrix.mean_class_accuracy),
        "pixel accuracy": float(matrix.pixel_accuracy),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {key: None if value != value else value for key, value in values.items()}


def read_labels(
    path: Path, *, positive_label: int | None = None, max_pixels: int = MAX_PIXELS, strict: bool = False
) -> LabelMap:
    """Read a label map: single-channel PNG, class index per pixel, 8 or 16 bits. With a colour table it is refused.

    Args:
        path: The file.
        positive_label: Value that means class 1, for masks of 0 and 255.
        max_pixels: Largest height x width in pixels.
        strict: Refuse a damaged file.

    Returns:
        uint8 or uint16 (H, W).

    Raises:
        InputError: Not readable, too large, more than one channel, or with `strict` damaged.
        UsageError: `max_pixels` is below 1.
    """
    return _load_labels(path, positive_label, max_pixels, strict)[0]


def _load_labels(
    path: Path, positive_label: int | None, max_pixels: int, strict: bool
) -> tuple[LabelMap, tuple[str, ...]]:
    name = f"label map '{one_line(path, 300)}'"
    found = decode(read_file(path, name, max_pixels), name, max_pixels=max_pixels, strict=strict, stored=True)
    data = found.image
    if data.ndim != 2 or data.dtype not in (np.uint8, np.uint16):
        shape = "x".join(map(str, data.shape))
        raise InputError(
            f"{name} is {data.dtype} {shape}; expected one 8-bit or 16-bit channel with a class per pixel, "
            "without a colour table"
        )
    labels: LabelMap = np.asarray(data)
    return (labels if positive_label is None else (labels == positive_label).astype(np.uint8)), found.damaged


def evaluate_bundle(
    bundle: str | Path | Bundle,
    images: str | Path,
    labels: str | Path,
    *,
    target: str = "ort",
    ignore: int | None = None,
    positive_label: int | None = None,
    options: RuntimeOptions | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
) -> Evaluation:
    """Predict labelled pictures at their own size and score them.

    Args:
        bundle: Folder or opened bundle.
        images: Folder of pictures.
        labels: Folder of label maps with the same stems.
        target: Where to run.
        ignore: Label value of void pixels, 0..65535; where the network has an output for it, that class is not scored
            and a prediction of it is a miss.
        positive_label: Label value that means class 1.
        options: How to run.
        limit: Only the first so many pictures.
        progress: Called with pictures done and in all.
        max_pixels: Largest height x width of a picture and of a label map.
        strict: Take damaged pictures and label maps for failures; without it they are scored and listed in
            `Evaluation.damaged`.

    Returns:
        The scores. A picture or label map that cannot be read is listed in `Evaluation.failures`; the rest is scored.

    Raises:
        InputError: No pictures, none that can be read, a picture without label map, sizes that differ, or a label
            outside the classes.
        UsageError: A label value outside 0..65535, or a limit or `max_pixels` below 1.
    """
    _check_numbers(ignore, positive_label, limit)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    pairs = _pairs(Path(images), Path(labels))[:limit]
    names = opened.manifest.labels
    scored = names[:-1] if ignore == len(names) - 1 else names
    matrix = ConfusionMatrix(len(scored))
    failures: list[tuple[str, str]] = []
    damaged: list[tuple[str, str]] = []
    with Predictor(
        opened, target, keep_image=False, options=options, max_pixels=max_pixels, strict=strict
    ) as predictor:
        for done, (picture, truth_file) in enumerate(pairs, 1):
            try:
                truth, notes = _load_labels(truth_file, positive_label, max_pixels, strict)
                predicted = predictor(picture)
            except InputError as error:
                failures.append((str(picture), str(error)))
            else:
                _count(matrix, truth_file, truth, predicted.labels, ignore)
                damaged.extend((str(picture), note) for note in predicted.damaged)
                damaged.extend((str(picture), f"label map '{truth_file}': {note}") for note in notes)
            if progress:
                progress(done, len(pairs))
        info = predictor.info
    if len(failures) == len(pairs):
        raise InputError(f"none of the {len(pairs)} pictures could be scored; the first: {failures[0][1]}")
    scores = len(pairs) - len(failures)
    return Evaluation(matrix, scored, scores, info.target, info.engine, tuple(failures), tuple(damaged))


def _check_numbers(ignore: int | None, positive_label: int | None, limit: int | None) -> None:
    for name, value in (("ignore", ignore), ("positive_label", positive_label)):
        if value is not None and not 0 <= value <= 65535:
            raise UsageError(f"{name} is {value}; a label value is between 0 and 65535")
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; it must be at least 1")


def _count(matrix: ConfusionMatrix, file: Path, truth: LabelMap, labels: LabelMap, ignore: int | None) -> None:
    try:
        matrix.update(truth, labels, ignore=ignore)
    except InputError as error:
        raise InputError(f"label map '{file}': {error}") from error


def _pairs(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    if not labels.is_dir():
        raise InputError(f"no folder of label maps at '{labels}'; give the folder with --labels")
    if not images.is_dir():
        raise InputError(f"no folder of pictures at '{images}'; give the folder with --images")
    pictures = list_images(images)
    pairs = [(picture, labels / f"{picture.stem}.png") for picture in pictures]
    lacking = [picture.name for picture, truth in pairs if not truth.is_file()]
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(pairs)} pictures have no label map in '{labels}' (first: {lacking[0]}); "
            "expected STEM.png for each"
        )
    return pairs
