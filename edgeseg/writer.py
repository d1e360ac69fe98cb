"""Results as files: pictures for images, videos for videos. Every file appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ResultPathError, StorageError, UnknownNameError, UsageError
from edgeseg.files import Partial, path_for_opencv, storage_errors, write_bytes
from edgeseg.results import Result
from edgeseg.sources import Source

__all__ = ["KINDS", "ResultWriter", "VideoFile", "class_index"]

#: What can be written of a result. Of a video, the first two become an mp4, the others numbered PNGs.
KINDS = ("overlay", "color", "labels", "cutout", "scores")

_AS_VIDEO = ("overlay", "color")
_DEFAULT_FPS = 25.0
_ENDING = max(len(f"_{kind}.png") for kind in KINDS)
_REFUSED_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # characters or a length the file system lacks
_OCCUPIED = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP)


class ResultWriter:
    """Writes results into a folder.

    Pictures become ``<stem>_<kind>.png``; videos and cameras ``<stem>_<kind>.mp4`` or ``<stem>_<kind>/000000.png``.
    Subfolders of a source folder are kept; of several sources, patterns and lists those below the folder that all their
    pictures lie in. Two pictures of one stem (``a.jpg``, ``a.png``) get different names. A name that is too long for
    the file system is cut and gets a hash. Every file lies in `out`, whatever the picture is called. Use it in a
    ``with`` block. A video is finished when the block ends well. Where the source is live it is finished at Ctrl-C or
    SIGTERM too, which is how recordings end.

    Args:
        out: Folder; created where missing.
        source: Source of the pictures.
        kinds: Of `KINDS`.
        opacity: Of overlays, 0..1.
        cut: Index of the class whose pixels a cutout keeps.

    Raises:
        UsageError: An unknown kind, or `out` is the folder the pictures are read from.

    Example:
        >>> from dataclasses import replace
        >>> from edgeseg.sources import open_source
        >>> with open_source(folder / "images") as source, ResultWriter(folder / "out", source, ["labels"]) as writer:
        ...     files = writer.write(replace(result, source=str(folder / "images" / "sample.png")))
        >>> [file.name for file in files]
        ['sample_labels.png']
    """

    def __init__(self, out: Path, source: Source, kinds: Sequence[str], *, opacity: float = 0.5, cut: int = 1) -> None:
        for kind in kinds:
            if kind not in KINDS:
                raise UnknownNameError("kind of output", kind, KINDS)
        self._out, self._source, self._opacity, self._cut = out, source, opacity, cut
        self._moving = source.kind not in ("image", "folder", "files")
        self._kinds = tuple(kinds)
        self._room = _name_bytes(out)
        self._taken: set[str] = set()
        self._videos: dict[str, VideoFile] = {}
        self._frames: dict[str, int] = {}
        _refuse_source_folder(out, source)

    def write(self, result: Result) -> list[Path]:
        """Write one result.

        Returns:
            The files, in the order of the kinds.

        Raises:
            ResultPathError: Something else is in the place of this picture's files; others can be written.
            StorageError: Writing failed.
        """
        folder, stem = self._place(result.source)
        try:
            return self._write_kinds(folder, stem, result)
        except StorageError as error:
            number = getattr(error.__cause__, "errno", None)
            if number in _REFUSED_NAME and not self._moving:
                return self._write_kinds(self._out, self._free(Path(), f"picture_{_hash(result.source)}"), result)
            if number in _OCCUPIED and self._out.is_dir() and not self._moving:
                raise ResultPathError(str(error)) from error
            raise

    def _write_kinds(self, folder: Path, stem: str, result: Result) -> list[Path]:
        return [self._write(kind, folder, stem, result) for kind in self._kinds]

    def _write(self, kind: str, folder: Path, stem: str, result: Result) -> Path:
        picture = self._picture(kind, result)
        if self._moving and kind in _AS_VIDEO:
            return self._video(kind, folder / f"{stem}_{kind}.mp4").write(picture)
        if self._moving:
            return _write_png(folder / f"{stem}_{kind}" / f"{self._frame(result.source):06d}.png", picture)
        return _write_png(folder / f"{stem}_{kind}.png", picture)

    def _picture(self, kind: str, result: Result) -> NDArray[np.uint8]:
        makers: dict[str, Callable[[], NDArray[np.uint8]]] = {
            "overlay": lambda: result.overlay(opacity=self._opacity),
            "color": result.color,
            "labels": lambda: result.labels,
            "cutout": lambda: result.cutout(self._cut),
            "scores": lambda: _as_bytes(result.scores),
        }
        return makers[kind]()

    def _frame(self, source: str) -> int:
        """Number a frame; items of an iterable that have their own names are counted."""
        number = source.rpartition("#")[2]
        return int(number) if number.isdecimal() else self._frames.setdefault(source, len(self._frames))

    def _video(self, kind: str, path: Path) -> VideoFile:
        if kind not in self._videos:
            self._videos[kind] = VideoFile(path, self._source.fps or _DEFAULT_FPS, paced=self._source.live)
        return self._videos[kind]

    def _place(self, source: str) -> tuple[Path, str]:
        """Choose the folder and stem of a result's files."""
        if self._moving:
            name = self._source.name
            stem = Path(name).stem if self._source.kind == "video" else re.sub(r"\W+", "_", name).strip("_")[:80]
            return self._out, self._fitting(stem)
        path, inside = Path(source), Path()
        if (root := _root(self._source)) is not None:
            parts = Path(os.path.relpath(path, root)).parent.parts
            inside = Path(*(self._fitting("__" if part == ".." else part) for part in parts))
        return self._out / inside, self._free(inside, path.stem, f"{path.stem}_{path.suffix[1:].lower()}")

    def _free(self, folder: Path, stem: str, full: str = "") -> str:
        """Choose a stem that no earlier picture of this run has: ``a``, then ``a_png``, then ``a_png_2``."""
        full = full or stem
        choices = [stem, full, *(f"{full}_{number}" for number in range(2, len(self._taken) + 3))]
        for choice in map(self._fitting, choices):
            key = unicodedata.normalize("NFC", (folder / choice).as_posix()).casefold()
            if key not in self._taken:
                self._taken.add(key)
                return choice
        raise UsageError(f"no free name for '{folder / stem}'")  # there are more choices than names taken

    def _fitting(self, name: str) -> str:
        """Shorten a name so that ``_KIND.png`` has room behind it; a hash stands for what is cut."""
        name = _encodable(name)
        if len(os.fsencode(name)) <= self._room:
            return name
        ending = f"_{_hash(name)}"
        while len(os.fsencode(name)) > self._room - len(ending):
            name = name[:-1]
        return name + ending

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        whole = kind is None or (self._source.live and not issubclass(kind, Exception))
        try:
            for video in self._videos.values():
                if whole:
                    video.finish()
        finally:
            for video in self._videos.values():
                video.discard()


