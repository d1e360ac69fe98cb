"""TIFF and BigTIFF of either byte order: the first directory, and what a decoder would allocate and read for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from edgeseg.decoding._header import DAMAGED, ENDS_EARLY, HeaderError, PictureHeader, unpack

__all__ = ["byte_order", "directories", "first_picture", "measure"]

_KIND_OF_PAGE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_ORIENTATION, _STRIPS, _STRIP_BYTES, _CHANNELS, _TILE_WIDTH, _TILE_HEIGHT = 274, 273, 279, 277, 322, 323
_TILES, _TILE_BYTES, _NUMBERS, _STRIP_ROWS, _PLANES, _EXTRA, _DNG = 324, 325, 339, 278, 284, 338, 50706
_SHAPE = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _CHANNELS, _NUMBERS, _STRIP_ROWS, _PLANES, _EXTRA)
_PARTS = (_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES)
_WANTED = frozenset((_KIND_OF_PAGE, _ORIENTATION, *_SHAPE, *_PARTS, _DNG))
_SIZES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 7, 8, 32773, 32946))
_CHANNELS_OF = {0: (1, 2), 1: (1, 2), 2: (3, 4), 3: (1, 2), 6: (3, 4)}
_COLOURS = {0: "gray", 1: "gray", 2: "RGB", 3: "a colour table", 4: "a mask", 6: "YCbCr", 8: "CIE Lab", 9: "ICC Lab"}
_BITS_READ = (1, 8, 10, 12, 14, 16)
_SMALL_COPY, _MASK = 1, 4
_STRAIGHT_ALPHA, _STORED_ALPHA = 2, 1
_MOST_PAGES = 64
_LARGEST_TILE, _SMALLEST_TILE = 1 << 24, 1 << 10


class _Directory(NamedTuple):
    """Content of a directory, where its entries stand, and where the place of the next directory is stored."""

    entries: dict[int, tuple[int, ...]]
    places: dict[int, int]
    next_at: int
    next_layout: str


def measure(data: bytes) -> PictureHeader:
    """Measure the first picture.

    Raises:
        HeaderError: Damaged, cut short, or of a kind that never becomes uint8 RGB.
    """
    directory = _read(data)
    entries = directory.entries
    if _WIDTH not in entries or _HEIGHT not in entries or _PHOTOMETRIC not in entries:
        raise HeaderError(DAMAGED)
    width, height, photometric = entries[_WIDTH][0], entries[_HEIGHT][0], entries[_PHOTOMETRIC][0]
    channels, bits = entries.get(_CHANNELS, (1,))[0], entries.get(_BITS, (1,))[0]
    _check_raw(entries, photometric)
    _check_kind(entries, photometric, channels, bits)
    _check_layout(entries, photometric, channels, bits)
    _check_parts(entries, len(data), channels * (bits + 7) // 8)
    rows = 0 if _TILE_WIDTH in entries else min(height, entries.get(_STRIP_ROWS, (height,))[0])
    turned = entries.get(_ORIENTATION, (1,))[0]
    decoder_bytes = 16 if bits > 8 else 8 if rows * width > _LARGEST_TILE else 4
    return PictureHeader(
        "TIFF",
        height,
        width,
        3 if photometric == 3 else channels,
        bits,
        decoder_bytes,
        _has_more_pages(data, directory),
        orientation=turned if 1 <= turned <= 8 else 1,
        inverted=photometric == 0 and bits > 8,
        more_bands=channels in (2, 4) and entries.get(_EXTRA, (0,))[0] == 0,
    )


def first_picture(data: bytes) -> bytes:
    """Cut the list of directories after the first one, since libtiff would go through all of them.

    Straight alpha is declared to be multiplied already, since libtiff would multiply the colours by it. The orientation
    is taken out, since libtiff turns every tile by itself.
    """
    directory, changed = _read(data), bytearray(data)
    size = struct.calcsize(directory.next_layout)
    changed[directory.next_at : directory.next_at + size] = bytes(size)
    order, big = _order(data)
    plain = {_EXTRA: _STORED_ALPHA} if directory.entries.get(_EXTRA) == (_STRAIGHT_ALPHA,) else {}
    plain |= {_ORIENTATION: 1} if _ORIENTATION in directory.entries else {}
    for tag, value in plain.items():
        one_short = (3, 1, value, 0)
        struct.pack_into(f"{order}H{'Q' if big else 'I'}HH", changed, directory.places[tag] + 2, *one_short)
    return bytes(changed)


def _has_more_pages(data: bytes, directory: _Directory) -> bool:
    """Tell whether a later directory is a page of its own, neither a smaller copy nor a mask of another."""
    seen: set[int] = set()
    while len(seen) < _MOST_PAGES:
        (start,) = unpack(directory.next_layout, data, directory.next_at)
        if not start or start in seen:
            return False
        seen.add(start)
        try:
            directory = _read(data, start)
        except HeaderError:
            return True
        if not directory.entries.get(_KIND_OF_PAGE, (0,))[0] & (_SMALL_COPY | _MASK):
            return True
    return True


def directories(data: bytes, wanted: frozenset[int], most: int) -> Iterator[dict[int, tuple[int, ...]]]:
    """Read the wanted entries of each directory (page) in turn.

    Raises:
        HeaderError: Damaged, cut short, or of more than `most` directories.
    """
    start = _first_at(data)
    for _ in range(most):
        directory = _read(data, start, wanted)
        yield directory.entries
        (start,) = unpack(directory.next_layout, data, directory.next_at)
        if start == 0:
            return
    raise HeaderError(f"is a TIFF of more than {most} pages; save it again with as many as there are channels")


def byte_order(data: bytes) -> Literal["<", ">"]:
    """Tell the byte order of a TIFF's numbers, as `struct` writes it."""
    return "<" if data[:2] == b"II" else ">"


