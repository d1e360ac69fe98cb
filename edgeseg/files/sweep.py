"""Removal of the partial files and folders that killed processes left."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path

from edgeseg.files.live import remove_partial
from edgeseg.files.locks import is_still_at, lock, open_to_lock
from edgeseg.files.names import ASIDE, is_temporary

__all__ = ["sweep_once"]

_NO_LOCKS_AGE_S = 86400.0  # on a file system without locks, older partials count as left behind
_EXCHANGE_AGE_S = 60.0  # a folder aside for longer belongs to no exchange that still runs

_swept: set[tuple[int, int]] = set()


def sweep_once(folder: Path) -> None:
    """Remove what killed processes left in a folder; once per process and folder."""
    status = os.stat(folder)
    key = (status.st_dev, status.st_ino)
    if key in _swept:
        return
    _swept.add(key)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_temporary(entry.name):
                _remove_if_left(Path(entry.path))


def _remove_if_left(path: Path) -> None:
    """Remove a partial of this user whose process is gone."""
    try:
        status = os.lstat(path)
    except OSError:
        return
    plain = stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
    if not plain or (hasattr(os, "geteuid") and status.st_uid != os.geteuid()):
        return
    age = time.time() - status.st_mtime
    if path.name.endswith(ASIDE):
        _remove_aside(path, age)
    else:
        _remove_unlocked(path, age)


def _remove_aside(path: Path, age: float) -> None:
    """Undo an exchange that a kill interrupted.

    The old folder that lies aside is never locked. While the new one exists, that one's lock decides.
    """
    partial = path.with_name(path.name.removesuffix(ASIDE))
    if not os.path.lexists(partial) and age > _EXCHANGE_AGE_S:
        remove_partial(partial)


def _remove_unlocked(path: Path, age: float) -> None:
    """Remove a partial that no living process has locked."""
    handle = open_to_lock(path)
    if handle is None:
        return
    try:
        locked = lock(handle)
        if (locked or (locked is None and age > _NO_LOCKS_AGE_S)) and is_still_at(path, handle):
            remove_partial(path)
    finally:
        os.close(handle)
