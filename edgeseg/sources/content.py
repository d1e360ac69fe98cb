"""What lies at a path: a picture, a video, a text, something else, or no file at all; told by the first bytes."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Literal

from edgeseg.decoding.signatures import HEAD_BYTES, recognise
from edgeseg.errors import InputError
from edgeseg.stacks import STACK_SUFFIXES
from edgeseg.text import os_reason, shown_name

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Content",
    "claims_picture",
    "content_of",
    "found_at",
    "head_of",
    "unusual_file",
]

IMAGE_SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pam", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"),
    )
)
"""Suffixes of files that claim to be pictures which are read; other files are told by their first bytes."""

VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"))

_PICTURES_UNREAD = frozenset(
    (
        *(".arw", ".cr2", ".cr3", ".dng", ".exr", ".ico", ".jxl", ".nef", ".orf", ".pcx", ".pfm", ".psd"),
        *(".raf", ".rw2", ".svg", ".tga"),
    )
)
"""Suffixes of pictures that are not read: such a file is named as one that failed."""

_CLAIMS = IMAGE_SUFFIXES | _PICTURES_UNREAD

Content = Literal["picture", "video", "other"]


def content_of(path: Path, head: bytes | None = None, *, channels: int = 3) -> Content:
    """Tell what a regular file is, by its suffix where that claims a picture, else by its first bytes.

    Args:
        path: An existing file.
        head: Its first bytes where they are known; else they are read where they are needed.
        channels: Of the pictures wanted; other than 3, files of `edgeseg.stacks.STACK_SUFFIXES` are pictures and no
            others.

    Raises:
        OSError: The file cannot be read.
    """
    if channels != 3:
        if path.suffix.lower() in STACK_SUFFIXES:
            return "picture"
        return "other" if content_of(path, head) == "picture" else content_of(path, head)
    if head is None and claims_picture(path):
        return "picture"
    signature = recognise(head_of(path) if head is None else head)
    if signature is not None:
        return "video" if signature.film else "picture"
    if claims_picture(path):
        return "picture"
    return "video" if path.suffix.lower() in VIDEO_SUFFIXES else "other"


def claims_picture(path: Path) -> bool:
    """Tell whether a name ends as those of pictures do, read ones or not."""
    return path.suffix.lower() in _CLAIMS


def head_of(path: Path) -> bytes:
    """Read the first bytes of a file.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        return file.read(HEAD_BYTES) or b""


def found_at(path: Path) -> os.stat_result | None:
    """Look at what lies at a path, behind links.

    Returns:
        Its status; None where there is nothing.

    Raises:
        InputError: There may be something, but the system does not let it be seen.
    """
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        broken = None
        with contextlib.suppress(OSError, ValueError):
            broken = os.readlink(path)
        if broken is not None:
            raise InputError(
                f"'{shown_name(path)}' is a link to '{shown_name(broken)}', where nothing is; check the link"
            ) from None
        return None
    except OSError as error:
        raise InputError(f"'{shown_name(path)}' cannot be looked at ({os_reason(error)}); check the path") from error


def unusual_file(status: os.stat_result) -> str:
    """Name what is neither a file nor a folder; empty for those two."""
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    devices = ((stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))
    return next((word for fits, word in (*kinds, *devices) if fits(status.st_mode)), "")