def _order(data: bytes) -> tuple[Literal["<", ">"], bool]:
    """Tell the byte order, and whether it is a BigTIFF."""
    return byte_order(data), 43 in data[2:4]


def _first_at(data: bytes) -> int:
    """Tell where the first directory is."""
    order, big = _order(data)
    (start,) = unpack(f"{order}Q", data, 8) if big else unpack(f"{order}I", data, 4)
    return int(start)


def _read(data: bytes, start: int = 0, wanted: frozenset[int] = _WANTED) -> _Directory:
    """Read the wanted entries of the directory at byte `start`; 0 is the first one."""
    order, big = _order(data)
    start = start or _first_at(data)
    (count,) = unpack(f"{order}Q" if big else f"{order}H", data, start)
    at, step = (start + 8, 20) if big else (start + 2, 12)
    if count > 4096:
        raise HeaderError(f"is a TIFF of {count} entries in a directory, expected at most 4096; save it again")
    entries, places = dict[int, tuple[int, ...]](), dict[int, int]()
    for place in range(at, at + step * count, step):
        tag, kind = unpack(f"{order}HH", data, place)
        if tag in wanted:
            if tag in entries:
                raise HeaderError(DAMAGED)
            entries[tag], places[tag] = _values(data, place, order, kind, big), place
    return _Directory(entries, places, at + step * count, f"{order}Q" if big else f"{order}I")


def _values(data: bytes, place: int, order: str, kind: int, big: bool) -> tuple[int, ...]:
    """Read the whole numbers of an entry."""
    (count,) = unpack(f"{order}Q" if big else f"{order}I", data, place + 4)
    if kind not in _SIZES or count == 0:
        raise HeaderError(DAMAGED)
    at, room = (place + 12, 8) if big else (place + 8, 4)
    size = count * struct.calcsize(_SIZES[kind])
    if size > len(data):
        raise HeaderError(ENDS_EARLY)
    if size > room:
        (at,) = unpack(f"{order}Q" if big else f"{order}I", data, at)
    return unpack(f"{order}{count}{_SIZES[kind]}", data, at)


