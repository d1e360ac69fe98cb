"""Sources of pictures: an image, a folder, a video file, a camera, a network stream, or anything iterable.

A source yields `Frame` objects: uint8 RGB pictures with their name and decoding time. An unreadable picture among
readable ones is a frame with an error, so that the rest goes on. A source that cannot be opened at all raises.
"""

from __future__ import annotations

import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.credentials import without_credentials
from edgeseg.errors import EdgesegError, InputError
from edgeseg.files import path_for_opencv
from edgeseg.images import MAX_PIXELS, as_rgb, check_max_pixels
from edgeseg.stacks import STACK_SUFFIXES, PictureFile, as_picture, load_picture, name_of
from edgeseg.text import natural_key
from edgeseg.timing import ms_since

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Frame",
    "Source",
    "SourceKind",
    "list_images",
    "open_iterable",
    "open_source",
    "pictures_at",
]

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"))

SourceKind = Literal["image", "folder", "video", "camera", "rtsp", "iterable"]

_EXACT_COUNTS = frozenset((".avi", ".m4v", ".mov", ".mp4"))  # containers that store their number of frames
_LIVE_ELEMENTS = ("v4l2src", "nvarguscamerasrc", "nvv4l2camerasrc", "libcamerasrc", "rtspsrc", "udpsrc")
_OPEN_MS, _READ_MS = 10_000, 5_000


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        image: uint8 (H, W, 3) RGB, or of the channels asked for; None where it could not be read.
        name: Path, or address and frame number.
        index: Position in the source, from 0.
        decode_ms: Milliseconds that reading and decoding took.
        error: Why there is no picture, or None.
        damaged: Sentences on damage of its file that decoding got over; empty where none was recognised.
    """

    image: NDArray[np.uint8] | None
    name: str
    index: int
    decode_ms: float = 0.0
    error: EdgesegError | None = None
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Reading:
    """How pictures are read: the largest height x width, whether damaged ones are refused, and their channels."""

    max_pixels: int = MAX_PIXELS
    strict: bool = False
    channels: int = 3

    def __post_init__(self) -> None:
        check_max_pixels(self.max_pixels)


class Source(ABC):
    """Frames in order; iterate once, then `close` (or use ``with``).

    Attributes:
        kind: What it is; network streams of every protocol are ``rtsp``.
        name: As it was asked for, without user names and passwords (`edgeseg.credentials`).
        length: Number of frames, None where unknown.
        live: Whether frames come at their own pace, so that late ones are best dropped.
        fps: Frames per second, None where unknown.
        patience: Seconds a read may block at worst.
    """

    kind: SourceKind
    name: str
    length: int | None = None
    live: bool = False
    fps: float | None = None
    patience: float = 2.0

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Read frame by frame."""

    def close(self) -> None:  # noqa: B027 - files have nothing to free
        """Free the file or device, and end the iteration. Closing twice is harmless."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Images(Source):
    """One image file, or the image files of a folder."""

    def __init__(self, kind: SourceKind, name: str, paths: Sequence[PictureFile], reading: _Reading) -> None:
        self.kind, self.name, self.paths, self.length = kind, name, paths, len(paths)
        self._reading = reading

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            yield _decode(path, name_of(path), index, self._reading)


class _Iterable(Source):
    """Arrays or paths from an iterable of the caller."""

    kind: SourceKind = "iterable"

    def __init__(self, items: Iterable[Any], color: Literal["rgb", "bgr"], live: bool, reading: _Reading) -> None:
        self.name, self.live, self._items, self._reading = "iterable", live, items, reading
        self._color: Literal["rgb", "bgr"] = color
        self.length = len(items) if isinstance(items, Sized) else None

    def __iter__(self) -> Iterator[Frame]:
        for index, item in enumerate(self._items):
            if isinstance(item, Frame):
                yield item
            elif isinstance(item, (str, Path, list, tuple)):
                yield _decode(item, without_credentials(name_of(item), properties=False), index, self._reading)
            else:
                yield _convert(item, self._color, index, self._reading.channels)


def _decode(file: PictureFile, name: str, index: int, reading: _Reading) -> Frame:
    start = time.perf_counter()
    try:
        decoded = load_picture(file, reading.channels, max_pixels=reading.max_pixels, strict=reading.strict)
    except EdgesegError as error:
        return Frame(None, name, index, error=error)
    return Frame(decoded.image, name, index, ms_since(start), damaged=decoded.damaged)


def _convert(array: NDArray[Any], color: Literal["rgb", "bgr"], index: int, channels: int) -> Frame:
    """Make a frame of a caller's array, copied where the caller might overwrite it before the stages are done."""
    start = time.perf_counter()
    try:
        image = as_picture(array, channels, color)
    except EdgesegError as error:
        return Frame(None, str(index), index, error=error)
    if np.may_share_memory(image, array):
        image = image.copy()
    return Frame(image, str(index), index, ms_since(start))


