"""Pictures with label maps: which belongs to which, and how stored label values are read as classes of a network.

`edgeseg eval` and the calibration of int8 go through the same two classes, so that a label map means the same to both.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.datasets import (
    CITYSCAPES_IDS,
    COCO_STUFF_IDS,
    dataset,
    explain_values,
    is_cityscapes_ids,
    recognise_layout,
    void_colors,
)
from edgeseg.errors import InputError, UsageError
from edgeseg.images import MAX_PIXELS
from edgeseg.label_files import LabelFile, LabelRules, listed, read_label_file
from edgeseg.label_tables import read_label_table
from edgeseg.labels import LABEL_SETS, Color, label_set
from edgeseg.metrics import ConfusionMatrix
from edgeseg.sources import list_images, passed_over

__all__ = ["OWN_SIZE", "LabelReader", "LabelledPictures", "MisreadError", "check_sizes", "shared_label_maps"]

OWN_SIZE = "scored at the label map's own size, which is not its picture's"
"""Note on a label map whose size is not its picture's."""

_NEARLY = 0.05  # by which the aspect ratio of a small label map may be off where its sides were rounded


class MisreadError(InputError):
    """A label map that plainly follows another rule, so that the others are read wrongly too."""


@dataclass(frozen=True)
class LabelledPictures:
    """A folder of pictures, a folder of their label maps, and how both are read.

    Attributes:
        images: Folder of pictures.
        labels: Folder of label maps, the picture's stem and `label_suffix` for each picture. It may be that of the
            pictures.
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
        recursive: Also take the pictures of subfolders; their label maps lie in the same subfolders of `labels`.
        flags: How the options begin that messages advise: ``--`` for `edgeseg eval`, ``--calib-`` for the export.

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
    recursive: bool = False
    flags: str = "--"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit is {self.limit}; it must be at least 1")
        if self.label_map is not None and (self.positive_label is not None or self.reduce_zero_label):
            other = "positive_label" if self.positive_label is not None else "reduce_zero_label"
            raise UsageError(f"{other} and label_map each say what a label value means; give one of them")
        rules = LabelRules(self.ignore, self.positive_label, self.reduce_zero_label)
        if self.dataset is not None:
            dataset(self.dataset)
            plain = self.label_map is None and self.label_suffix == ".png" and not self.recursive
            if rules != LabelRules() or not plain:
                raise UsageError(
                    f"the data set {self.dataset} says itself what its label values and files are; leave out ignore, "
                    "positive_label, reduce_zero_label, label_map, label_suffix and recursive"
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

    @property
    def changes(self) -> bool:
        """Whether an option says that stored values are not the classes themselves."""
        return self.positive_label is not None or self.reduce_zero_label or self.label_map is not None

    def pairs(self, channels: int = 3) -> list[tuple[Path, Path]]:
        """List each picture with its label map, in natural order; a label map may be missing, not all of them.

        Args:
            channels: Of the pictures; see `edgeseg.sources.list_images`.

        Raises:
            InputError: A folder is missing, there are no pictures, or none has a label map.
        """
        images, labels = Path(self.images), Path(self.labels)
        if self.dataset is not None:
            return dataset(self.dataset).open(images)[1][: self.limit]
        if not labels.is_dir():
            raise InputError(f"no folder of label maps at '{labels}'; give the folder with {self.flags}labels")
        if not images.is_dir():
            raise InputError(f"no folder of pictures at '{images}'; give the folder with {self._images_flag}")
        advice = recognise_layout(images, labels, self.flags)
        pairs = self._matched(self._pictures(images, advice, channels), images, labels)
        if not any(labelled.is_file() for _, labelled in pairs):
            raise InputError(
                f"{len(pairs)} of {len(pairs)} pictures have no label map in '{labels}' (first: {pairs[0][0].name}); "
                f"{advice or self._expected(*pairs[0])}"
            )
        return pairs[: self.limit]

    def passed_over(self, channels: int = 3) -> tuple[str, ...]:
        """Say which files of the folder of pictures are none, and why; a data set's other files belong there.

        Args:
            channels: As `pairs`.

        Raises:
            InputError: The folder cannot be read.
        """
        return () if self.dataset else passed_over(Path(self.images), recursive=self.recursive, channels=channels)

    @property
    def _images_flag(self) -> str:
        return self.flags.rstrip("-") or f"{self.flags}images"

    def _expected(self, picture: Path, labelled: Path) -> str:
        """Say what a label map must be called, and the suffix of one that is there under another."""
        where = ", in the same subfolder" if self.recursive else ""
        expected = f"expected STEM{self.label_suffix} for each{where} ({self.flags}label-suffix)"
        ends = (file.name.removeprefix(picture.stem) for file in labelled.parent.glob(f"{glob.escape(picture.stem)}*"))
        likely = sorted(end for end in ends if not end[:1].isalnum() and end)
        return (
            f"{expected}; for '{picture.stem}{likely[0]}' use {self.flags}label-suffix {likely[0]}"
            if likely
            else expected
        )

    def _pictures(self, images: Path, advice: str, channels: int) -> list[Path]:
        try:
            return list_images(images, recursive=self.recursive, channels=channels)
        except InputError as error:
            if self.recursive or not any(entry.is_dir() for entry in images.iterdir()):
                raise
            ways = f"take their pictures with {self.flags}recursive, or use {self.flags}dataset NAME ROOT"
            raise InputError(f"folder '{images}' holds folders and no images; {advice or ways}") from error

    def _matched(self, pictures: list[Path], images: Path, labels: Path) -> list[tuple[Path, Path]]:
        """Find each picture's label map; label maps that lie among the pictures are none of them."""
        together = images.samefile(labels)
        labels = images if together else labels
        if not together:
            inside = labels.resolve()
            pictures = [file for file in pictures if inside not in file.resolve().parents] or pictures
        pairs = [(file, self._label_map(labels / file.relative_to(images).parent, file.stem)) for file in pictures]
        maps = {labelled for picture, labelled in pairs if labelled != picture} if together else set()
        return [pair for pair in pairs if pair[0] not in maps]

    def _label_map(self, folder: Path, stem: str) -> Path:
        """Name a label map; cameras and old programs write the suffix in capitals."""
        ways = [folder / f"{stem}{suffix}" for suffix in (self.label_suffix, self.label_suffix.upper())]
        return next((file for file in ways if file.is_file()), ways[0])

    def reader(self, names: Sequence[str], palette: Sequence[Color]) -> LabelReader:
        """Make what reads the label maps as classes of a network.

        Args:
            names: Class names of the network.
            palette: Their colours.

        Raises:
            UsageError: `label_map` cannot be read or does not fit the network, the options cancel one another, or the
                data set has other classes than the network.
            InputError: The data set is not there.

        Example:
            >>> data = LabelledPictures(folder / "images", folder / "labels", ignore=3)
            >>> data.reader(bundle.manifest.labels, bundle.manifest.palette).names
            ('class 0', 'class 1', 'class 2')
        """
        return LabelReader(self, _scored_names(tuple(names), self), *self._rules(tuple(names), tuple(palette)))

    def _rules(self, names: tuple[str, ...], palette: tuple[Color, ...]) -> tuple[LabelRules, tuple[str, ...]]:
        """Say what stored values mean, and what is to be known of that."""
        if self.dataset is not None:
            layout, _ = dataset(self.dataset).open(Path(self.images))
            return layout.rules, (layout.note,) if layout.note else ()
        colors = _palette_colors(names, palette)
        if self.label_map is None:
            return LabelRules(self.ignore, self.positive_label, self.reduce_zero_label, colors=colors), ()
        values, named = read_label_table(Path(self.label_map), names)
        if values:
            return LabelRules(self.ignore, table=values, colors=named or None), ()
        table = {color[0]: label for color, label in named.items() if len(set(color)) == 1}
        return LabelRules(self.ignore, table=table, colors=named, colors_only=True), ()


