"""TIFF files of every layout, written by hand: writers at hand make only a few."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["tiff"]


def tiff(
    samples: NDArray[Any],
    bits: int = 8,
    colour: int = 2,
    *,
    planar: bool = False,
    tile: tuple[int, int] | None = None,
    order: str = "<",
    numbers: int = 1,
    later: tuple[int, ...] = (),
    table: list[int] | None = None,
    **tags: int,
) -> bytes:
    """Write an uncompressed TIFF whose first directory stands before its pixels.

    Args:
        samples: (H, W, C) whole numbers, or floats with `numbers` 3.
        bits: Of each.
        colour: PhotometricInterpretation.
        planar: Store each channel by itself.
        tile: Height x width of tiles.
        order: Byte order.
        numbers: SampleFormat: 1 unsigned, 2 signed, 3 floats.
        later: NewSubfileType of each of further directories, which are empty but for it.
        table: Colours of a colour table, 16 bits each, all reds first.
        tags: Further tags of one SHORT, such as ``t338=2``.
    """
    height, width, channels = samples.shape
    planes = [samples[..., index : index + 1] for index in range(channels)] if planar else [samples]
    parts = [_packed(part, bits, order, numbers) for plane in planes for part in _tiles(plane, tile)]
    entries: dict[int, tuple[str, list[int]]] = {
        **{256: ("I", [width]), 257: ("I", [height]), 258: ("H", [bits] * channels), 259: ("H", [1])},
        **{262: ("H", [colour]), 277: ("H", [channels]), 284: ("H", [1 + planar]), 339: ("H", [numbers] * channels)},
        **{int(name[1:]): ("H", [value]) for name, value in tags.items()},
    }
    entries |= {} if table is None else {320: ("H", table)}
    starts, sizes = (324, 325) if tile else (273, 279)
    entries |= {322: ("I", [tile[1]]), 323: ("I", [tile[0]])} if tile else {278: ("I", [height])}
    entries |= {starts: ("I", [0] * len(parts)), sizes: ("I", [len(part) for part in parts])}
    head = _directory(entries, order, 8, 0)
    extra = [{254: ("I", [kind])} for kind in later]
    at = 8 + len(head)
    places = [at + 18 * index for index in range(len(extra))]
    pixels_at = at + 18 * len(extra)
    entries[starts] = ("I", [pixels_at + sum(len(part) for part in parts[:index]) for index in range(len(parts))])
    chain = [*places, 0]
    head = _directory(entries, order, 8, chain[0])
    more = b"".join(
        _directory(entry, order, place, chain[index + 1])
        for index, (entry, place) in enumerate(zip(extra, places, strict=True))
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", 8) + head + more + b"".join(parts)


def _directory(entries: dict[int, tuple[str, list[int]]], order: str, place: int, following: int) -> bytes:
    outside, body = b"", b""
    beyond = place + 2 + 12 * len(entries) + 4
    for tag in sorted(entries):
        kind, values = entries[tag]
        raw = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(raw) > 4:
            value, outside = struct.pack(f"{order}I", beyond + len(outside)), outside + raw + bytes(len(raw) % 2)
        else:
            value = raw.ljust(4, b"\0")
        body += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + value
    return struct.pack(f"{order}H", len(entries)) + body + struct.pack(f"{order}I", following) + outside


def _tiles(plane: NDArray[Any], tile: tuple[int, int] | None) -> list[NDArray[Any]]:
    if tile is None:
        return [plane]
    high, wide = tile
    padded = np.pad(plane, [(0, -plane.shape[0] % high), (0, -plane.shape[1] % wide), (0, 0)])
    return [
        padded[top : top + high, left : left + wide]
        for top in range(0, padded.shape[0], high)
        for left in range(0, padded.shape[1], wide)
    ]


def _packed(part: NDArray[Any], bits: int, order: str, numbers: int) -> bytes:
    if bits % 8 == 0:
        return part.astype(f"{order}{'.uif'[numbers]}{bits // 8}").tobytes()
    rows = part.reshape(part.shape[0], -1).astype(np.int64)
    flat = (rows[..., None] >> np.arange(bits - 1, -1, -1) & 1).reshape(rows.shape[0], -1).astype(np.uint8)
    return np.packbits(flat, axis=1).tobytes()
