"""Whether a video file is whole: what its container promises against what is there and what was decoded.

The number of frames in a header is not the number that a player shows. An edit list leaves out what was trimmed without
recoding; frames of no bytes repeat the one before. What a file says about its own length tells a cut one.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["has_no_index", "missing_end"]

_MOST_BOXES = 1_000_000
_LARGEST_INDEX = 1 << 28
_MOST_FRAMES = 10_000_000
_SUFFIXES = frozenset((".avi", ".m4v", ".mov", ".mp4"))  # containers that store their number of frames


class _OddError(Exception):
    """A container that is not built as expected, of which nothing is concluded."""


_ODD = (OSError, struct.error, LookupError, ValueError, OverflowError, MemoryError, RecursionError, _OddError)


@dataclass
class _Promise:
    """What a container says of itself.

    Attributes:
        frames: Frames that a player shows; None where it does not say.
        cut: Whether the file ends before something that it says it holds.
    """

    frames: int | None = None
    cut: bool = False


def missing_end(path: Path, decoded: int, stored: int | None) -> str:
    """Say that a video's end is missing, as the continuation of a sentence; empty where nothing is known to be.

    Args:
        path: The video, which was decoded up to its end.
        decoded: Frames that were decoded.
        stored: Frames that OpenCV read from the header.
    """
    promise = _Promise()
    with contextlib.suppress(*_ODD), open(path, "rb") as file:
        promise = _promise(file, os.fstat(file.fileno()).st_size)
    frames = promise.frames
    if frames is None and path.suffix.lower() in _SUFFIXES:
        frames = stored
    if promise.cut:
        of = f" of {frames}" if frames is not None and frames > decoded else ""
        return f"ends after {decoded}{of} frames, where the file is cut off; get it whole"
    if frames is not None and decoded < frames - max(2, frames // 100):
        return f"ends after {decoded} of {frames} frames; it is cut off or damaged there"
    return ""


def has_no_index(path: Path) -> bool:
    """Tell whether a file is an MP4 or QuickTime film that lacks the box without which no frame is found."""
    with contextlib.suppress(*_ODD), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        kinds = [kind for kind, _, _ in _boxes(file, size)]
        return kinds[:1] in ([b"ftyp"], [b"mdat"], [b"wide"], [b"free"]) and not {b"moov", b"moof"} & set(kinds)
    return False


def _promise(file: BinaryIO, size: int) -> _Promise:
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"AVI ":
        return _avi(file, size)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska(file, size)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return _mp4(file, size)
    return _Promise()


# --- MP4 and QuickTime ---------------------------------------------------------------------------------------------


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, first byte and end of each box of a file; the end may lie beyond the file's."""
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        length, kind = struct.unpack_from(">I4s", head)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", head, 8)
            start = at + 16
        end = at + length if length else size
        if end < start:
            raise _OddError
        yield kind, start, end
        at = end