class LabelReader:
    """Reads label maps as the scored classes of a network (`LabelledPictures.reader`).

    Attributes:
        names: Of the scored classes.
        rules: What stored values mean.
        notes: What is to be known of the label maps altogether.
        max_pixels: Largest height x width of a picture and of a label map.
        strict: Whether damaged files are refused.

    Example:
        >>> data = LabelledPictures(folder / "images", folder / "labels")
        >>> reader = data.reader(bundle.manifest.labels, bundle.manifest.palette)
        >>> reader.read(folder / "labels" / "sample.png").labels.shape
        (44, 52)
    """

    def __init__(
        self, data: LabelledPictures, names: tuple[str, ...], rules: LabelRules, notes: tuple[str, ...] = ()
    ) -> None:
        self._data, self.names, self.rules, self.notes = data, names, rules, notes
        self.max_pixels, self.strict = data.max_pixels, data.strict

    def read(self, file: Path) -> LabelFile:
        """Read a label map whose every value is a scored class or void.

        Raises:
            InputError: It cannot be read, or holds other values.
            MisreadError: Its values are plainly those of another rule.
        """
        read = read_label_file(file, self.rules, max_pixels=self.max_pixels, strict=self.strict)
        outside = read.outside(len(self.names)).tolist()
        if not outside:
            return read
        message = f"label map '{file}': the label map holds {listed(outside)}, expected {self._explained(outside)}"
        misread = not self.rules.changes and is_cityscapes_ids(outside, len(self.names))
        raise MisreadError(message) if misread else InputError(message)

    def _explained(self, outside: list[int]) -> str:
        """Say which values were expected, and what to do."""
        data, classes = self._data, len(self.names)
        if data.dataset is not None:
            return f"the values of {data.dataset}; check the file, or score it without {data.flags}dataset"
        if data.label_map is not None:
            return f"the values of '{data.label_map}'; name them there, as a class or void"
        known = f"0..{classes - 1}" + ("" if data.ignore is None else f" and void ({data.ignore})")
        return f"{known}; {explain_values(outside, classes, data.ignore, data.flags)}"

    def suspicions(self, matrix: ConfusionMatrix) -> list[str]:
        """Say what scores suggest of how label values were read; empty where nothing is suspicious.

        Args:
            matrix: Confusion over pictures whose label maps were read by this reader.

        Example:
            >>> reader = LabelledPictures(folder / "images", folder / "labels").reader(("a", "b", "c"), ())
            >>> matrix = ConfusionMatrix(3)
            >>> matrix.update(np.array([[1, 2]], np.uint8), np.array([[0, 1]], np.uint8))
            >>> reader.suspicions(matrix)[0][:53]
            'the labels agree better when read one lower, as where'
        """
        found = self._of_changed(matrix.counts) if self.rules.changes else self._of_stored(matrix.counts)
        return [found.replace("--", self._data.flags)] if found else []

    def _of_changed(self, counts: NDArray[np.int64]) -> str:
        hits, higher = (int(np.diagonal(counts[:, :-1], offset).sum()) for offset in (0, 1))
        positive = self.rules.positive_label
        if positive is not None and not counts[1].sum():
            return f"no label map holds the positive label {positive}; class 1 is not scored"
        if positive is not None and counts.sum() > 2 * hits:
            return "most pixels disagree, as where the two classes are swapped; check what the labels mean"
        if self.rules.reduce_zero_label and len(counts) > 2 and higher > hits:
            return "the labels agree better when read as they are stored; check whether 0 is void"
        return ""

    def _of_stored(self, counts: NDArray[np.int64]) -> str:
        classes, ignore = len(counts), self._data.ignore
        hits, lower = (int(np.diagonal(counts, offset).sum()) for offset in (0, -1))
        for name, title, ids, outputs in _NUMBERED:
            by_id = sum(int(counts[label, train_id]) for label, train_id in ids.items() if label < classes)
            if classes in outputs and by_id > hits:
                return f"the labels agree better when read as {title} label ids; check them, see --dataset {name}"
        if ignore == 0 and classes > 1:
            lower += int(counts[1, -1])  # class 0 is not scored, so that a prediction of it is outside
        if classes > 2 and lower > hits:
            return (
                "the labels agree better when read one lower, as where 0 is void and k + 1 means class k; "
                "check them, see --reduce-zero-label"
            )
        return "class 0 is void and not scored; see --reduce-zero-label where 0 is no class" if ignore == 0 else ""


