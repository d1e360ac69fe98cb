"""A file or folder that is being written beside its place."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from edgeseg._signals import settle, signals_deferred
from edgeseg.files.exchange import exchange
from edgeseg.files.live import forget, remember, remove_partial
from edgeseg.files.locks import is_still_at, lock, open_to_lock
from edgeseg.files.names import temporary_path
from edgeseg.files.storage import storage_errors
from edgeseg.files.sweep import sweep_once

__all__ = ["Partial"]

_MOST_TRIES = 100


class Partial:
    """A file or folder that is being written beside its place.

    Use it in a ``with`` block. `put_in_place` renames it to its place; otherwise the end of the block removes it.

    Args:
        target: Its place. Missing folders above it are made.
        folder: Make a folder instead of a file.
        suffix: Of the temporary name, such as ``".mp4"``, for writers that choose a format by it.

    Attributes:
        path: Where to write.
        target: As given.

    Raises:
        StorageError: It cannot be made.
    """

    def __init__(self, target: Path, *, folder: bool = False, suffix: str = "") -> None:
        self.target = target
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            sweep_once(target.parent)
            self.path, self._lock = _make_locked(target, folder, suffix)
        self._discarded = False

    def put_in_place(self, *, replaces: Callable[[Path], None] | None = None, settles: bool = False) -> None:
        """Rename it to `target`, replacing what stands there in the same step.

        Args:
            replaces: Called with `target` where something stands there. It raises to keep that from being replaced.
            settles: This was the command's purpose: a signal from now on no longer changes how the command ends.

        Raises:
            StorageError: Renaming failed; what stood there is untouched.
        """
        with storage_errors(self.target), signals_deferred():
            if replaces is not None and os.path.lexists(self.target):
                replaces(self.target)
            if stat.S_ISDIR(os.lstat(self.path).st_mode) and os.path.lexists(self.target):
                exchange(self.path, self.target)
            else:
                os.replace(self.path, self.target)
            if settles:
                settle()

    def discard(self) -> None:
        """Remove what is not in its place, and release the lock. Calling it twice is harmless."""
        if self._discarded:
            return
        self._discarded = True
        remove_partial(self.path)
        if self._lock is not None:
            os.close(self._lock)
        forget(self.path)

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def _make_locked(target: Path, folder: bool, suffix: str) -> tuple[Path, int | None]:
    """Make and lock a file or folder beside `target`.

    Where another process's sweep removes it before it is locked, make one under another name.
    """
    for _ in range(_MOST_TRIES):
        path = temporary_path(target, suffix)
        remember(path)
        try:
            _make(path, folder)
        except FileExistsError:
            forget(path)
            continue
        except OSError:
            forget(path)
            raise
        handle = open_to_lock(path)
        if handle is None or (lock(handle) is not False and is_still_at(path, handle)):
            return path, handle
        os.close(handle)
        forget(path)
    raise FileExistsError(errno.EEXIST, "no free temporary name", str(target))


def _make(path: Path, folder: bool) -> None:
    if folder:
        path.mkdir()
    else:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