def _inside(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, first byte and end of each box between two places of a box."""
    at = start
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        first = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, first)
            first += 8
        stop = at + length if length else end
        if stop < first or stop > end:
            raise _OddError
        yield kind, first, stop
        at = stop


def _mp4(file: BinaryIO, size: int) -> _Promise:
    tracks: list[_Track] = []
    fragments, cut = 0, False
    for kind, start, end in _boxes(file, size):
        cut = cut or (end > size and kind in (b"mdat", b"moov", b"moof"))
        if kind not in (b"moov", b"moof") or end > size:
            continue
        if end - start > _LARGEST_INDEX:
            raise _OddError
        file.seek(start)
        data = file.read(end - start)
        if kind == b"moov":
            tracks = _tracks(data)
        elif tracks:
            fragments += _fragment_frames(data, tracks[0].number)
    if not tracks:
        return _Promise(cut=cut)
    film = tracks[0]
    if fragments:
        return _Promise(len(film.times) + fragments, cut)
    return _Promise(film.shown(), cut or film.last >= size)


@dataclass
class _Track:
    """A track of pictures.

    Attributes:
        number: Of the track.
        times: When each frame is shown, in units of the track, in the order of decoding.
        edits: Start in units of the track (-1 for nothing) and length in seconds of each part that is played.
        scale: Units of the track in a second.
        last: First byte of the last part of the file that holds frames.
    """

    number: int = 0
    times: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    edits: list[tuple[int, float]] = field(default_factory=list)
    scale: int = 1
    last: int = -1

    def shown(self) -> int:
        """Count the frames that some part of the edit list plays."""
        parts = [(start, length) for start, length in self.edits if start >= 0]
        if not parts:
            return len(self.times)
        played = np.zeros(len(self.times), bool)
        for start, length in parts:
            end = start + length * self.scale if length > 0 else np.inf
            played |= (self.times >= start) & (self.times < end)
        return int(np.count_nonzero(played))


def _tracks(data: bytes) -> list[_Track]:
    """Read the tracks of pictures in a ``moov`` box."""
    seconds, found = 1, list[_Track]()
    for kind, start, end in _inside(data, 0, len(data)):
        if kind == b"mvhd":
            (seconds,) = struct.unpack_from(">I", data, start + (20 if data[start] else 12))
        elif kind == b"trak":
            track = _track(data, start, end, max(1, seconds))
            found += [track] if track is not None else []
    return found


def _track(data: bytes, start: int, end: int, seconds: int) -> _Track | None:
    """Read a track; None where it has no pictures."""
    boxes: dict[bytes, tuple[int, int]] = {}
    for kind, first, stop in _deep(data, start, end):
        boxes.setdefault(kind, (first, stop))  # QuickTime has a second handler, of where the data lie
    handler = boxes.get(b"hdlr", (0, 0))[0]
    if data[handler + 8 : handler + 12] != b"vide" or b"stts" not in boxes:
        return None
    track = _Track()
    first = boxes[b"tkhd"][0]
    (track.number,) = struct.unpack_from(">I", data, first + (20 if data[first] else 12))
    first = boxes[b"mdhd"][0]
    (track.scale,) = struct.unpack_from(">I", data, first + (20 if data[first] else 12))
    track.times = _times(data, boxes)
    if b"elst" in boxes:
        track.edits = _edits(data, boxes[b"elst"][0], seconds)
    for kind, layout in ((b"stco", ">u4"), (b"co64", ">u8")):
        if kind in boxes:
            places = _table(data, boxes[kind][0], layout, 1)
            track.last = int(places.max()) if places.size else -1
    return track


def _deep(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    for kind, first, stop in _inside(data, start, end):
        if kind in (b"mdia", b"minf", b"stbl", b"edts"):
            yield from _deep(data, first, stop)
        else:
            yield kind, first, stop


def _table(data: bytes, first: int, layout: str, wide: int) -> NDArray[np.int64]:
    """Read the rows of a box that counts them: int64 (rows, wide)."""
    (count,) = struct.unpack_from(">I", data, first + 4)
    cells = np.frombuffer(data, layout, count * wide, first + 8)
    return cells.astype(np.int64).reshape(count, wide)


def _times(data: bytes, boxes: dict[bytes, tuple[int, int]]) -> NDArray[np.int64]:
    """Compute when each frame is shown: the sum of the durations before it, and the shift of frames decoded early."""
    durations = _table(data, boxes[b"stts"][0], ">u4", 2)
    if durations[:, 0].sum() > _MOST_FRAMES:
        raise _OddError
    steps = np.repeat(durations[:, 1], durations[:, 0])
    times = np.concatenate([np.zeros(1, np.int64), np.cumsum(steps)[:-1]]) if steps.size else steps
    if b"ctts" in boxes:
        shifts = _table(data, boxes[b"ctts"][0], ">i4", 2)
        if not 0 <= shifts[:, 0].min(initial=0) <= shifts[:, 0].sum() <= _MOST_FRAMES:
            raise _OddError
        shift = np.repeat(shifts[:, 1], shifts[:, 0])[: times.size]
        times[: shift.size] += shift
    return times


def _edits(data: bytes, first: int, seconds: int) -> list[tuple[int, float]]:
    (count,) = struct.unpack_from(">I", data, first + 4)
    layout = ">QqI" if data[first] else ">IiI"
    rows = (struct.unpack_from(layout, data, first + 8 + struct.calcsize(layout) * row) for row in range(count))
    return [(start, length / seconds) for length, start, _ in rows]


def _fragment_frames(data: bytes, number: int) -> int:
    """Count the frames of a track in a ``moof`` box."""
    frames = 0
    for kind, start, end in _inside(data, 0, len(data)):
        if kind != b"traf":
            continue
        inner = list(_inside(data, start, end))
        tracks = [struct.unpack_from(">I", data, first + 4)[0] for name, first, _ in inner if name == b"tfhd"]
        if tracks == [number]:
            frames += sum(struct.unpack_from(">I", data, first + 4)[0] for name, first, _ in inner if name == b"trun")
    return frames


# --- AVI and Matroska ----------------------------------------------------------------------------------------------


def _avi(file: BinaryIO, size: int) -> _Promise:
    """Compare the chunks' lengths with the file's; frames are those of the index that have bytes."""
    at, frames = 0, None
    cut = False
    while at + 12 <= size:
        file.seek(at)
        kind, length, _ = struct.unpack("<4sI4s", file.read(12))
        if at == 0 or kind == b"RIFF":
            cut = cut or at + 8 + length > size
            at += 12
            continue
        if kind == b"idx1" and frames is None:
            frames = _indexed(file, at + 8, min(length, size - at - 8))
        cut = cut or at + 8 + length > size
        at += 8 + length + length % 2
    return _Promise(frames, cut)


_INDEX_ENTRY = np.dtype([("name", "S4"), ("flags", "<u4"), ("place", "<u4"), ("size", "<u4")])


def _indexed(file: BinaryIO, at: int, length: int) -> int | None:
    if length > _LARGEST_INDEX:
        raise _OddError
    file.seek(at)
    entries = np.frombuffer(file.read(length // 16 * 16), _INDEX_ENTRY)
    streams = sorted({name[:2] for name in np.unique(entries["name"]).tolist() if name[2:] in (b"dc", b"db")})
    if not streams:
        return None
    first = np.isin(entries["name"], [streams[0] + b"dc", streams[0] + b"db"])
    return int(np.count_nonzero(first & (entries["size"] > 0)))


def _matroska(file: BinaryIO, size: int) -> _Promise:
    """Compare the segment's length with the file's; a recording that was not finished has none."""
    file.seek(4)
    head_length, at = _number(file)
    if head_length is None:
        return _Promise()
    at = 4 + at + head_length
    file.seek(at)
    if file.read(4) != b"\x18\x53\x80\x67":
        return _Promise()
    length, wide = _number(file)
    return _Promise(cut=length is not None and at + 4 + wide + length > size)


def _number(file: BinaryIO) -> tuple[int | None, int]:
    """Read EBML's number of variable length; None is unknown. Also return the bytes it takes."""
    first = file.read(1)[0]
    wide = 9 - first.bit_length()
    if wide > 8:
        raise _OddError
    value = int.from_bytes(bytes([first & (0xFF >> wide)]) + file.read(wide - 1), "big")
    return (None if value == (1 << 7 * wide) - 1 else value), wide
