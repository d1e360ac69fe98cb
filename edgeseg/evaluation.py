"""Accuracy of a bundle on labelled pictures: mIoU, class accuracy and pixel accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bundle import Bundle, open_bundle
from edgeseg.datasets import CITYSCAPES_IDS, dataset, explain_values, is_cityscapes_ids, recognise_layout, void_colors
from edgeseg.errors import InputError, UsageError
from edgeseg.images import MAX_PIXELS
from edgeseg.label_files import LabelFile, LabelRules, listed, read_label_file
from edgeseg.label_tables import read_label_table
from edgeseg.labels import LABEL_SETS, Color, LabelMap, label_set
from edgeseg.manifest import Manifest
from edgeseg.metrics import ConfusionMatrix
from edgeseg.predictor import Predictor
from edgeseg.runtimes import RuntimeOptions
from edgeseg.sources import list_images

__all__ = ["Evaluation", "LabelledPictures", "evaluate_bundle", "read_labels"]


@dataclass(frozen=True)
class LabelledPictures:
    """A folder of pictures, a folder of their label maps, and how both are read.

    Attributes:
        images: Folder of pictures.
        labels: Folder of label maps, the picture's stem and `label_suffix` for each picture.
        ignore: Label value of void pixels, 0..65535. Where the network has an output for it, that class is not scored
            and a prediction of it is a miss.
        positive_label: Label value that means class 1. Where it is 255, values between are cut at half.
        limit: Take only the first so many pictures.
        max_pixels: Largest height x width of a picture and of a label map.
        strict: Count damaged pictures and label maps as failures. Otherwise they are scored and listed in
            `Evaluation.damaged`.
        reduce_zero_label: 0 is void, and k + 1 means class k.
        label_map: JSON or CSV file of label value (or #RRGGBB) -> class or void, see `read_label_table`.
        label_suffix: What follows the picture's stem in the label map's name.
        dataset: Name of a data set as downloaded; `images` and `labels` are then both its root (`from_dataset`).

    Raises:
        UsageError: A label value outside 0..65535, a limit below 1, or options that cancel one another.

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
    reduce_zero_label: bool = False
    label_map: str | Path | None = None
    label_suffix: str = ".png"
    dataset: str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit is {self.limit}; it must be at least 1")
        if self.label_map is not None and (self.positive_label is not None or self.reduce_zero_label):
            other = "positive_label" if self.positive_label is not None else "reduce_zero_label"
            raise UsageError(f"{other} and label_map each say what a label value means; give one of them")
        rules = LabelRules(self.ignore, self.positive_label, self.reduce_zero_label)
        if self.dataset is not None:
            dataset(self.dataset)
            if rules != LabelRules() or self.label_map is not None or self.label_suffix != ".png":
                raise UsageError(
                    f"the data set {self.dataset} says itself what its label values and files are; leave out ignore, "
                    "positive_label, reduce_zero_label, label_map and label_suffix"
                )

    @classmethod
    def from_dataset(
        cls,
        name: str,
        root: str | Path,
        *,
        limit: int | None = None,
        max_pixels: int = MAX_PIXELS,
        strict: bool = False,
    ) -> LabelledPictures:
        """Take a data set as it was downloaded.

        Args:
            name: One of `edgeseg.datasets.DATASETS`.
            root: Folder that its archive was unpacked to.
            limit: As `LabelledPictures`.
            max_pixels: As `LabelledPictures`.
            strict: As `LabelledPictures`.

        Raises:
            UnknownNameError: No such data set.
            UsageError: A limit below 1.

        Example:
            >>> LabelledPictures.from_dataset("binary", folder).pairs()[0][1].name
            'sample.png'
        """
        return cls(root, root, limit=limit, max_pixels=max_pixels, strict=strict, dataset=name)

    def pairs(self) -> list[tuple[Path, Path]]:
        """List each picture with its label map, in natural order; a label map may be missing, not all of them.

        Raises:
            InputError: A folder is missing, there are no pictures, or none has a label map.
        """
        images, labels = Path(self.images), Path(self.labels)
        if self.dataset is not None:
            return dataset(self.dataset).open(images)[1][: self.limit]
        if not labels.is_dir():
            raise InputError(f"no folder of label maps at '{labels}'; give the folder with --labels")
        if not images.is_dir():
            raise InputError(f"no folder of pictures at '{images}'; give the folder with --images")
        advice = recognise_layout(images, labels)
        try:
            pictures = list_images(images)
        except InputError as error:
            if not any(entry.is_dir() for entry in images.iterdir()):
                raise
            why = advice or "give the folder that the pictures lie in, or use --dataset NAME ROOT"
            raise InputError(f"folder '{images}' holds folders and no images; {why}") from error
        pairs = [(picture, labels / f"{picture.stem}{self.label_suffix}") for picture in pictures]
        if not any(labelled.is_file() for _, labelled in pairs):
            raise InputError(
                f"{len(pairs)} of {len(pairs)} pictures have no label map in '{labels}' (first: {pictures[0].name}); "
                f"{advice or f'expected STEM{self.label_suffix} for each (--label-suffix)'}"
            )
        return pairs[: self.limit]

    def rules(self, manifest: Manifest) -> LabelRules:
        """Say what stored values mean for a network.

        Raises:
            UsageError: `label_map` cannot be read or does not fit the network, or the options cancel one another.
            InputError: The data set is not there.
        """
        if self.dataset is not None:
            return dataset(self.dataset).open(Path(self.images))[0].rules
        colors = _palette_colors(manifest)
        if self.label_map is None:
            return LabelRules(self.ignore, self.positive_label, self.reduce_zero_label, colors=colors)
        values, named = read_label_table(Path(self.label_map), manifest.labels)
        if values:
            return LabelRules(self.ignore, table=values, colors=named or None)
        table = {color[0]: label for color, label in named.items() if len(set(color)) == 1}
        return LabelRules(self.ignore, table=table, colors=named, colors_only=True)


def _palette_colors(manifest: Manifest) -> dict[Color, int | None]:
    """Give the classes' colours, and those of void in the data set whose classes they are."""
    count = len(manifest.labels)
    chosen = [name for name in LABEL_SETS if label_set(name, count).names == manifest.labels]
    void = void_colors(chosen[0]) if chosen else ()
    palette = manifest.palette
    return {
        **dict.fromkeys(void),
        **{color: index for index, color in enumerate(palette) if palette.count(color) == 1},
    }


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
        notes: How label values were read where that is not plain, and what the scores suggest of it.
    """

    matrix: ConfusionMatrix
    names: tuple[str, ...]
    images: int
    target: str
    engine: str
    failures: tuple[tuple[str, str], ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

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
            "notes": list(self.notes),
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
    """Predict labelled pictures at their own size and score them.

    Args:
        bundle: Folder or opened bundle.
        data: The pictures and their label maps.
        target: Where to run.
        options: How to run.
        progress: Called with the number of pictures done and of all pictures.

    Returns:
        The scores. A picture that cannot be scored (it or its label map cannot be read, is missing, has another size or
        labels outside the classes) is listed in `Evaluation.failures`; the rest is scored.

    Raises:
        InputError: No pictures, none that can be scored, or label maps that plainly hold Cityscapes' label ids.
        UsageError: `max_pixels` below 1, or a data set or label map of other classes than the network's.

    Example:
        >>> data = LabelledPictures(folder / "images", folder / "labels")
        >>> evaluate_bundle(bundle, data).matrix.pixel_accuracy
        1.0
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    pairs = data.pairs()
    scoring = _Scoring(opened.manifest, data)
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
    return Evaluation(
        scoring.matrix, scoring.names, scored, info.target, info.engine, failures, damaged, scoring.all_notes()
    )


class _Scoring:
    """Scores of the pictures so far.

    Args:
        manifest: Of the bundle.
        data: How label maps are read. Where `ignore` is the last class, that class is not scored.
    """

    def __init__(self, manifest: Manifest, data: LabelledPictures) -> None:
        self.names = _scored_names(manifest.labels, data)
        self.matrix = ConfusionMatrix(len(self.names))
        self.failures: list[tuple[str, str]] = []
        self.damaged: list[tuple[str, str]] = []
        self._data = data
        self._rules = data.rules(manifest)
        self._notes: dict[str, int] = {}

    def add(self, predictor: Predictor, picture: Path, file: Path) -> None:
        """Predict a picture and count it against the label map in `file`.

        Raises:
            InputError: The label map plainly follows another rule, so that the others are read wrongly too.
        """
        try:
            read = read_label_file(file, self._rules, max_pixels=self._data.max_pixels, strict=self._data.strict)
            outside = read.outside(len(self.names))
            result = None if len(outside) else predictor(picture)
            if result is not None:
                self._count(read, result.labels, file)
        except InputError as error:
            self.failures.append((str(picture), str(error)))
            return
        if result is None:
            self._refuse(picture, file, outside.tolist())
            return
        self.damaged.extend((str(picture), note) for note in result.damaged)
        self.damaged.extend((str(picture), f"label map '{file}': {note}") for note in read.damaged)
        for note in read.notes:
            self._notes[note] = self._notes.get(note, 0) + 1

    def _count(self, read: LabelFile, labels: LabelMap, file: Path) -> None:
        try:
            self.matrix.update(read.labels, labels, ignore=read.void)
        except InputError as error:
            raise InputError(f"label map '{file}': {error}") from error

    def _refuse(self, picture: Path, file: Path, outside: list[int]) -> None:
        """Explain values that are no class."""
        classes, ignore = len(self.names), self._data.ignore
        known = f"0..{classes - 1}" + ("" if ignore is None else f" and void ({ignore})")
        why = explain_values(outside, classes, ignore)
        if self._data.dataset is not None:
            known, why = f"the values of {self._data.dataset}", "check the file, or score it without --dataset"
        elif self._data.label_map is not None:
            known, why = f"the values of '{self._data.label_map}'", "name them there, as a class or void"
        message = f"label map '{file}': the label map holds {listed(outside)}, expected {known}; {why}"
        if not self._rules.changes and is_cityscapes_ids(outside, classes):
            raise InputError(message)
        self.failures.append((str(picture), message))

    def all_notes(self) -> tuple[str, ...]:
        """List the notes on label maps with their number, and what the scores suggest."""
        notes = [f"{note} ({count} label map{'s' * (count > 1)})" for note, count in self._notes.items()]
        return (*notes, *self._suspicions())

    def _suspicions(self) -> list[str]:
        counts, ignore = self.matrix.counts, self._data.ignore
        hits = int(np.diagonal(counts).sum())
        if self._rules.positive_label is not None and not counts[1].sum():
            return [f"no label map holds the positive label {self._rules.positive_label}; class 1 is not scored"]
        classes = len(counts)
        if self._rules.changes:
            higher = int(np.diagonal(counts[:, :-1], 1).sum())
            if self._rules.reduce_zero_label and classes > 2 and higher > hits:
                return ["the labels agree better when read as they are stored; check whether 0 is void"]
            if self._rules.positive_label is not None and counts.sum() > 2 * hits:
                return ["most pixels disagree, as where the two classes are swapped; check what the labels mean"]
            return []
        by_id = sum(int(counts[label, train_id]) for label, train_id in CITYSCAPES_IDS.items() if label < classes)
        if classes in (19, 20) and by_id > hits:
            return ["the labels agree better when read as Cityscapes label ids; check them, see --dataset cityscapes"]
        lower = int(np.diagonal(counts, -1).sum()) + (int(counts[1, -1]) if ignore == 0 and classes > 1 else 0)
        if classes > 2 and lower > hits:
            return [
                "the labels agree better when read one lower, as where 0 is void and k + 1 means class k; "
                "check them, see --reduce-zero-label"
            ]
        return ["class 0 is void and not scored; see --reduce-zero-label where 0 is no class"] * (ignore == 0)


def _scored_names(names: tuple[str, ...], data: LabelledPictures) -> tuple[str, ...]:
    """Choose the classes that are scored.

    Raises:
        UsageError: The data set has other classes than the network.
    """
    if data.dataset is None:
        changed = data.positive_label is not None or data.reduce_zero_label or data.label_map is not None
        return names[:-1] if data.ignore == len(names) - 1 and not changed else names
    count = dataset(data.dataset).classes
    if len(names) not in (count, count + (data.dataset in ("cityscapes", "camvid"))):
        raise UsageError(
            f"the data set {data.dataset} has {count} classes, the network {len(names)}; give its own labels"
        )
    return names[:count]
