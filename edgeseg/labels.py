"""Label sets: class names and RGB colours in index order."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UnknownNameError, UsageError

__all__ = ["LABEL_SETS", "Color", "LabelMap", "LabelSet", "as_label_map", "label_dtype", "label_set", "voc_color"]

LabelMap: TypeAlias = NDArray[np.unsignedinteger[Any]]
"""Class index per pixel: uint8 (H, W), or uint16 where a network has more than 255 classes."""

MOST_CLASSES = 65535

Color: TypeAlias = tuple[int, int, int]
"""RGB, 0..255."""
_Table = tuple[tuple[str, Color], ...]


@dataclass(frozen=True)
class LabelSet:
    """Names and colours of classes.

    Attributes:
        name: One of `LABEL_SETS`.
        names: In index order.
        palette: RGB, 0..255, one per name.
        ignore_label: Label value of void in the data set's label maps, or None where there is none.
    """

    name: str
    names: tuple[str, ...]
    palette: tuple[Color, ...]
    ignore_label: int | None = None


# cityscapesScripts, labels.py: train ids (Cordts et al., CVPR 2016).
_CITYSCAPES: _Table = (
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)

# CamVid's colour table (Brostow et al., 2009) in the order of the SegNet split (Badrinarayanan et al., 2017).
_CAMVID: _Table = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (0, 0, 192)),
    ("tree", (128, 128, 0)),
    ("sign", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
)

_PERSON: _Table = (("background", (0, 0, 0)), ("person", (220, 20, 60)))

_VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor"),
)


def voc_color(index: int) -> Color:
    """Compute a colour of PASCAL VOC's colour map: the bits of `index`, dealt to R, G, B from the highest bit down."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


_VOC: _Table = tuple((name, voc_color(index)) for index, name in enumerate(_VOC_NAMES))

_BACKGROUND: _Table = (("background", (0, 0, 0)),)
_VOID: _Table = (("void", (0, 0, 0)),)

#: Set -> (table, label value of void); several tables where networks have an output more or less.
_SETS: dict[str, tuple[tuple[_Table, ...], int | None]] = {
    "cityscapes": ((_CITYSCAPES, _CITYSCAPES + _BACKGROUND), 255),
    "camvid": ((_CAMVID, _CAMVID + _VOID), 11),
    "person": ((_PERSON,), None),
    "voc": ((_VOC,), 255),
    "generic": ((), None),
}

LABEL_SETS = tuple(_SETS)
"""Names `label_set` knows."""


def label_set(name: str, num_classes: int) -> LabelSet:
    """Choose names and colours for the outputs of a network.

    Args:
        name: ``cityscapes`` (19, or 20 with background last), ``camvid`` (11, or 12 with void last), ``person`` (2, or
            one logit for two labels), ``voc`` (21), ``generic``.
        num_classes: Output channels of the network.

    Returns:
        The named set. Where that has another number of classes: ``generic``, with "class 0", "class 1", … in
        distinguishable colours, so that a network trained on other classes keeps working. One channel always means two
        labels.

    Raises:
        UnknownNameError: No such set.
        UsageError: Fewer than 1 or more than 65535 classes.

    Example:
        >>> label_set("camvid", 11).names[:3]
        ('sky', 'building', 'pole')
        >>> label_set("camvid", 5).name
        'generic'
    """
    if name not in _SETS:
        raise UnknownNameError("label set", name, LABEL_SETS)
    if not 1 <= num_classes <= MOST_CLASSES:
        raise UsageError(f"labels are uint16 at most, so a network has 1 to {MOST_CLASSES} classes, got {num_classes}")
    count = max(2, num_classes)
    tables, ignore = _SETS[name]
    for table in tables:
        if len(table) == count:
            return LabelSet(name, tuple(name for name, _ in table), tuple(color for _, color in table), ignore)
    return LabelSet("generic", tuple(f"class {i}" for i in range(count)), _palette(count))


def label_dtype(num_classes: int) -> type[np.unsignedinteger[Any]]:
    """Choose the type of a label map: uint8 up to 255 classes (so that 255 can mean void), uint16 above.

    Example:
        >>> label_dtype(19), label_dtype(256)
        (<class 'numpy.uint8'>, <class 'numpy.uint16'>)
    """
    return np.uint8 if num_classes <= 255 else np.uint16


def as_label_map(labels: NDArray[Any]) -> LabelMap:
    """Convert an engine's labels: uint8 stays, int32 (used above 255 classes) becomes uint16."""
    label_map: LabelMap = labels if labels.dtype == np.uint8 else labels.astype(np.uint16)
    return label_map


def _palette(count: int) -> tuple[Color, ...]:
    """Choose distinct colours: hues a golden angle apart, in turn bright, dark and pale."""
    colors: dict[Color, None] = {(0, 0, 0): None}
    step = 0
    while len(colors) < count:
        saturation, value = ((0.9, 0.9), (0.9, 0.55), (0.45, 0.95))[step % 3]
        red, green, blue = colorsys.hsv_to_rgb(step * 0.6180339887498949 % 1.0, saturation, value)
        colors[round(255 * red), round(255 * green), round(255 * blue)] = None
        step += 1
    return tuple(colors)
