"""Folders for what is compiled on this device, as the caches share them: private, checked, and used by one at a time.

What lies in a cache is run as it is (an engine holds code), so nothing may come from anybody else. Folders are made for
their owner alone. A folder or file that belongs to another user, or that others may write, is not used, and neither is
an entry that is a symbolic link; the folder itself may be reached through links.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgeseg.errors import EdgesegError
from edgeseg.files import write_bytes
from edgeseg.text import one_line

__all__ = ["DistrustedError", "hash_private", "keep_private", "locked", "make_private", "read_private", "refusal"]

_log = logging.getLogger(__name__)

_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class DistrustedError(EdgesegError):
    """A file in a cache that must not be used; the message ends a sentence that begins with its name."""


def make_private(folder: Path) -> None:
    """Make a folder and those above it where they are missing, for their owner alone.

    Raises:
        OSError: It cannot be made.
    """
    if not folder.is_dir():
        make_private(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o700)


def refusal(folder: Path, *, entry: bool = False) -> str:
    """Say in a sentence why a cache folder must not be used; nothing where it may, or where it cannot be looked at.

    Args:
        folder: The folder.
        entry: It lies in a cache folder, where no link is followed.
    """
    try:
        status = os.stat(folder, follow_symlinks=not entry)
    except OSError:
        return ""
    reason, way = "", ""
    if stat.S_ISLNK(status.st_mode):
        reason, way = "is a symbolic link", "remove it"
    elif not stat.S_ISDIR(status.st_mode):
        reason, way = "is no folder", "remove it"
    elif _is_foreign(status):
        reason, way = f"belongs to another user (number {status.st_uid})", "give it to its user with chown"
    elif _is_open(status):
        reason = f"can be written by others (its mode is {stat.S_IMODE(status.st_mode):o})"
        way = "take that away with chmod go-w"
    return (
        reason and f"the cache folder '{one_line(folder)}' {reason} and was not used; {way}, or name another cache_dir"
    )


def read_private(file: Path) -> bytes:
    """Read a file of a cache.

    Raises:
        DistrustedError: It is a link or no plain file, belongs to another user, or can be written by others.
        OSError: It cannot be read.
    """
    with _opened(file) as stream:
        return stream.read()


def hash_private(file: Path) -> str:
    """Hexadecimal SHA-256 of a file of a cache.

    Raises:
        DistrustedError: As `read_private`.
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with _opened(file) as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def keep_private(file: Path, data: bytes) -> None:
    """Write a file of a cache, readable and writable by its owner alone.

    Raises:
        StorageError: Writing failed; what lay there is as it was.
    """
    write_bytes(file, data)
    with contextlib.suppress(OSError):
        os.chmod(file, 0o600)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for whoever holds it. Where the folder or the system offers none, there is no lock."""
    try:
        import fcntl

        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except (ImportError, OSError):
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process is building this engine; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            _log.debug("no lock on %s", path)
        yield
    finally:
        os.close(handle)  # gives the lock back too


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file without following a link; who owns it is asked of what was opened, not of the name."""
    if file.is_symlink():
        raise DistrustedError("is a symbolic link")
    handle = os.open(file, _OPEN)
    try:
        _check(os.fstat(handle))
    except DistrustedError:
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as stream:
        yield stream


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DistrustedError("is no plain file")
    if _is_foreign(status):
        raise DistrustedError(f"belongs to another user (number {status.st_uid})")
    if _is_open(status):
        raise DistrustedError(f"can be written by others (its mode is {stat.S_IMODE(status.st_mode):o})")


def _is_foreign(status: os.stat_result) -> bool:
    return hasattr(os, "geteuid") and status.st_uid != os.geteuid()


def _is_open(status: os.stat_result) -> bool:
    """Whether others than the owner may write; Windows has no such modes."""
    return os.name == "posix" and bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
