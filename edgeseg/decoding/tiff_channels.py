"""TIFF of any number of channels, as stored: side by side, in planes, or a page each; in strips or tiles.

OpenCV decodes up to four channels, and changes their order. Here the file is taken apart into its strips and tiles,
each a grey picture of rows x (columns x channels): what is not compressed is read as it stands, Deflate by zlib, LZW
and PackBits by OpenCV's libtiff.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.decoding._header import DAMAGED, ENDS_EARLY, HeaderError
from edgeseg.decoding._hush import hushed
from edgeseg.decoding._tiff import byte_order, directories
from edgeseg.errors import InputError

__all__ = ["is_tiff", "read_tiff_channels"]

_KIND, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL_ORDER, _STRIPS, _ORIENTATION, _CHANNELS, _STRIP_ROWS, _STRIP_BYTES = 266, 273, 274, 277, 278, 279
_PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _NUMBERS = 284, 317, 322, 323, 324, 325, 339
_WANTED = frozenset(
    (_KIND, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS, _ORIENTATION, _CHANNELS)
) | {_STRIP_ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _NUMBERS}
_PLAIN, _LZW, _PACKBITS, _DEFLATE = 1, 5, 32773, (8, 32946)
_MINI_TIFF = 8 + 2 + 9 * 12 + 4
_LARGEST_TILE = 1 << 24
_WIDEST = 1 << 20
"""Columns of a picture that OpenCV decodes at the most."""

Entries = dict[int, tuple[int, ...]]


def is_tiff(data: bytes) -> bool:
    """Tell whether a file begins as TIFF and BigTIFF do."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff_channels(data: bytes, name: str, channels: int, *, max_pixels: int) -> NDArray[Any]:
    """Read a TIFF of `channels` channels in one page, or of as many pages of one channel each.

    Overviews and masks beside the pages are passed over.

    Args:
        data: The whole file.
        name: What a message calls it.
        channels: How many channels are wanted, in the file's order.
        max_pixels: Largest height x width.

    Returns:
        uint8 or uint16 (H, W, `channels`), as stored.

    Raises:
        InputError: Another number of channels, pages of different sizes, damaged, too large, or of a kind that is not
            read: floats, signed numbers, a colour table, CMYK, YCbCr, white as 0, turned, other compressions.
    """
    try:
        found = [
            _Page.of(entries) for entries in directories(data, _WANTED, 16 * channels + 64) if not _is_beside(entries)
        ]
        _check_pages(found, channels)
        for page in found:
            page.check(len(data), max_pixels)
        with hushed():
            planes = [page.read(data) for page in found]
    except HeaderError as error:
        raise InputError(f"{name} {error}") from error
    except (MemoryError, cv2.error, zlib.error) as error:
        raise InputError(f"{name} cannot be decoded: it {DAMAGED}") from error
    return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)


def _is_beside(entries: Entries) -> bool:
    """Whether a directory is a smaller copy (an overview) or a mask of another one."""
    return bool(entries.get(_KIND, (0,))[0] & 5)


def _check_pages(pages: list[_Page], channels: int) -> None:
    if not pages:
        raise HeaderError(DAMAGED)
    sizes = list(dict.fromkeys((page.height, page.width) for page in pages))
    if len(sizes) > 1:
        (a, b), (c, d) = sizes[:2]
        raise HeaderError(f"holds pages of {a}x{b} and {c}x{d}; save every channel in one size")
    counts = [page.channels for page in pages]
    if counts == [channels] or counts == [1] * channels:
        return
    each = str(counts[0]) if len(set(counts)) == 1 else "various numbers of"
    got = f"{counts[0]} channels" if len(pages) == 1 else f"{len(pages)} pages of {each} channel{'s' * (each != '1')}"
    wanted = f"{channels} channels" if channels > 1 else "1 channel"
    pages_of_one = f" in one page, or {channels} pages of one" * (channels > 1)
    raise HeaderError(f"holds {got}, expected {wanted}{pages_of_one}")


