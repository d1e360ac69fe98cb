"""Sources of picture files and arrays."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.credentials import without_credentials
from edgeseg.errors import EdgesegError
from edgeseg.images import MAX_PIXELS, depth_notes
from edgeseg.sources.frames import Frame, Reading, Source, SourceKind
from edgeseg.stacks import PictureFile, as_picture, load_picture, name_of
from edgeseg.timing import ms_since

__all__ = ["Pictures", "open_iterable"]


class Pictures(Source):
    """Picture files, one after another.

    Args:
        kind: ``image``, ``folder`` or ``files``.
        name: As it was asked for.
        paths: Of the files, in order; one that cannot be read is a frame with an error. A stack is a tuple of paths,
            one file per channel.
        reading: How they are read.
        root: Folder they lie in.
        failures: Why some of the paths are known to be no pictures.
        notes: What was passed over.
    """

    def __init__(
        self,
        kind: SourceKind,
        name: str,
        paths: Sequence[Path | tuple[str, ...]],
        reading: Reading,
        *,
        root: Path | None = None,
        failures: Mapping[Any, EdgesegError] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.kind, self.name, self.paths, self.length = kind, name, list(paths), len(paths)
        self.root, self.notes, self._reading, self._failures = root, notes, reading, failures or {}

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            if (error := self._failures.get(path)) is not None:
                yield Frame(None, str(path), index, error=error)
                continue
            yield _decode(path, name_of(path), index, self._reading)


class _Iterable(Source):
    """Arrays or paths from an iterable of the caller."""

    kind: SourceKind = "iterable"

    def __init__(self, items: Iterable[Any], color: Literal["rgb", "bgr"], live: bool, reading: Reading) -> None:
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


def _decode(file: PictureFile, name: str, index: int, reading: Reading) -> Frame:
    start = time.perf_counter()
    try:
        decoded = load_picture(file, reading.channels, max_pixels=reading.max_pixels, strict=reading.strict)
    except EdgesegError as error:
        return Frame(None, name, index, error=error)
    return Frame(decoded.image, name, index, ms_since(start), damaged=decoded.damaged, notes=decoded.notes)


def _convert(array: NDArray[Any], color: Literal["rgb", "bgr"], index: int, channels: int) -> Frame:
    """Make a frame of a caller's array, copied where the caller might overwrite it before the stages are done."""
    start = time.perf_counter()
    try:
        image = as_picture(array, channels, color)
    except EdgesegError as error:
        return Frame(None, str(index), index, error=error)
    if np.may_share_memory(image, array):
        image = image.copy()
    return Frame(image, str(index), index, ms_since(start), notes=depth_notes(array))


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
    return _Iterable(items, color, live, Reading(max_pixels, strict, channels))