_NUMBERED = (
    ("cityscapes", "Cityscapes", CITYSCAPES_IDS, (19, 20)),
    ("coco-stuff", "COCO-Stuff", COCO_STUFF_IDS, (171,)),
)
"""Data sets whose stored values are not the classes: name, title, stored value -> class, outputs of a network."""


def check_sizes(file: Path, labels: tuple[int, ...], picture: tuple[int, ...]) -> tuple[str, ...]:
    """Check that a label map is its picture at the same or another size.

    Args:
        file: The label map.
        labels: Its height and width.
        picture: Height and width of its picture.

    Returns:
        A note where the sizes differ.

    Raises:
        InputError: The aspect ratios differ by more than rounding.

    Example:
        >>> check_sizes(Path("a.png"), (187, 250), (375, 500))
        ("scored at the label map's own size, which is not its picture's",)
    """
    if labels == picture:
        return ()
    least = max((side - 1) / of for side, of in zip(labels, picture, strict=True))
    most = min((side + 1) / of for side, of in zip(labels, picture, strict=True))
    ratio = labels[0] * picture[1] / (labels[1] * picture[0])
    if least < most and abs(ratio - 1) <= _NEARLY:
        return (OWN_SIZE,)
    got, expected = (f"{height}x{width}" for height, width in (labels, picture))
    turned = labels == picture[::-1]
    why = "one of them is turned" if turned else "give the label map that was drawn on this picture"
    raise InputError(f"label map '{file}' is {got}, its picture {expected}; their aspect ratios must agree, {why}")


