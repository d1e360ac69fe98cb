"""PNG: every chunk's checksum, and the file without what its first picture does not need."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from edgeseg.decoding._header import DAMAGED, ENDS_EARLY, HeaderError, unpack
from edgeseg.text import one_line

__all__ = ["plain_png"]

_START = 8
# All that the pixels depend on, and the EXIF orientation. What is left out (colour profiles, texts, the other frames of
# an animation) is also what unpacks to gigabytes and what libpng complains of.
_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"eXIf"))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_UNPACKED_ANYWAY = 1 << 20  # bytes of packed pixels that unpack to a gigabyte at most
_BLOCK, _PIECE = 65535, 1 << 14
_MOST_STORED = 1 << 30


def plain_png(data: bytes) -> tuple[bytes | bytearray, tuple[str, ...]]:
    """Check every chunk and leave out what the first picture does not need.

    libpng also unpacks whatever follows the last row, a thousand bytes for each. Where that could be more than a
    gigabyte the pixels are unpacked here, up to their end, and passed on unpacked.

    Args:
        data: A PNG whose header was measured.

    Returns:
        The smaller file, and sentences on chunks beside the pixels whose checksum is wrong.

    Raises:
        HeaderError: Cut short, or a chunk that the pixels come from is damaged.
    """
    kept, pixels = bytearray(data[:_START]), list[memoryview]()
    notes: dict[str, None] = {}
    for kind, chunk in _chunks(data):
        wrong = zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big")
        if wrong and kind[:1].isupper():
            raise HeaderError(f"is damaged: its {_word(kind)} chunk has a wrong checksum; get it whole")
        if wrong:
            notes[f"its {_word(kind)} chunk has a wrong checksum and is left out; get the file again"] = None
        elif kind == b"IDAT":
            pixels.append(chunk)
        elif kind in _KEPT:
            kept += chunk
    room = _unpacked_size(data)
    if sum(map(len, pixels)) > _UNPACKED_ANYWAY and room < _MOST_STORED:
        _store(kept, pixels, room)
    else:
        for chunk in pixels:
            kept += chunk
    kept += struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
    return kept, tuple(notes)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield kind and whole of each chunk, up to the end of the picture."""
    view, at = memoryview(data), _START
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        yield kind, view[at:end]
        if kind == b"IEND":
            return
        at = end
    raise HeaderError(ENDS_EARLY)


def _unpacked_size(data: bytes) -> int:
    """Count the bytes of all rows, each with its filter, in one pass or the seven of an interlaced picture."""
    width, height, bits, color, _, _, interlaced = unpack(">IIBBBBB", data, 16)
    depth = bits * _CHANNELS[color]
    sizes = [(width, height)]
    if interlaced:
        sizes = [(-((left - width) // across), -((top - height) // down)) for left, top, across, down in _PASSES]
    return sum(high * (1 + (wide * depth + 7) // 8) for wide, high in sizes if wide > 0 and high > 0)


def _store(kept: bytearray, pixels: list[memoryview], room: int) -> None:
    """Append the pixels as IDAT chunks of zlib's stored blocks."""
    unpacked, check, left = _unpacked(pixels, room), 1, room
    head = b"\x78\x01"
    for block in unpacked:
        left -= len(block)
        check = zlib.adler32(block, check)
        body = head + struct.pack("<BHH", not left, len(block), len(block) ^ 0xFFFF) + block
        head = b""
        if not left:
            body += struct.pack(">I", check)
        kept += struct.pack(">I4s", len(body), b"IDAT") + body
        kept += struct.pack(">I", zlib.crc32(body, zlib.crc32(b"IDAT")))
    if left:
        raise HeaderError("holds fewer rows than it says; it is damaged, get it whole")


def _unpacked(pixels: list[memoryview], room: int) -> Iterator[bytes]:
    """Unpack up to `room` bytes in blocks; check the checksum that may follow, and leave the rest."""
    unpacker = zlib.decompressobj()
    try:
        for piece in _pieces(pixels):
            waiting: bytes | memoryview = piece
            while waiting:
                block = unpacker.decompress(waiting, max(1, min(_BLOCK, room)))
                waiting = unpacker.unconsumed_tail
                if block and not room:
                    return
                if block:
                    room -= len(block)
                    yield block
            if unpacker.eof:
                return
    except zlib.error:
        raise HeaderError(DAMAGED) from None


def _pieces(pixels: list[memoryview]) -> Iterator[memoryview]:
    """Cut the packed bytes of all chunks into small pieces, since zlib copies what it has not used of each."""
    for chunk in pixels:
        packed = chunk[8:-4]
        yield from (packed[start : start + _PIECE] for start in range(0, len(packed), _PIECE))


def _word(kind: bytes) -> str:
    return one_line(kind.decode("latin-1"), 8)
