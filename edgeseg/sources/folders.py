"""The pictures of folders, by their content, and what else lies there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.sources.content import claims_picture, content_of, found_at
from edgeseg.stacks import STACK_SUFFIXES
from edgeseg.text import natural_key, os_reason, shown_name

__all__ = ["Listing", "list_images", "passed_over", "pictures_at", "pictures_of", "scan"]

_NAMED = 3  # files that a note names


@dataclass
class Listing:
    """Pictures that were found, and files that were passed over.

    Attributes:
        channels: Of the pictures wanted.
        pictures: Files that are pictures, or claim to be, and what stands for those that are not there.
        failures: Why some of them are known to be no pictures.
        videos: Names of videos.
        others: Names of files that are neither.
        unreadable: Names of files that the system does not let be read.
        notes: Further sentences.
    """

    channels: int = 3
    pictures: list[Path] = field(default_factory=list)
    failures: dict[Path, InputError] = field(default_factory=dict)
    videos: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, path: Path, name: str) -> None:
        """Add a regular file by its content; it is called `name` where it is passed over."""
        try:
            content = content_of(path, channels=self.channels)
        except OSError as error:
            self.unreadable.append(f"{name}: {os_reason(error)}")
            return
        if content == "picture":
            self.pictures.append(path)
        else:
            (self.videos if content == "video" else self.others).append(name)

    def fail(self, path: Path, error: InputError) -> None:
        """Let a path stand for pictures that were asked for and are not there."""
        self.pictures.append(path)
        self.failures[path] = error

    def extend(self, other: Listing) -> None:
        """Add all that another listing holds."""
        for name in ("pictures", "videos", "others", "unreadable", "notes"):
            getattr(self, name).extend(getattr(other, name))

    def passed_over(self) -> tuple[str, ...]:
        """Say in a few sentences what was passed over and why."""
        said = list(self.notes)
        if self.others:
            one = len(self.others) == 1
            said.append(f"passed over: {_count(self.others)} that {'is no picture' if one else 'are no pictures'}")
            said[-1] += f" of {self.channels} channels" if self.channels != 3 else ""
            said[-1] += f" ({_names(self.others)})"
        if self.videos:
            word = "1 video" if len(self.videos) == 1 else f"{len(self.videos)} videos"
            said.append(f"passed over: {word} ({_names(self.videos)}); give each by itself")
        if self.unreadable:
            word = "1 that" if len(self.unreadable) == 1 else f"{len(self.unreadable)} files or folders that"
            said.append(f"passed over: {word} cannot be read ({_names(self.unreadable)})")
        return tuple(said)


def _count(names: list[str]) -> str:
    return "1 file" if len(names) == 1 else f"{len(names)} files"


def _names(names: list[str]) -> str:
    more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*(shown_name(name, 60) for name in names[:_NAMED]), *more])


def scan(folder: Path, *, recursive: bool = False, channels: int = 3) -> Listing:
    """Find the pictures of a folder in natural order, without hidden files.

    A file is a picture by its first bytes, or by a suffix that claims so; its first bytes alone are read.

    Args:
        folder: An existing folder.
        recursive: Also search its subfolders (links to folders are not followed).
        channels: Of the pictures; see `content_of`.

    Raises:
        InputError: The folder cannot be read; a subfolder that cannot is passed over.
    """
    listing = Listing(channels)
    for name in sorted(
        _names_in(folder, recursive, listing.unreadable), key=lambda name: natural_key(name.replace(os.sep, "/"))
    ):
        path = Path(folder, name)
        if os.path.isfile(path) or (claims_picture(path) and os.path.islink(path)):
            listing.add(path, name)
        else:
            listing.others.append(name)
    return listing


def _names_in(folder: Path, recursive: bool, unreadable: list[str]) -> Iterator[str]:
    """Yield the paths of files relative to a folder, and collect subfolders that cannot be read."""

    def refuse(error: OSError) -> None:
        if os.fspath(error.filename) == os.fspath(folder):
            raise InputError(f"folder '{shown_name(folder)}' cannot be read ({os_reason(error)})") from error
        unreadable.append(f"{os.path.relpath(error.filename, folder)}: {os_reason(error)}")

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        inside = os.path.relpath(root, folder)
        prefix = "" if inside == os.curdir else inside
        yield from (os.path.join(prefix, name) for name in files if not name.startswith("."))


def list_images(folder: Path, *, recursive: bool = False, deeper: str = "", channels: int = 3) -> list[Path]:
    """List the pictures of a folder, by their content, in natural order, without hidden ones.

    Args:
        folder: An existing folder.
        recursive: Also list those of its subfolders (links to folders are not followed).
        deeper: Name of the caller's option that searches subfolders, for the message; empty where it has none.
        channels: Of the pictures; other than 3, files of `edgeseg.stacks.STACK_SUFFIXES` are pictures and no others.

    Raises:
        InputError: No images, or a folder that cannot be read.

    Example:
        >>> [path.name for path in list_images(folder / "images")]
        ['sample.png']
    """
    return pictures_of(folder, recursive=recursive, deeper=deeper, channels=channels).pictures


def pictures_of(folder: Path, *, recursive: bool = False, deeper: str = "", channels: int = 3) -> Listing:
    """Find the pictures of a folder as `scan` does, at least one.

    Args:
        folder: An existing folder.
        recursive: Also search its subfolders.
        deeper: As `list_images`.
        channels: As `list_images`.

    Raises:
        InputError: No images, or a folder that cannot be read.
    """
    listing = scan(folder, recursive=recursive, channels=channels)
    if not listing.pictures:
        more = f", or search its subfolders too ({deeper})" if deeper and not recursive else ""
        told = "".join(f"; {note}" for note in listing.passed_over())
        kinds = ".jpg or .png" if channels == 3 else " or ".join(sorted(STACK_SUFFIXES))
        raise InputError(f"folder '{shown_name(folder)}' holds no images; put {kinds} files there{more}{told}")
    return listing


def passed_over(folder: Path, *, recursive: bool = False, channels: int = 3) -> tuple[str, ...]:
    """Say in a few sentences which files of a folder `list_images` leaves out, and why.

    Args:
        folder: An existing folder.
        recursive: As `list_images`.
        channels: As `list_images`.

    Raises:
        InputError: The folder cannot be read.

    Example:
        >>> passed_over(folder / "images")
        ()
    """
    return scan(folder, recursive=recursive, channels=channels).passed_over()


def pictures_at(path: Path, channels: int = 3) -> list[Path]:
    """List the picture at `path`, or the pictures of that folder (`list_images`) that have so many channels.

    Raises:
        InputError: Nothing there, or a folder without images.

    Example:
        >>> [path.name for path in pictures_at(folder / "images" / "sample.png")]
        ['sample.png']
    """
    status = found_at(path)
    if status is None or not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        raise InputError(f"there is no picture or folder at '{shown_name(path)}'; give one that exists")
    return list_images(path, channels=channels) if stat.S_ISDIR(status.st_mode) else [path]
