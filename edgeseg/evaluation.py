"""Accuracy of a bundle on labelled pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.bundle import Bundle, open_bundle
from edgeseg.errors import InputError
from edgeseg.metrics import ConfusionMatrix
from edgeseg.predictor import Predictor
from edgeseg.runtimes import RuntimeOptions
from edgeseg.sources import list_images

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
    """

    matrix: ConfusionMatrix
    names: tuple[str, ...]
    images: int
    target: str
    engine: str

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
        rows = [{key: None if value != value else value for key, value in row.items()} for row in self.rows()]
        return {
            "target": self.target,
            "engine": self.engine,
            "images": self.images,
            "scores": self.scores(),
            "classes": rows,
        }


def _scores(matrix: ConfusionMatrix) -> dict[str, float]:
    return {
        "mIoU": float(matrix.miou),
        "class average": float(matrix.mean_class_accuracy),
        "pixel accuracy": float(matrix.pixel_accuracy),
    }


def read_labels(path: Path, *, one: int | None = None) -> NDArray[np.uint8]:
    """Read a label map: single-channel PNG, class index per pixel, as stored (no colour table applied).

    Args:
        path: The file.
        one: Value that means class 1, for masks of 0 and 255.

    Raises:
        InputError: Not readable, or more than one channel.
    """
    data = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
    if data is None:
        raise InputError(f"label map '{path}' cannot be read as a picture; expected a single-channel PNG")
    if data.ndim != 2 or data.dtype != np.uint8:
        shape = "x".join(map(str, data.shape))
        raise InputError(
            f"label map '{path}' is {data.dtype} {shape}; expected one 8-bit channel with a class per pixel"
        )
    labels: NDArray[np.uint8] = data.astype(np.uint8, copy=False)
    return labels if one is None else (labels == one).astype(np.uint8)


def evaluate_bundle(
    bundle: str | Path | Bundle,
    images: str | Path,
    labels: str | Path,
    *,
    target: str = "ort",
    ignore: int | None = None,
    one: int | None = None,
    options: RuntimeOptions | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict labelled pictures at their own size and score them.

    Args:
        bundle: Folder or opened bundle.
        images: Folder of pictures.
        labels: Folder of label maps with the same stems.
        target: Where to run.
        ignore: Label value of void pixels; where the network has an output for it (the last one), that class is not
            scored and a prediction of it is a miss.
        one: Label value that means class 1.
        options: How to run.
        limit: Only the first so many pictures.
        progress: Called with pictures done and in all.

    Raises:
        InputError: No pictures, a picture without label map, sizes that differ, or a label outside the classes.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    pairs = _pairs(Path(images), Path(labels))[:limit]
    names = opened.manifest.labels
    scored = names[:ignore] if ignore is not None and ignore < len(names) else names
    matrix = ConfusionMatrix(len(scored))
    with Predictor(opened, target, keep_image=False, options=options) as predictor:
        for done, (picture, truth_file) in enumerate(pairs, 1):
            truth = read_labels(truth_file, one=one)
            matrix.update(truth, predictor(picture).labels, ignore=ignore)
            if progress:
                progress(done, len(pairs))
        engine = predictor.info.engine
    return Evaluation(matrix, scored, len(pairs), target, engine)


def _pairs(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    if not labels.is_dir():
        raise InputError(f"no folder of label maps at '{labels}'; give the folder with --labels")
    pictures = list_images(images)
    pairs = [(picture, labels / f"{picture.stem}.png") for picture in pictures]
    lacking = [picture.name for picture, truth in pairs if not truth.is_file()]
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(pairs)} pictures have no label map in '{labels}' (first: {lacking[0]}); "
            "expected STEM.png for each"
        )
    return pairs
