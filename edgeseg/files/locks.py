"""Locks on open files and folders that the system lets go of when their process ends, however it ends."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_still_at", "lock", "open_to_lock"]


def open_to_lock(path: Path) -> int | None:
    """Open a file or folder without following links; None where that is impossible (folders on Windows)."""
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None


def lock(handle: int) -> bool | None:
    """Lock an open file.

    Returns:
        True where it is locked now, False where another process holds the lock, None where there are no locks.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_still_at(path: Path, handle: int) -> bool:
    """Tell whether an open file still lies at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except OSError:
        return False