def _check_raw(entries: dict[int, tuple[int, ...]], photometric: int) -> None:
    """Refuse what a camera's sensor gave, and files whose first picture is only a thumbnail of it."""
    if photometric == 32803:
        raise HeaderError("holds the raw values of a colour filter array (Bayer), not RGB; develop it to RGB first")
    if photometric == 34892 or _DNG in entries:
        raise HeaderError("is a raw photograph (DNG), not RGB; develop it to RGB first")
    if entries.get(_KIND_OF_PAGE, (0,))[0] & (_SMALL_COPY | _MASK):
        raise HeaderError(
            "is a TIFF that begins with a thumbnail or a mask, as the raw photographs of cameras do; "
            "develop it, or save the picture itself as PNG"
        )


def _check_kind(entries: dict[int, tuple[int, ...]], photometric: int, channels: int, bits: int) -> None:
    """Refuse by name what OpenCV cannot turn into uint8 RGB."""
    numbers, compression = entries.get(_NUMBERS, (1,))[0], entries.get(_COMPRESSION, (1,))[0]
    if photometric in (32844, 32845) or numbers == 3:
        raise HeaderError(f"holds float{bits if numbers == 3 else 32} values; scale it to uint8 0..255 first")
    if photometric == 5:
        raise HeaderError("holds CMYK colours, not RGB; convert it to RGB first")
    if numbers not in (1, 4) or bits > 16:
        kind = {1: "uint", 2: "int"}.get(numbers, "complex")
        raise HeaderError(f"holds {kind}{bits} values, expected uint8 0..255; convert it first")
    if compression not in _COMPRESSIONS:
        raise HeaderError(f"is a TIFF of compression {compression}, which edgeseg does not read; save it again as PNG")


def _check_layout(entries: dict[int, tuple[int, ...]], photometric: int, channels: int, bits: int) -> None:
    """Refuse by name what OpenCV decodes to other values than those that are stored, or not at all."""
    if channels not in _CHANNELS_OF.get(photometric, ()) or len(set(entries.get(_BITS, ()))) > 1:
        colour = _COLOURS.get(photometric, f"colour space {photometric}")
        raise HeaderError(f"is a TIFF of {channels} channels of {colour}, expected gray or RGB; convert it first")
    packed = bits not in (8, 16)
    table = photometric == 3 and bits == 4
    if photometric in (3, 6) and bits > 8:
        raise HeaderError(f"is a TIFF of {bits} bits of {_COLOURS[photometric]}, expected 8; convert it to RGB first")
    if (
        (bits not in _BITS_READ and not table)
        or (bits == 1 and channels > 1)
        or (packed and bits > 8 and channels == 2)
    ):
        raise HeaderError(
            f"is a TIFF of {channels} channels of {bits} bits, which OpenCV does not read; save it again with 8 or 16"
        )
    if bits > 8 and channels > 1 and entries.get(_PLANES, (1,))[0] == 2:
        raise HeaderError(
            f"is a TIFF of {bits} bits that stores each channel by itself (planar), which OpenCV does not read; "
            "save it again with the channels interleaved"
        )


def _check_parts(entries: dict[int, tuple[int, ...]], length: int, pixel: int) -> None:
    """Refuse tiles larger than any writer's, and parts that make a decoder read the file many times over."""
    if (_TILE_WIDTH in entries) != (_TILE_HEIGHT in entries):
        raise HeaderError(DAMAGED)
    wide, high = entries.get(_TILE_WIDTH, (1,))[0], entries.get(_TILE_HEIGHT, (1,))[0]
    if not wide or not high or wide * high * max(4, pixel) > 4 * _LARGEST_TILE:
        raise HeaderError(f"is a TIFF of tiles of {high}x{wide}, expected up to 4096x4096; save it again")
    if _TILE_WIDTH in entries and wide * high < _SMALLEST_TILE and entries.get(_BITS, (1,))[0] == 8:
        raise HeaderError(
            f"is a TIFF of tiles of {high}x{wide}, which OpenCV does not read; save it again without tiles"
        )
    sizes = entries.get(_TILE_BYTES, ()) + entries.get(_STRIP_BYTES, ())
    starts = entries.get(_TILES, ()) + entries.get(_STRIPS, ())
    if any(start + size > length for start, size in zip(starts, sizes, strict=False)):
        raise HeaderError(ENDS_EARLY)
    if sum(min(size, length) for size in sizes) > 2 * length + 1024:
        raise HeaderError("is a TIFF whose parts together are larger than the file; save it again")
