"""Label maps as people store them: indices, colour tables, colours, masks of 0 and 255; void is taken out first."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.decoding import decode
from edgeseg.decoding.headers import measure
from edgeseg.errors import InputError, UsageError
from edgeseg.images import MAX_PIXELS, read_file
from edgeseg.labels import Color, LabelMap, voc_color
from edgeseg.text import one_line

__all__ = ["LARGEST_LABEL", "VOID", "LabelFile", "LabelRules", "listed", "read_label_file"]

LARGEST_LABEL = 65535

VOID = 65535
"""Value of void in a label map whose values were changed to classes."""

_OUTSIDE = 65534  # a value that the rules have no class for
_IHDR_END, _PNG_BITS, _PNG_COLOR = 33, 24, 25
_PNG_TABLE = 3


@dataclass(frozen=True)
class LabelRules:
    """How stored values become classes.

    Attributes:
        ignore: Stored value of void.
        positive_label: Stored value that means class 1; all others are class 0. Where it is the largest value (255, or
            65535 in 16 bits), values between are cut at half.
        reduce_zero_label: 0 is void and k + 1 means class k, as ADE20K is published. 255 of 8 bits is void too.
        table: Stored value -> class, or None for void.
        colors: RGB -> class, or None for void; for maps that are stored as colours.
        colors_only: Read the colours also where a file has a colour table.
        either: Take masks of 0 and 1 for what they are although `positive_label` is 255.

    Raises:
        UsageError: A value outside 0..65535, or rules that cancel one another.
    """

    ignore: int | None = None
    positive_label: int | None = None
    reduce_zero_label: bool = False
    table: Mapping[int, int | None] | None = None
    colors: Mapping[Color, int | None] | None = None
    colors_only: bool = False
    either: bool = False

    def __post_init__(self) -> None:
        for name in ("ignore", "positive_label"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= LARGEST_LABEL:
                raise UsageError(f"{name} is {value}; a label value is between 0 and {LARGEST_LABEL}")
        ways = {
            "positive_label": self.positive_label is not None,
            "reduce_zero_label": self.reduce_zero_label,
            "label_map": self.table is not None,
        }
        chosen = [name for name, is_set in ways.items() if is_set]
        if len(chosen) > 1:
            raise UsageError(f"{' and '.join(chosen)} each say what a label value means; give one of them")
        if self.ignore is not None and self.ignore == self.positive_label:
            raise UsageError(
                f"{self.ignore} cannot be void (ignore) and class 1 (positive_label) at once; give two values"
            )
        if self.ignore is not None and (self.table or {}).get(self.ignore) is not None:
            raise UsageError(f"{self.ignore} is void (ignore) and a class in label_map; take it out of one of them")

    @property
    def changes(self) -> bool:
        """Whether stored values are not the classes themselves."""
        return self.positive_label is not None or self.reduce_zero_label or self.table is not None

    @property
    def void(self) -> int | None:
        """Value of void after reading: `VOID` where values were changed, else `ignore`."""
        return VOID if self.changes else self.ignore


@dataclass(frozen=True)
class LabelFile:
    """A label map that was read.

    Attributes:
        labels: uint8 or uint16 (H, W): classes, and void as `LabelRules.void` says.
        stored: As `labels`, before values became classes.
        void: Value of void in `labels`, or None.
        damaged: Sentences on the file's damage.
        notes: Sentences on values that were read in a way the user should know of.
    """

    labels: LabelMap
    stored: LabelMap
    void: int | None = None
    damaged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def outside(self, classes: int) -> NDArray[Any]:
        """List the stored values, sorted, that are neither void nor one of `classes` classes."""
        wrong = self.labels >= classes
        if self.void is not None:
            wrong &= self.labels != self.void
        return np.unique(self.stored[wrong])


def read_label_file(path: Path, rules: LabelRules, *, max_pixels: int = MAX_PIXELS, strict: bool = False) -> LabelFile:
    """Read a label map. Of a PNG with a colour table the indices are read, not the colours.

    Args:
        path: The file.
        rules: What its values mean.
        max_pixels: Largest height x width in pixels.
        strict: Refuse a damaged file.

    Raises:
        InputError: Not readable, too large, lossy where every value counts, or colours that are no class.
        UsageError: `max_pixels` is below 1.
    """
    name = f"label map '{one_line(path, 300)}'"
    data = read_file(path, name, max_pixels)
    lossy = "" if rules.positive_label == 255 else _lossy(data, measure(data, name).format)
    if lossy:
        raise InputError(f"{name} is {lossy}, which changes label values; save the label maps as PNG")
    indices, by_table = data if rules.colors_only else _as_indices(data), False
    decoded = decode(indices, name, max_pixels=max_pixels, strict=strict, stored=True)
    if indices is not data:
        decoded = replace(decoded, image=_unscaled(decoded.image, data[_PNG_BITS]))
        by_table = _colors_count(decoded.image, data, rules, name)
        if by_table:
            decoded = decode(data, name, max_pixels=max_pixels, strict=strict, stored=True)
    stored, notes = _one_channel(decoded.image, rules, name)
    notes = ("the colours of a colour table are read, not its indices",) if by_table else notes
    if stored is None:
        labels = _from_colors(decoded.image, rules.colors or {}, name)
        if rules.ignore is not None and not rules.changes:
            labels[labels == rules.ignore] = VOID  # a class of the palette that means void
        return LabelFile(labels, labels, VOID, decoded.damaged, notes)
    labels, more = _classes(stored, rules, name)
    return LabelFile(labels, stored, rules.void, decoded.damaged, (*notes, *more))


def listed(values: Iterable[Any], most: int = 5) -> str:
    """Write values for a message, the first few of many.

    Example:
        >>> listed([7, 8, 11], most=2)
        '7, 8, …'
    """
    words = [str(value) for value in values]
    return ", ".join(words[:most]) + (", …" if len(words) > most else "")


# --- files -------------------------------------------------------------------------------------------------------


_TIFF_OF_JPEG = (b"\x03\x01\x03\0\x01\0\0\0\x07\0", b"\x01\x03\0\x03\0\0\0\x01\0\x07")  # tag 259, short, one value: 7
_LOSSY = {"JPEG": "a JPEG", "JPEG 2000": "a JPEG 2000", "AVIF": "an AVIF", "HEIC": "a HEIC"}


def _lossy(data: bytes, kind: str) -> str:
    """Name a format that keeps pixels only nearly, or may; empty where every value stays."""
    if kind == "WebP" and b"VP8 " in _webp_chunks(data):
        return "a lossy WebP"
    if kind == "TIFF" and any(entry in data for entry in _TIFF_OF_JPEG):
        return "a TIFF of JPEGs"
    return _LOSSY.get(kind, "")


def _webp_chunks(data: bytes) -> set[bytes]:
    kinds, at = set(), 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        kinds.add(kind)
        at += 8 + length + length % 2
    return kinds


def _has_table(data: bytes) -> bool:
    """Tell whether a file is a PNG with a colour table."""
    return data[:4] == b"\x89PNG" and len(data) > _IHDR_END and data[_PNG_COLOR] == _PNG_TABLE


def _as_indices(data: bytes) -> bytes:
    """Make a PNG with a colour table one of grey, whose values are the indices; others stay as they are."""
    if not _has_table(data) or zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        return data
    header = data[12:_PNG_COLOR] + b"\0" + data[_PNG_COLOR + 1 : 29]
    kept, at = bytearray(data[:12] + header + struct.pack(">I", zlib.crc32(header))), _IHDR_END
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind not in (b"PLTE", b"tRNS"):
            kept += data[at : at + 12 + length]
        at += 12 + length
    return bytes(kept + data[at:])


def _unscaled(image: NDArray[Any], bits: int) -> NDArray[Any]:
    """Undo that a decoder widens grey of 1, 2 or 4 bits to 0..255."""
    return image if bits == 8 else image // np.uint8(255 // ((1 << bits) - 1))


def _color_table(data: bytes) -> list[Color]:
    at = data.find(b"PLTE", _IHDR_END)
    length = struct.unpack_from(">I", data, at - 4)[0] if at > 0 else 0
    table = data[at + 4 : at + 4 + length]
    return [(table[i], table[i + 1], table[i + 2]) for i in range(0, len(table) - 2, 3)]


def _colors_count(indices: NDArray[Any], data: bytes, rules: LabelRules, name: str) -> bool:
    """Tell whether the colours of a colour table say the classes, and its indices do not.

    Programs that save few colours number them as they like. The colours count where they are those of the classes at
    other indices, and where a mask of black and white is asked for. VOC's colour table numbers any classes.
    """
    table = _color_table(data)
    used = {index: table[index] for index in np.unique(indices).tolist() if index < len(table)}
    grey = all(len(set(color)) == 1 for color in used.values())
    if rules.positive_label == 255:
        return grey and 255 not in used and any(color == (255, 255, 255) for color in used.values())
    if all(color == voc_color(index) for index, color in used.items()):
        return False
    known = rules.colors or {}
    if known and (rules.table is not None or not rules.changes) and set(used.values()) <= set(known):
        return any(known[color] != _class_of(index, rules) for index, color in used.items())
    if grey and not rules.changes and used.get(0) == (255, 255, 255):
        raise InputError(f"{name} shows its value 0 as white; for a mask of black and white give positive_label 255")
    return False


def _class_of(index: int, rules: LabelRules) -> int | None:
    if rules.table is not None:
        return rules.table.get(index)
    return None if index == rules.ignore else index


def _one_channel(image: NDArray[Any], rules: LabelRules, name: str) -> tuple[LabelMap | None, tuple[str, ...]]:
    """Give the stored values, or None where they are colours of `rules`."""
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{name} is {image.dtype}; expected whole numbers of 8 or 16 bits")
    if image.ndim == 2:
        return np.asarray(image), ()
    if image.shape[2] == 4 and bool((image[..., 3] != np.iinfo(image.dtype).max).any()):
        raise InputError(f"{name} has transparent pixels; save it without transparency, void as a value of its own")
    blue, green, red = image[..., 0], image[..., 1], image[..., 2]
    grey = bool((blue == green).all() and (green == red).all())
    by_color = bool(rules.colors) and (rules.table is not None or not rules.changes)
    if grey and not (by_color and _all_known(image, rules.colors or {})):
        return np.ascontiguousarray(blue), ("three equal channels are read as one value",)
    if by_color and image.dtype == np.uint8:
        return None, ()
    shape = "x".join(map(str, image.shape))
    raise InputError(
        f"{name} is {image.dtype} {shape} and holds colours, for which no table of classes is known here; expected one "
        "8-bit or 16-bit channel with a class per pixel, or a label_map of '#RRGGBB' to class"
    )


# --- values ------------------------------------------------------------------------------------------------------


def _packed(image: NDArray[Any]) -> NDArray[Any]:
    blue, green, red = (image[..., channel].astype(np.uint32) for channel in range(3))
    packed: NDArray[Any] = red << 16 | green << 8 | blue
    return packed


def _number(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _all_known(image: NDArray[Any], colors: Mapping[Color, int | None]) -> bool:
    return image.dtype == np.uint8 and set(np.unique(_packed(image)).tolist()) <= {_number(color) for color in colors}


def _from_colors(image: NDArray[Any], colors: Mapping[Color, int | None], name: str) -> LabelMap:
    known = {_number(color): VOID if label is None else label for color, label in colors.items()}
    values, where = np.unique(_packed(image), return_inverse=True)
    strange = [f"#{value:06x}" for value in values.tolist() if value not in known]
    if strange:
        raise InputError(
            f"{name} holds the colours {listed(strange, 3)}, which are none of the classes' {len(known)}; "
            "give the right colours with label_map ('#RRGGBB' to class or void)"
        )
    return np.array([known[value] for value in values.tolist()], np.uint16)[where].reshape(image.shape[:2])


def _classes(stored: LabelMap, rules: LabelRules, name: str) -> tuple[LabelMap, tuple[str, ...]]:
    """Change stored values to classes; void first."""
    if not rules.changes:
        return stored, ()
    void = np.zeros(stored.shape, bool) if rules.ignore is None else stored == rules.ignore
    notes: tuple[str, ...] = ()
    labels: NDArray[np.uint16]
    if rules.positive_label is not None:
        labels, notes = _one_against_rest(stored, void, rules, name)
    elif rules.reduce_zero_label:
        labels = np.where(stored == 0, VOID, stored.astype(np.int32) - 1).astype(np.uint16)
        void |= (stored == 255) if stored.dtype == np.uint8 else False
    else:
        labels = _looked_up(stored, rules.table or {})
    labels[void] = VOID
    return labels, notes


def _looked_up(stored: LabelMap, table: Mapping[int, int | None]) -> NDArray[np.uint16]:
    lookup = np.full(LARGEST_LABEL + 1, _OUTSIDE, np.uint16)
    for value, label in table.items():
        lookup[value] = VOID if label is None else label
    found: NDArray[np.uint16] = lookup[stored]
    return found


def _one_against_rest(
    stored: LabelMap, void: NDArray[np.bool_], rules: LabelRules, name: str
) -> tuple[NDArray[np.uint16], tuple[str, ...]]:
    """Make a mask: cut at half where the positive value is the largest possible one, else exactly that value."""
    positive = int(rules.positive_label or 0)
    values = np.unique(stored[~void])
    between = [value for value in values.tolist() if value not in (0, positive)]
    cut = positive in (255, LARGEST_LABEL)
    if between == [1] and cut and positive not in values:
        if rules.either:
            return (stored == 1).astype(np.uint16), ()
        raise InputError(f"{name} holds 1 and no {positive}; for masks of 0 and 1 leave positive_label out")
    if cut and between and between[-1] > positive:
        raise InputError(f"{name} holds {listed(between[::-1])} above the positive_label {positive}; give the largest")
    if not cut:
        other = (f"label values besides 0 and {positive} count as class 0",) if between else ()
        return (stored == positive).astype(np.uint16), other
    half = (positive + 1) // 2
    note = f"label values between 0 and {positive} are cut at half: class 1 from {half} on"
    if len(between) == 1:
        note = f"label value {between[0]} is cut at half: class 1 from {half} on; if it is void, name it with ignore"
    return (stored >= half).astype(np.uint16), (note,) if between else ()
