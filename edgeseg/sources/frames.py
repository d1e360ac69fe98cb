"""What a source is, and what it yields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError
from edgeseg.images import MAX_PIXELS, check_max_pixels

__all__ = ["Frame", "Reading", "Source", "SourceKind"]

SourceKind = Literal["image", "folder", "files", "video", "camera", "rtsp", "iterable"]


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
        notes: Sentences on what else its file holds and was left out, such as later pages.
    """

    image: NDArray[np.uint8] | None
    name: str
    index: int
    decode_ms: float = 0.0
    error: EdgesegError | None = None
    damaged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How pictures are read: the largest height x width, whether damaged ones are refused, and their channels."""

    max_pixels: int = MAX_PIXELS
    strict: bool = False
    channels: int = 3

    def __post_init__(self) -> None:
        check_max_pixels(self.max_pixels)


class Source(ABC):
    """Frames in order; iterate once, then `close` (or use ``with``).

    Attributes:
        kind: What it is; ``files`` are those of a pattern, a list or several paths, and network streams of every
            protocol are ``rtsp``.
        name: As it was asked for, without user names and passwords (`edgeseg.credentials`).
        length: Number of frames, None where unknown.
        live: Whether frames come at their own pace, so that late ones are best dropped.
        fps: Frames per second, None where unknown.
        patience: Seconds a read may block at worst.
        root: Folder that all its files lie in, at some depth; None where it has no files.
        notes: Sentences on what was passed over, and why.
    """

    kind: SourceKind
    name: str
    length: int | None = None
    live: bool = False
    fps: float | None = None
    patience: float = 2.0
    root: Path | None = None
    notes: tuple[str, ...] = ()

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
