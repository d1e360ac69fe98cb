"""Accuracy of a bundle on labelled pictures: mIoU, class accuracy and pixel accuracy."""

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

__all__ = ["Evaluation", "LabelledPictures", "evaluate_bundle", "read_labels"]

_LARGEST_LABEL = 65535


@dataclass(frozen=True)
class LabelledPictures:
    """A folder of pictures, a folder of their label maps, and how both are read.

    Attributes:
        images: Folder of pictures.
        labels: Folder of label maps, ``STEM.png`` for each picture.
        ignore: Label value of void pixels, 0..65535. Where the network has an output for it, that class is not scored
            and a prediction of it is a miss.
        positive_label: Label value that means class 1.
        limit: Take only the first so many pictures.
        max_pixels: Largest height x width of a picture and of a label map.
        strict: Count damaged pictures and label maps as failures. Otherwise they are scored and listed in
            `Evaluation.damaged`.

    Raises:
        UsageError: A label value outside 0..65535, or a limit below 1.

    Example:
        >>> [picture.name for picture, labels in LabelledPictures(folder / "images", folder / "labels").pairs()]
        ['sample.png']
    """

    images: str | Path
    labels: str | Path
    ignore: int | None = None
    positive_label: int | None = None
    limit: int | None = None
    max_pixels: int = MAX_PIXELS
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("ignore", "positive_label"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _LARGEST_LABEL:
                raise UsageError(f"{name} is {value}; a label value is between 0 and {_LARGEST_LABEL}")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit is {self.limit}; it must be at least 1")

    def pairs(self) -> list[tuple[Path, Path]]:
        """List each picture with its label map, in natural order.

        Raises:
            InputError: A folder is missing, there are no pictures, or one has no label map.
        """
        images, labels = Path(self.images), Path(self.labels)
        if not labels.is_dir():
            raise InputError(f"no folder of label maps at '{labels}'; give the folder with --labels")
        if not images.is_dir():
            raise InputError(f"no folder of pictures at '{images}'; give the folder with --images")
        pairs = [(picture, labels / f"{picture.stem}.png") for picture in list_images(images)]
        lacking = [picture.name for picture, labelled in pairs if not labelled.is_file()]
        if lacking:
            raise InputError(
                f"{len(lacking)} of {len(pairs)} pictures have no label map in '{labels}' (first: {lacking[0]}); "
                "expected STEM.png for each"
            )
        return pairs[: self.limit]


@dataclass(frozen=True)
class Evaluation:
    """Scores of a bundle on labelled pictures.

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
        """Give two readings: void left out, and predictions on void counted as errors (CamVid's published protocol)."""
        readings = {"void ignored": _scores(self.matrix)}
        if self.matrix.void.any():
            readings["predictions on void count as errors"] = _scores(self.matrix.with_void_as_error())
        return readings

    def rows(self) -> list[dict[str, Any]]:
        """List the classes: name, IoU and accuracy (0..1, NaN where absent) with void left out, and labelled pixels."""
        iou, accuracy = self.matrix.iou, self.matrix.class_accuracy
        pixels = self.matrix.counts.sum(axis=1)
        return [
            {"name": name, "iou": float(iou[i]), "accuracy": float(accuracy[i]), "pixels": int(pixels[i])}
            for i, name in enumerate(self.names)
        ]

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values; shares are 0..1, absent classes null."""
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
    """Replace NaN, which JSON lacks, by None."""
    return {key: None if value != value else value for key, value in values.items()}


def read_labels(
    path: Path, *, positive_label: int | None = None, max_pixels: int = MAX_PIXELS, strict: bool = False
) -> LabelMap:
    """Read a label map: a single-channel PNG of 8 or 16 bits, class index per pixel, without a colour table.

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

    Example:
        >>> read_labels(folder / "labels" / "sample.png").shape
        (44, 52)
    """
    return _load_labels(path, positive_label, max_pixels, strict)[0]


def _load_labels(
    path: Path, positive_label: int | None, max_pixels: int, strict: bool
) -> tuple[LabelMap, tuple[str, ...]]:
    """Read a label map, and sentences on its damage."""
    name = f"label map '{one_line(path, 300)}'"
    decoded = decode(read_file(path, name, max_pixels), name, max_pixels=max_pixels, strict=strict, stored=True)
    data = decoded.image
    if data.ndim != 2 or data.dtype not in (np.uint8, np.uint16):
        shape = "x".join(map(str, data.shape))
        raise InputError(
            f"{name} is {data.dtype} {shape}; expected one 8-bit or 16-bit channel with a class per pixel, "
            "without a colour table"
        )
    labels: LabelMap = np.asarray(data)
    return (labels if positive_label is None else (labels == positive_label).astype(np.uint8)), decoded.damaged


def evaluate_bundle(
    bundle: str | Path | Bundle,
    data: LabelledPictures,
    *,
    target: str = "ort",
    options: RuntimeOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict labelled pictures at their own size and score them.

    Args:
        bundle: Folder or opened bundle.
        data: The pictures and their label maps.
        target: Where to run.
        options: How to run.
        progress: Called with the number of pictures done and of all pictures.

    Returns:
        The scores. A picture or label map that cannot be read is listed in `Evaluation.failures`; the rest is scored.

    Raises:
        InputError: No pictures, none that can be read, a picture without label map, sizes that differ, or a label
            outside the classes.
        UsageError: `max_pixels` below 1.

    Example:
        >>> data = LabelledPictures(folder / "images", folder / "labels")
        >>> evaluate_bundle(bundle, data).matrix.pixel_accuracy
        1.0
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    pairs = data.pairs()
    scoring = _Scoring(opened.manifest.labels, data)
    with Predictor(
        opened, target, keep_image=False, options=options, max_pixels=data.max_pixels, strict=data.strict
    ) as predictor:
        for done, (picture, labels) in enumerate(pairs, 1):
            scoring.add(predictor, picture, labels)
            if progress:
                progress(done, len(pairs))
        info = predictor.info
    if len(scoring.failures) == len(pairs):
        raise InputError(f"none of the {len(pairs)} pictures could be scored; the first: {scoring.failures[0][1]}")
    scored = len(pairs) - len(scoring.failures)
    failures, damaged = tuple(scoring.failures), tuple(scoring.damaged)
    return Evaluation(scoring.matrix, scoring.names, scored, info.target, info.engine, failures, damaged)


class _Scoring:
    """Scores of the pictures so far.

    Args:
        names: Class names of the network's labels.
        data: How label maps are read. Where `ignore` is the last class, that class is not scored.
    """

    def __init__(self, names: tuple[str, ...], data: LabelledPictures) -> None:
        self.names = names[:-1] if data.ignore == len(names) - 1 else names
        self.matrix = ConfusionMatrix(len(self.names))
        self.failures: list[tuple[str, str]] = []
        self.damaged: list[tuple[str, str]] = []
        self._data = data

    def add(self, predictor: Predictor, picture: Path, file: Path) -> None:
        """Predict a picture and count it against the label map in `file`.

        Raises:
            InputError: The label map has another size than the picture, or labels outside the classes.
        """
        data = self._data
        try:
            labels, damage = _load_labels(file, data.positive_label, data.max_pixels, data.strict)
            result = predictor(picture)
        except InputError as error:
            self.failures.append((str(picture), str(error)))
            return
        try:
            self.matrix.update(labels, result.labels, ignore=data.ignore)
        except InputError as error:
            raise InputError(f"label map '{file}': {error}") from error
        self.damaged.extend((str(picture), note) for note in result.damaged)
        self.damaged.extend((str(picture), f"label map '{file}': {note}") for note in damage)
