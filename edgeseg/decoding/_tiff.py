"""TIFF and BigTIFF of either byte order: the first directory, and what a decoder would allocate and read for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from edgeseg.decoding._header import DAMAGED, ENDS_EARLY, HeaderError, PictureHeader, unpack

__all__ = ["byte_order", "directories", "first_picture", "measure"]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_BYTES, _CHANNELS, _TILE_WIDTH, _TILE_HEIGHT, _TILE_BYTES, _NUMBERS = 279, 277, 322, 323, 325, 339
_STRIP_ROWS = 278
_SHAPE = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _CHANNELS, _NUMBERS, _STRIP_ROWS)
_WANTED = frozenset((*_SHAPE, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILE_BYTES))
_SIZES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 7, 8, 32773, 32946))
_PHOTOMETRICS = frozenset((0, 1, 2, 3, 6))
_LARGEST_TILE = 1 << 24


class _Directory(NamedTuple):
    """Content of the first directory, and where the place of the next one is stored."""

    entries: dict[int, tuple[int, ...]]
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
    _check_kind(entries, photometric, channels, bits)
    _check_parts(entries, len(data), channels * (bits + 7) // 8)
    following = unpack(directory.next_layout, data, directory.next_at)[0]
    rows = 0 if _TILE_WIDTH in entries else min(height, entries.get(_STRIP_ROWS, (height,))[0])
    decoder_bytes = 16 if bits > 8 else 8 if rows * width > _LARGEST_TILE else 4
    return PictureHeader(
        "TIFF", height, width, 3 if photometric == 3 else channels, bits, decoder_bytes, following != 0
    )


def first_picture(data: bytes) -> bytes:
    """Cut the list of directories after the first one, since libtiff would go through all of them."""
    directory = _read(data)
    size = struct.calcsize(directory.next_layout)
    return data[: directory.next_at] + bytes(size) + data[directory.next_at + size :]


def directories(data: bytes, wanted: frozenset[int], most: int) -> Iterator[dict[int, tuple[int, ...]]]:
    """Read the wanted entries of each directory (page) in turn.

    Raises:
        HeaderError: Damaged, cut short, or of more than `most` directories.
    """
    order, big, start = _layout(data)
    for _ in range(most):
        directory = _directory(data, start, order, big, wanted)
        yield directory.entries
        (start,) = unpack(directory.next_layout, data, directory.next_at)
        if start == 0:
            return
    raise HeaderError(f"is a TIFF of more than {most} pages; save it again with as many as there are channels")


def byte_order(data: bytes) -> Literal["<", ">"]:
    """Tell the byte order of a TIFF's numbers, as `struct` writes it."""
    return "<" if data[:2] == b"II" else ">"


def _layout(data: bytes) -> tuple[str, bool, int]:
    """Byte order, whether it is a BigTIFF, and where its first directory is."""
    order, big = byte_order(data), 43 in data[2:4]
    (start,) = unpack(f"{order}Q", data, 8) if big else unpack(f"{order}I", data, 4)
    return order, big, start


def _read(data: bytes) -> _Directory:
    order, big, start = _layout(data)
    return _directory(data, start, order, big, _WANTED)


def _directory(data: bytes, start: int, order: str, big: bool, wanted: frozenset[int]) -> _Directory:
    if big:
        (count,) = unpack(f"{order}Q", data, start)
        at, step = start + 8, 20
    else:
        (count,) = unpack(f"{order}H", data, start)
        at, step = start + 2, 12
    if count > 4096:
        raise HeaderError(f"is a TIFF of {count} entries in a directory, expected at most 4096; save it again")
    entries: dict[int, tuple[int, ...]] = {}
    for place in range(at, at + step * count, step):
        tag, kind = unpack(f"{order}HH", data, place)
        if tag in wanted:
            if tag in entries:
                raise HeaderError(DAMAGED)
            entries[tag] = _values(data, place, order, kind, big)
    return _Directory(entries, at + step * count, f"{order}Q" if big else f"{order}I")


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
    if photometric not in _PHOTOMETRICS or not 1 <= channels <= 4 or len(set(entries.get(_BITS, ()))) > 1:
        raise HeaderError(
            f"is a TIFF of {channels} channels in colour space {photometric}, expected gray or RGB; convert it first"
        )
    if compression not in _COMPRESSIONS:
        raise HeaderError(f"is a TIFF of compression {compression}, which edgeseg does not read; save it again as PNG")


def _check_parts(entries: dict[int, tuple[int, ...]], length: int, pixel: int) -> None:
    """Refuse tiles larger than any writer's, and parts that make a decoder read the file many times over."""
    if (_TILE_WIDTH in entries) != (_TILE_HEIGHT in entries):
        raise HeaderError(DAMAGED)
    wide, high = entries.get(_TILE_WIDTH, (1,))[0], entries.get(_TILE_HEIGHT, (1,))[0]
    if not wide or not high or wide * high * max(4, pixel) > 4 * _LARGEST_TILE:
        raise HeaderError(f"is a TIFF of tiles of {high}x{wide}, expected up to 4096x4096; save it again")
    sizes = entries.get(_TILE_BYTES, ()) + entries.get(_STRIP_BYTES, ())
    if sum(min(size, length) for size in sizes) > 2 * length + 1024:
        raise HeaderError("is a TIFF whose parts together are larger than the file; save it again")