class VideoFile:
    """An mp4 written under a temporary name. `finish` renames it; `discard` removes it where it was not finished.

    Args:
        path: Ends in ``.mp4``.
        fps: Frames per second, above 0.
        paced: Repeat pictures so that the video runs as long as the recording did (live sources drop late pictures).
    """

    def __init__(self, path: Path, fps: float, *, paced: bool = False) -> None:
        self._path, self._fps, self._paced = path, fps, paced
        self._partial: Partial | None = None
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written, self._start = 0, 0.0

    def write(self, picture: NDArray[np.uint8]) -> Path:
        """Add an RGB picture, uint8 (H, W, 3), resized to the size of the first one.

        Returns:
            The final path.

        Raises:
            StorageError: The file cannot be created.
        """
        writer = self._writer or self._open(picture.shape[1], picture.shape[0])
        frame = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if frame.shape[1::-1] != self._size:  # OpenCV drops pictures of another size without a word
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_NEAREST)
        for _ in range(self._due()):
            writer.write(frame)
            self._written += 1
        return self._path

    def _due(self) -> int:
        if not self._paced:
            return 1
        return max(1, int((time.monotonic() - self._start) * self._fps) - self._written)

    def _open(self, width: int, height: int) -> cv2.VideoWriter:
        self._partial = Partial(self._path, suffix=".mp4")
        self._size, self._start = (width, height), time.monotonic()
        with storage_errors(self._path), path_for_opencv(self._partial.path) as opened:
            writer = cv2.VideoWriter(opened, cv2.VideoWriter.fourcc(*"mp4v"), self._fps, self._size)
        if not writer.isOpened():
            raise StorageError(
                f"cannot write '{self._path}': this OpenCV has no mp4 encoder; "
                "use --labels or --cutout, which write pictures"
            )
        self._writer = writer
        return writer

    def finish(self) -> None:
        """Close the file, check that every frame is in it, and rename it into place.

        Raises:
            StorageError: The file is not whole (the encoder does not say so while writing).
        """
        if self._writer is None or self._partial is None:
            return
        self._writer.release()
        stored = _frames_in(self._partial.path)
        if stored != self._written:
            raise StorageError(
                f"cannot write '{self._path}': {stored} of {self._written} frames were stored, "
                "so the disk is probably full; free space or choose another folder"
            )
        self._partial.put_in_place()
        self._partial.discard()

    def discard(self) -> None:
        """Remove an unfinished file."""
        if self._writer is not None:
            self._writer.release()
        if self._partial is not None:
            self._partial.discard()