def shared_label_maps(pairs: Sequence[tuple[Path, Path]]) -> dict[Path, str]:
    """Say of each picture that shares its label map with another (``a.jpg`` and ``a.png``) why it cannot be scored.

    Example:
        >>> list(shared_label_maps([(Path("a.jpg"), Path("l/a.png")), (Path("b.jpg"), Path("l/b.png"))]))
        []
    """
    count = Counter(labelled for _, labelled in pairs)
    return {
        picture: f"picture '{picture}' and another of the same stem would both be scored by label map '{labelled}'; "
        "leave one of them in the folder"
        for picture, labelled in pairs
        if count[labelled] > 1
    }


def _palette_colors(names: tuple[str, ...], palette: tuple[Color, ...]) -> dict[Color, int | None]:
    """Give the classes' colours, and those of void in the data set whose classes they are."""
    chosen = [name for name in LABEL_SETS if label_set(name, len(names)).names == names]
    void = void_colors(chosen[0]) if chosen else ()
    return {
        **dict.fromkeys(void),
        **{color: index for index, color in enumerate(palette) if palette.count(color) == 1},
    }


def _scored_names(names: tuple[str, ...], data: LabelledPictures) -> tuple[str, ...]:
    """Choose the classes that are scored.

    Raises:
        UsageError: The data set has other classes than the network.
    """
    if data.dataset is None:
        return names[:-1] if data.ignore == len(names) - 1 and not data.changes else names
    count = dataset(data.dataset).classes
    if len(names) not in (count, count + (data.dataset in ("cityscapes", "camvid"))):
        raise UsageError(
            f"the data set {data.dataset} has {count} classes, the network {len(names)}; give its own labels"
        )
    return names[:count]
