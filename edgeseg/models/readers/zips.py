"""The entries of a zip file, each checked before any is read: places, sizes and names that contradict are refused."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgeseg.models.readers.parts import Stored
from edgeseg.models.readers.refusals import UnreadableError, damaged, read_exactly
from edgeseg.text import one_line

__all__ = ["Archive", "Entry"]

_TAIL = 65_557  # the end record and the longest comment after it
_LARGEST_DIRECTORY = 8 << 20
_LARGEST_RATIO = 20  # weights hardly shrink; a bomb grows a thousand times
_FREE = 1 << 20  # bytes that even a small file may grow to
_STORED, _DEFLATED = 0, 8
_FULL = 0xFFFFFFFF


@dataclass(frozen=True)
class Entry:
    """A file in the archive.

    Attributes:
        name: Of the file.
        deflated: Compressed; else stored as it is.
        size: Bytes of the file.
        packed: Bytes in the archive.
        checksum: CRC-32 of the file; 0 where none was written.
        header: Where its local header starts.
        start: Where its bytes start.
    """

    name: str
    deflated: bool
    size: int
    packed: int
    checksum: int
    header: int
    start: int


class Archive:
    """A zip file whose directory was checked.

    Args:
        path: Of the file.

    Attributes:
        entries: By name.
        grown: Bytes of all entries together, uncompressed.

    Raises:
        UnreadableError: No whole zip, or its parts overlap, lie about their size, are encrypted or compressed too far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            length = stream.seek(0, 2)
            place, size, count = _directory(stream, length)
            listed = _listed(read_exactly(stream, place, size), count)
            entries = [_located(stream, entry, place) for entry in listed]
        _check_places(entries, place)
        self.entries = {entry.name: entry for entry in entries}
        if len(self.entries) != len(entries):
            raise damaged("it is a zip with two entries of one name")
        self.grown = sum(entry.size for entry in entries)
        if self.grown > _LARGEST_RATIO * length + _FREE:
            raise UnreadableError(f"is a zip of {length:,} bytes that unpacks to {self.grown:,}, which no weights do")

    def source(self, entry: Entry, swap: int = 1) -> Stored:
        """Return the bytes of an entry, to be read later."""
        packed = entry.packed if entry.deflated else None
        return Stored(self.path, entry.start, entry.size, packed=packed, checksum=entry.checksum, swap=swap)

    def read(self, name: str) -> bytes:
        """Return the bytes of an entry.

        Raises:
            UnreadableError: They are not all there.
        """
        return self.source(self.entries[name]).read().numpy().tobytes()


def _directory(stream: BinaryIO, length: int) -> tuple[int, int, int]:
    """Return the place, size and number of entries of the directory."""
    tail = read_exactly(stream, max(0, length - _TAIL), min(length, _TAIL))
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < 22:
        raise damaged("it is a zip without its end")
    end = length - len(tail) + found
    count, size, place = struct.unpack("<H2I", tail[found + 10 : found + 20])
    wide = _wide_directory(stream, end)
    if wide is not None:
        narrow, (count, size, place) = (count, size, place), wide
        if any(a not in (b, limit) for a, b, limit in zip(narrow, wide, (0xFFFF, _FULL, _FULL), strict=True)):
            raise damaged("it is a zip with two directories")
    if place + size > end:
        raise damaged("it is a zip whose directory lies outside of it")
    if size > _LARGEST_DIRECTORY:
        raise damaged(f"it is a zip with a directory of {size:,} bytes")
    return place, size, count


def _wide_directory(stream: BinaryIO, end: int) -> tuple[int, int, int] | None:
    """Return the number of entries, size and place from the record of large archives, where there is one."""
    if end < 20:
        return None
    locator = read_exactly(stream, end - 20, 20)
    if locator[:4] != b"PK\x06\x07":
        return None
    place = struct.unpack("<Q", locator[8:16])[0]
    if place + 56 > end:
        raise damaged("it is a zip whose end lies outside of it")
    record = read_exactly(stream, place, 56)
    if record[:4] != b"PK\x06\x06":
        raise damaged("it is a zip without its end")
    count, size, start = struct.unpack("<3Q", record[32:56])
    return count, size, start