def _frames_in(path: Path) -> int:
    with path_for_opencv(path) as name:
        capture = cv2.VideoCapture(name)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()


def _write_png(path: Path, picture: NDArray[np.uint8]) -> Path:
    if picture.ndim == 3:
        code = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
        picture = np.asarray(cv2.cvtColor(picture, code), np.uint8)
    _, data = cv2.imencode(".png", picture)
    write_bytes(path, data.tobytes())
    return path


def _name_bytes(folder: Path) -> int:
    """Count the bytes that a file name in `folder` may have before ``_KIND.png``."""
    there = next((path for path in (folder, *folder.absolute().parents) if os.path.isdir(path)), Path())
    longest = 255
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no pathconf on Windows
        longest = os.pathconf(there, "PC_NAME_MAX")
    return (longest if longest > 0 else 255) - _ENDING


def _encodable(name: str) -> str:
    """Escape what no file name can contain."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        name = name.encode("utf-8", "backslashreplace").decode()
    return name.replace("\0", "_")


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def _as_bytes(scores: NDArray[Any] | None) -> NDArray[np.uint8]:
    if scores is None:
        raise UsageError("the result has no scores; predict with scores=True")
    return np.rint(scores * 255.0).astype(np.uint8)


def class_index(word: str, names: tuple[str, ...]) -> int:
    """Find the index of a class by its name or index.

    Raises:
        UnknownNameError: No such class.

    Example:
        >>> class_index("person", ("background", "person")), class_index("0", ("background", "person"))
        (1, 0)
    """
    if word in names:
        return names.index(word)
    if word.isdecimal() and int(word) < len(names):
        return int(word)
    raise UnknownNameError("class", word, names, hint=f"use a name, or an index below {len(names)}.")


def _root(source: Source) -> Path | None:
    """Folder below which the subfolders of a source's pictures are kept."""
    if source.kind == "files":
        return source.root
    return Path(source.name) if source.kind == "folder" else None


def _refuse_source_folder(out: Path, source: Source) -> None:
    root = _root(source)
    if root is not None and out.resolve() == root.resolve():
        raise UsageError(
            f"--out '{out}' is the folder the pictures are read from; choose another, so that none is overwritten"
        )