class _Video(Source):
    """A video file, camera, network stream or GStreamer pipeline, through OpenCV."""

    def __init__(self, kind: SourceKind, name: str, capture: cv2.VideoCapture, *, live: bool | None = None) -> None:
        self.kind, self.name, self._capture = kind, name, capture
        self._lock = threading.Lock()
        self._closed = False
        self._count = 0
        self._first = self._read()
        frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        self.length = int(frames) if 0 < frames < 1e9 else None
        self.fps = float(fps) if 0 < fps < 1000 else None
        self.live = self.length is None if live is None else live
        self.patience = 2.0 if kind == "video" else 12.0
        if self._first is None:
            self.close()
            raise InputError(f"{_words(kind)} '{name}' gave no picture; check that it plays elsewhere")

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._take()) is not None:
            self._count += 1
            yield frame
        if self._closed:
            return
        if self.live:
            raise InputError(
                f"{_words(self.kind)} '{self.name}' stopped after {self._count} pictures; "
                "check the connection and start again"
            )
        if self._cut_off():
            yield self._missing_end()

    def _take(self) -> Frame | None:
        first, self._first = self._first, None
        return first or self._read()

    def _read(self) -> Frame | None:
        start = time.perf_counter()
        with self._lock:  # OpenCV must not be released while it reads
            done, picture = (False, None) if self._closed else self._capture.read()
        if not done or picture is None:
            return None
        return Frame(as_rgb(picture, "bgr"), f"{self.name}#{self._count}", self._count, ms_since(start))

    def _cut_off(self) -> bool:
        exact = self.kind == "video" and Path(self.name).suffix.lower() in _EXACT_COUNTS
        return exact and self.length is not None and self._count < self.length - max(2, self.length // 100)

    def _missing_end(self) -> Frame:
        text = f"video '{self.name}' ends after {self._count} of {self.length} frames; it is cut off or damaged there"
        return Frame(None, f"{self.name}#{self._count}", self._count, error=InputError(text))

    def close(self) -> None:
        """Free the file or device."""
        with self._lock:
            self._closed = True
            self._capture.release()


def open_iterable(
    items: Iterable[Any],
    *,
    color: Literal["rgb", "bgr"] = "rgb",
    live: bool = False,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
    channels: int = 3,
) -> Source:
    """Take arrays or paths from any iterable as a source.

    Args:
        items: uint8 arrays as `edgeseg.images.as_rgb` takes them, paths of images, or `Frame` objects. Arrays are
            copied where needed, so the caller may fill a buffer again for the next. An array that is one picture is one
            item.
        color: Channel order of the arrays.
        live: Whether the iterable gives pictures at its own pace.
        max_pixels: Largest height x width of pictures given by path; arrays are in memory already.
        strict: Refuse damaged files.
        channels: Of the pictures; other than 3, arrays and files are read as `edgeseg.stacks` does. An item may then be
            a list of paths, one file per channel.

    Raises:
        UsageError: `max_pixels` is below 1.

    Example:
        >>> [frame.image.shape for frame in open_iterable([np.zeros((4, 6, 3), np.uint8)])]
        [(4, 6, 3)]
    """
    if isinstance(items, np.ndarray) and items.ndim <= 3:
        items = [items]
    return _Iterable(items, color, live, _Reading(max_pixels, strict, channels))


def open_source(
    spec: str | Path | int,
    *,
    recursive: bool = False,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
    channels: int = 3,
) -> Source:
    """Open an image, folder, video, camera or network stream.

    Args:
        spec: A path; a camera as ``0``, ``"0"``, ``"camera:0"`` or ``"/dev/video0"``; an ``rtsp://`` or ``http(s)://``
            address; or ``"gst:"`` and a GStreamer pipeline that ends in ``appsink`` and gives BGR. A folder named ``0``
            is ``./0``.
        recursive: Also take the images of a folder's subfolders.
        max_pixels: Largest height x width of a picture file; a larger one is that picture's failure.
        strict: Refuse damaged picture files, each as that picture's failure.
        channels: Of the pictures; other than 3, files are read as `edgeseg.stacks` does, there are no videos, and a
            text of paths with commas between them is a stack, one file per channel.

    Returns:
        The source; folders in natural order (``2.jpg`` before ``10.jpg``).

    Raises:
        InputError: Nothing there, no images in the folder, or a video or camera that gives no picture.
        UsageError: `max_pixels` is below 1.

    Example:
        >>> with open_source(folder / "images") as source:
        ...     print(source.kind, source.length)
        folder 1
    """
    reading, text = _Reading(max_pixels, strict, channels), str(spec).strip()
    if channels != 3:
        return _open_pictures(Path(spec) if isinstance(spec, Path) else Path(text).expanduser(), recursive, reading)
    if (camera := re.fullmatch(r"(?:camera:|/dev/video)?(\d+)", text)) and not isinstance(spec, Path):
        return _open_camera(int(camera[1]))
    if text.startswith("gst:"):
        return _open_gstreamer(text)
    if re.match(r"(rtsps?|https?)://", text, re.IGNORECASE):
        return _open_stream(text)
    path = Path(spec) if isinstance(spec, Path) else Path(text).expanduser()
    if path.is_dir():
        return _Images("folder", str(path), list_images(path, recursive=recursive), reading)
    return _open_file(path, reading)


def _open_pictures(path: Path, recursive: bool, reading: _Reading) -> Source:
    """Open a file, or a folder of files, of another number of channels than pictures have."""
    if path.is_dir():
        found = list_images(path, recursive=recursive, suffixes=STACK_SUFFIXES)
        return _Images("folder", str(path), found, reading)
    stack = str(path).split(",")
    if len(stack) > 1 and not path.exists():
        return _Images("image", stack[0], [stack], reading)
    if not path.is_file():
        raise InputError(
            f"there is no picture or folder at '{_shown(path)}'; a network of {reading.channels} channels takes files "
            f"({' '.join(sorted(STACK_SUFFIXES))}), folders of them and FILE,FILE,..., and no video or camera"
        )
    return _Images("image", str(path), [path], reading)


def _open_file(path: Path, reading: _Reading) -> Source:
    if not path.exists():
        raise InputError(
            f"no picture, folder or video at '{_shown(path)}'; check the path, or name a camera as camera:0"
        )
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        with path_for_opencv(path) as opened:
            return _Video("video", str(path), _capture(opened, "video", str(path)), live=False)
    if suffix in IMAGE_SUFFIXES or cv2.haveImageReader(str(path)):
        return _Images("image", str(path), [path], reading)
    known = " ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
    raise InputError(f"'{path}' is neither an image nor a video edgeseg reads; it reads {known}")


def _shown(path: Path) -> str:
    """Name what is no path, and may be an address without its ``//``."""
    return re.sub(r"^(?![A-Za-z]:[\\/])[^@]*:.*@", "", without_credentials(str(path)))


def list_images(folder: Path, *, recursive: bool = False, suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the image files of a folder, by suffix, in natural order, without hidden ones.

    Args:
        folder: An existing folder.
        recursive: Also list those of its subfolders (links to folders are not followed).
        suffixes: That the files end in.

    Raises:
        InputError: No images, or a folder that cannot be read.

    Example:
        >>> [path.name for path in list_images(folder / "images")]
        ['sample.png']
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"folder '{error.filename}' cannot be read ({error.strerror})") from error

    images: list[Path] = []
    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        wanted = (name for name in files if Path(name).suffix.lower() in suffixes and not name.startswith("."))
        images.extend(Path(root, name) for name in wanted)
    if not images:
        deeper = "" if recursive else ", or search its subfolders too (--recursive)"
        kinds = ".jpg or .png" if suffixes is IMAGE_SUFFIXES else " or ".join(sorted(suffixes))
        raise InputError(f"folder '{folder}' holds no images; put {kinds} files there{deeper}")
    return sorted(images, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def pictures_at(path: Path, channels: int = 3) -> list[Path]:
    """List the picture at `path`, or the pictures of that folder (`list_images`) that have so many channels.

    Raises:
        InputError: Nothing there, or a folder without images.

    Example:
        >>> [path.name for path in pictures_at(folder / "images" / "sample.png")]
        ['sample.png']
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"there is no picture or folder at '{path}'; give one that exists")
    return list_images(path, suffixes=IMAGE_SUFFIXES if channels == 3 else STACK_SUFFIXES)


def _open_camera(index: int) -> Source:
    return _Video("camera", f"camera:{index}", _capture(index, "camera", f"camera:{index}"), live=True)


def _open_stream(address: str) -> Source:
    live = True if address.lower().startswith("rtsp") else None
    name = without_credentials(address)  # names are printed and stored; passwords must not be
    return _Video("rtsp", name, _capture(address, "stream", name, timeouts=True), live=live)


def _open_gstreamer(spec: str) -> Source:
    if cv2.CAP_GSTREAMER not in cv2.videoio_registry.getBackends() or not _built_with_gstreamer():
        raise InputError("this OpenCV was built without GStreamer, which 'gst:' needs; use the system's OpenCV instead")
    pipeline = spec[len("gst:") :].strip()
    live = any(element in pipeline for element in _LIVE_ELEMENTS)
    name = without_credentials(spec)
    return _Video("camera", name, _capture(pipeline, "pipeline", name, api=cv2.CAP_GSTREAMER), live=live)


def _built_with_gstreamer() -> bool:
    return re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()) is not None


def _capture(
    what: str | int, kind: str, name: str, *, api: int = cv2.CAP_ANY, timeouts: bool = False
) -> cv2.VideoCapture:
    """Open with OpenCV. Network streams get time limits where OpenCV has FFmpeg, which observes them."""
    if timeouts and cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends():
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_MS]
        capture = cv2.VideoCapture(str(what), cv2.CAP_FFMPEG, limits)
    else:
        capture = cv2.VideoCapture(what, api)
    if not capture.isOpened():
        capture.release()
        raise InputError(f"{kind} '{name}' cannot be opened; check that it is there and plays elsewhere")
    return capture


def _words(kind: SourceKind) -> str:
    return "stream" if kind == "rtsp" else kind
