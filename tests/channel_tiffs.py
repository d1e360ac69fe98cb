"""Writes TIFFs of any number of channels as programs for satellite and microscope pictures do."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["tiff"]

Order = Literal["<", ">"]

_PIL_COMPRESSIONS = {5: "tiff_lzw", 32773: "packbits"}


def tiff(
    *pages: NDArray[Any],
    planar: bool = False,
    tile: tuple[int, int] | None = None,
    rows: int = 7,
    compression: int = 1,
    predictor: bool = False,
    order: Order = "<",
    big: bool = False,
    tags: dict[int, int] | None = None,
    kinds: tuple[int, ...] = (),
) -> bytes:
    """Write pages (H, W, C) of uint8 or uint16 as one file.

    Args:
        pages: In the file's order.
        planar: A plane of its own for every channel.
        tile: Height x width of tiles; strips of `rows` rows where None.
        rows: See `tile`.
        compression: 1 none, 5 LZW, 8 Deflate, 32773 PackBits.
        predictor: Store differences of neighbours.
        order: Byte order.
        big: BigTIFF.
        tags: Entries that go before the usual ones, of every page.
        kinds: NewSubfileType of each page.
    """
    word, at = ("Q", 16) if big else ("I", 8)
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(f"{order}HHHQ", 43, 8, 0, 0) if big else struct.pack(f"{order}HI", 42, 0)
    data = bytearray(head)
    link = at - (8 if big else 4)
    for index, page in enumerate(pages):
        parts = _parts(page, planar, tile, rows, compression, predictor, order)
        offsets = []
        for part in parts:
            offsets.append(len(data))
            data += part
        height, width, channels = page.shape
        entries: dict[int, tuple[int, ...]] = {
            254: (kinds[index] if kinds else 0,), 256: (width,), 257: (height,),
            258: (8 * page.dtype.itemsize,) * channels, 259: (compression,), 262: (2 if channels >= 3 else 1,),
            277: (channels,), 284: (2 if planar else 1,), 317: (2 if predictor else 1,), 339: (1,) * channels,
        }  # fmt: skip
        size = tuple(len(part) for part in parts)
        if tile:
            entries |= {322: (tile[1],), 323: (tile[0],), 324: tuple(offsets), 325: size}
        else:
            entries |= {273: tuple(offsets), 278: (rows,), 279: size}
        if channels > 3:
            entries[338] = (0,) * (channels - 3)
        entries |= {tag: (value,) for tag, value in (tags or {}).items()}
        start = _directory(data, entries, order, big)
        data[link : link + struct.calcsize(f"{order}{word}")] = struct.pack(f"{order}{word}", start)
        link = len(data) - struct.calcsize(f"{order}{word}")
    return bytes(data)


def _directory(data: bytearray, entries: dict[int, tuple[int, ...]], order: str, big: bool) -> int:
    """Append the values that do not fit and the directory itself, with an empty link at its end; return its place."""
    word, room = ("Q", 8) if big else ("I", 4)
    listed = b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(packed) > room:
            place, packed = len(data), packed
            data += packed
            packed = struct.pack(f"{order}{word}", place)
        listed += struct.pack(f"{order}HH{word}", tag, 4, len(values)) + packed.ljust(room, b"\0")
    start = len(data)
    data += (
        struct.pack(f"{order}{'Q' if big else 'H'}", len(entries)) + listed + bytes(struct.calcsize(f"{order}{word}"))
    )
    return start


def _parts(
    page: NDArray[Any],
    planar: bool,
    tile: tuple[int, int] | None,
    rows: int,
    compression: int,
    predictor: bool,
    order: Order,
) -> list[bytes]:
    height, width, channels = page.shape
    planes = [page[..., k : k + 1] for k in range(channels)] if planar else [page]
    found = []
    for plane in planes:
        high, wide = tile or (rows, width)
        for top in range(0, height, high):
            for left in range(0, width, wide):
                part = plane[top : top + high, left : left + wide]
                if tile:
                    part = np.pad(part, ((0, high - part.shape[0]), (0, wide - part.shape[1]), (0, 0)))
                if predictor:
                    part = np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1]))
                found.append(_packed(part.reshape(part.shape[0], -1), compression, order))
    return found


def _packed(part: NDArray[Any], compression: int, order: Order) -> bytes:
    raw = part.astype(part.dtype.newbyteorder(order)).tobytes()
    if compression == 8:
        return zlib.compress(raw)
    if compression == 1:
        return raw
    as_bytes = np.frombuffer(raw, np.uint8).reshape(len(part), -1)
    file = io.BytesIO()
    Image.fromarray(as_bytes).save(file, "TIFF", compression=_PIL_COMPRESSIONS[compression], tiffinfo={278: len(part)})
    with Image.open(io.BytesIO(file.getvalue())) as written:
        ((at,), (size,)) = written.tag_v2[273], written.tag_v2[279]  # type: ignore[attr-defined,unused-ignore]
    return file.getvalue()[at : at + size]