def _listed(directory: bytes, count: int) -> list[Entry]:
    """Return the entries that the directory lists."""
    entries, at = [], 0
    while at < len(directory):
        if directory[at : at + 4] != b"PK\x01\x02" or at + 46 > len(directory):
            raise damaged("it is a zip with a broken directory")
        flags, method = struct.unpack("<2H", directory[at + 8 : at + 12])
        checksum, packed, size, name_size, extra_size, comment_size = struct.unpack(
            "<3I3H", directory[at + 16 : at + 34]
        )
        header = struct.unpack("<I", directory[at + 42 : at + 46])[0]
        name = directory[at + 46 : at + 46 + name_size]
        extra = directory[at + 46 + name_size : at + 46 + name_size + extra_size]
        size, packed, header = _widened(extra, size, packed, header)
        _check_method(name, flags, method, size, packed)
        entries.append(Entry(_text(name), method == _DEFLATED, size, packed, checksum, header, 0))
        at += 46 + name_size + extra_size + comment_size
    if at != len(directory) or len(entries) != count:
        raise damaged("it is a zip whose directory has another length than it states")
    return entries


def _text(name: bytes) -> str:
    return name.decode("utf-8", errors="backslashreplace")


def _check_method(name: bytes, flags: int, method: int, size: int, packed: int) -> None:
    shown = one_line(_text(name), 60)
    if flags & 1:
        raise UnreadableError(f"is a zip with an encrypted entry '{shown}'", "unpack it where you have its password")
    if method not in (_STORED, _DEFLATED):
        raise UnreadableError(
            f"is a zip with an entry '{shown}' of method {method}, which is neither stored nor deflated"
        )
    if method == _STORED and size != packed:
        raise damaged(f"the zip's entry '{shown}' has two sizes")


def _widened(extra: bytes, *numbers: int) -> tuple[int, int, int]:
    """Return the size, packed size and place of an entry; those that need 64 bits stand in the extra field."""
    wide, at = b"", 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<2H", extra[at : at + 4])
        if kind == 1:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    found: list[int] = []
    for number in numbers:
        if number == _FULL:
            if len(wide) < 8:
                raise damaged("it is a zip with an entry without a size")
            number, wide = struct.unpack("<Q", wide[:8])[0], wide[8:]
        found.append(number)
    return found[0], found[1], found[2]


def _located(stream: BinaryIO, entry: Entry, limit: int) -> Entry:
    """Return the entry with the place of its bytes, after comparing its own header with the directory."""
    shown = one_line(entry.name, 60)
    if entry.header + 30 > limit:
        raise damaged(f"the zip's entry '{shown}' lies outside of it")
    head = read_exactly(stream, entry.header, 30)
    flags, method = struct.unpack("<2H", head[6:10])
    packed, size, name_size, extra_size = struct.unpack("<2I2H", head[18:30])
    rest = read_exactly(stream, entry.header + 30, name_size + extra_size)
    size, packed, _ = _widened(rest[name_size:], size, packed, 0)
    later = flags & 8 and (size, packed) == (0, 0)
    same = head[:4] == b"PK\x03\x04" and _text(rest[:name_size]) == entry.name
    if (
        not same
        or (method == _DEFLATED) != entry.deflated
        or not (later or (size, packed) == (entry.size, entry.packed))
    ):
        raise damaged(f"the zip's entry '{shown}' is another one than its directory lists")
    start = entry.header + 30 + name_size + extra_size
    return Entry(entry.name, entry.deflated, entry.size, entry.packed, entry.checksum, entry.header, start)


def _check_places(entries: list[Entry], limit: int) -> None:
    """Refuse entries that overlap or reach into the directory."""
    end = 0
    for entry in sorted(entries, key=lambda each: each.header):
        if entry.header < end:
            raise damaged("it is a zip whose entries overlap")
        end = entry.start + entry.packed
    if end > limit:
        raise damaged("it is a zip whose entries reach into its directory")