@dataclass(frozen=True)
class _Page:
    """One picture of a TIFF, and where its parts (strips or tiles) lie.

    Attributes:
        height: Rows.
        width: Columns.
        channels: Per pixel.
        bits: Per channel.
        planar: Whether each channel has its own parts.
        tiled: Whether parts are tiles, which are of one size, also at the edges.
        rows: Of a part; the last strip may have fewer.
        columns: Of a part.
        offsets: Where each part begins.
        sizes: Bytes of each part.
        entries: The whole directory.
    """

    height: int
    width: int
    channels: int
    bits: int
    planar: bool
    tiled: bool
    rows: int
    columns: int
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    entries: Entries

    @classmethod
    def of(cls, entries: Entries) -> _Page:
        """Read a directory.

        Raises:
            HeaderError: Something is missing or contradictory.
        """
        if _WIDTH not in entries or _HEIGHT not in entries or (_TILE_WIDTH in entries) != (_TILE_HEIGHT in entries):
            raise HeaderError(DAMAGED)
        width, height, tiled = entries[_WIDTH][0], entries[_HEIGHT][0], _TILE_WIDTH in entries
        rows = entries[_TILE_HEIGHT][0] if tiled else min(height, entries.get(_STRIP_ROWS, (height,))[0])
        return cls(
            height=height,
            width=width,
            channels=entries.get(_CHANNELS, (1,))[0],
            bits=entries.get(_BITS, (1,))[0],
            planar=entries.get(_PLANAR, (1,))[0] == 2,
            tiled=tiled,
            rows=rows,
            columns=entries[_TILE_WIDTH][0] if tiled else width,
            offsets=entries.get(_TILES if tiled else _STRIPS, ()),
            sizes=entries.get(_TILE_BYTES if tiled else _STRIP_BYTES, ()),
            entries=entries,
        )

    @property
    def together(self) -> int:
        """Channels that lie in one part."""
        return 1 if self.planar else self.channels

    def places(self) -> list[tuple[int, int, int]]:
        """First row, column and channel of each part, in the file's order."""
        planes = range(self.channels) if self.planar else (0,)
        tops, lefts = range(0, self.height, self.rows), range(0, self.width, self.columns)
        return [(top, left, plane) for plane in planes for top in tops for left in lefts]

    def check(self, length: int, max_pixels: int) -> None:
        """Refuse what is not read, before memory is taken; `length` is the file's in bytes.

        Raises:
            HeaderError: Says what it is.
        """
        _check_numbers(self.entries, self.bits)
        if min(self.height, self.width, self.rows, self.columns, self.channels) < 1:
            raise HeaderError(DAMAGED)
        if self.height * self.width > max_pixels:
            raise HeaderError(
                f"is {self.height}x{self.width}, above {max_pixels} pixels; make it smaller first, or allow more "
                "(max_pixels)"
            )
        if self.tiled and self.rows * self.columns > _LARGEST_TILE:
            raise HeaderError(
                f"is a TIFF of tiles of {self.rows}x{self.columns}, expected up to 4096x4096; save it again"
            )
        down, across = -(-self.height // self.rows), -(-self.width // self.columns)
        count = down * across * (self.channels if self.planar else 1)
        if len(self.offsets) != count or len(self.sizes) != count:
            raise HeaderError(DAMAGED)
        if sum(min(size, length) for size in self.sizes) > 2 * length + 1024:
            raise HeaderError("is a TIFF whose parts together are larger than the file; save it again")

    def read(self, data: bytes) -> NDArray[Any]:
        """Read the page: uint8 or uint16 (H, W, channels).

        Raises:
            HeaderError: It is cut short or damaged.
        """
        image = np.empty((self.height, self.width, self.channels), np.uint8 if self.bits == 8 else np.uint16)
        for (top, left, plane), offset, size in zip(self.places(), self.offsets, self.sizes, strict=True):
            if offset + size > len(data):
                raise HeaderError(ENDS_EARLY)
            rows = self.rows if self.tiled else min(self.rows, self.height - top)
            part = self._part(data, offset, size, rows)
            target = image[top : top + rows, left : left + self.columns, plane : plane + self.together]
            target[:] = part[: target.shape[0], : target.shape[1]]
        return image

    def _part(self, data: bytes, offset: int, size: int, rows: int) -> NDArray[Any]:
        """One strip or tile (rows, columns, channels together)."""
        order, compression = byte_order(data), self.entries.get(_COMPRESSION, (_PLAIN,))[0]
        stored = np.dtype(np.uint8) if self.bits == 8 else np.dtype(f"{order}u2")
        row = self.columns * self.together * stored.itemsize
        plain = data[offset : offset + size]
        if compression in _DEFLATE:
            plain = zlib.decompressobj().decompress(plain, rows * row)
        elif compression != _PLAIN:
            plain = _by_libtiff(plain, compression, order, rows, row)
        if len(plain) < rows * row:
            raise HeaderError(ENDS_EARLY if compression == _PLAIN else DAMAGED)
        part = np.frombuffer(plain, stored, rows * row // stored.itemsize)
        part = part.reshape(rows, self.columns, self.together).astype(stored.newbyteorder("="), copy=False)
        if compression != _PLAIN and self.entries.get(_PREDICTOR, (1,))[0] == 2:
            part = np.cumsum(part, axis=1, dtype=part.dtype)  # differences of neighbours, modulo 256 or 65536
        return part


def _by_libtiff(part: bytes, compression: int, order: str, rows: int, row: int) -> bytes:
    """Unpack `rows` rows of `row` bytes by the libtiff in OpenCV.

    They are read as a grey picture of 16 bits, since of one of 8 bits OpenCV passes over damage without a word.

    Raises:
        HeaderError: The part is damaged.
    """
    whole = rows * row
    by_rows = (rows, row // 2) if row % 2 == 0 else (rows // 2, row)
    shape = (1, whole // 2) if whole // 2 <= _WIDEST else by_rows
    unpacked = b""
    if min(shape):
        unpacked = _unpacked(part, compression, order, shape, 16).astype(f"{order}u2").tobytes()
    if len(unpacked) < whole:  # an odd number of bytes: the last ones
        unpacked += _unpacked(part, compression, order, (rows, row), 8).tobytes()[len(unpacked) :]
    return unpacked


def _unpacked(part: bytes, compression: int, order: str, shape: tuple[int, int], bits: int) -> NDArray[Any]:
    """Decode a strip as the picture of a TIFF of its own."""
    (height, width), short = shape, (_BITS, _COMPRESSION, _PHOTOMETRIC, _CHANNELS)
    tags = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _CHANNELS, _STRIP_ROWS, _STRIP_BYTES)
    values = (width, height, bits, compression, 1, _MINI_TIFF, 1, height, len(part))
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags))
    for tag, value in zip(tags, values, strict=True):
        layout = (f"{order}HHIHxx", 3) if tag in short else (f"{order}HHII", 4)
        head += struct.pack(layout[0], tag, layout[1], 1, value)
    decoded = cv2.imdecode(np.frombuffer(head + bytes(4) + part, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.shape != shape or decoded.itemsize != bits // 8:
        raise HeaderError(DAMAGED)
    return decoded


def _check_numbers(entries: Entries, bits: int) -> None:
    """Refuse by name the kinds of numbers and colours that are not channels as they stand."""
    numbers, photometric = set(entries.get(_NUMBERS, (1,))), entries.get(_PHOTOMETRIC, (1,))[0]
    kinds = {1: "uint", 2: "int", 3: "float", 4: "uint"}
    kind = kinds.get(max(numbers), "complex")
    if kind != "uint" or bits not in (8, 16) or len(set(entries.get(_BITS, (bits,)))) > 1:
        raise HeaderError(f"holds {kind}{bits} values, expected uint8 or uint16; convert it first")
    colours = {0: "white as 0", 3: "a colour table", 5: "CMYK colours", 6: "YCbCr colours", 8: "Lab colours"}
    if photometric not in (1, 2):
        what = colours.get(photometric, f"colour space {photometric}")
        raise HeaderError(f"holds {what}, expected channels as they are (gray or RGB); convert it first")
    if entries.get(_ORIENTATION, (1,))[0] != 1 or entries.get(_FILL_ORDER, (1,))[0] != 1:
        raise HeaderError("is a TIFF whose rows, columns or bits are stored in another order; save it again upright")
    compression, predictor = entries.get(_COMPRESSION, (1,))[0], entries.get(_PREDICTOR, (1,))[0]
    if compression not in (_PLAIN, _LZW, _PACKBITS, *_DEFLATE) or predictor not in (1, 2):
        raise HeaderError(
            f"is a TIFF of compression {compression} (predictor {predictor}); save it plain, or with LZW or Deflate"
        )
