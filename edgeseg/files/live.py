"""The partial files and folders of this process: noted before they exist, so that no interruption leaves one behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from edgeseg.files.names import aside_of, place_of

__all__ = ["discard_partials", "forget", "observe_partials", "remember", "remove_partial"]

_live: set[Path] = set()
_observer: Callable[[str, Path], None] | None = None


def observe_partials(observer: Callable[[str, Path], None] | None) -> None:
    """Call `observer` with ``"+"`` and a path before a `Partial` is made, and with ``"-"`` when it is gone."""
    global _observer
    _observer = observer


def remember(path: Path) -> None:
    """Note a partial that is about to be made."""
    _live.add(path.absolute())
    if _observer is not None:
        _observer("+", path.absolute())


def forget(path: Path) -> None:
    """Strike a partial that is gone from the notes."""
    _live.discard(path.absolute())
    if _observer is not None:
        _observer("-", path.absolute())


def discard_partials() -> None:
    """Remove every partial of this process, also one interrupted before its ``with`` block began."""
    for path in list(_live):
        remove_partial(path)
        forget(path)


def remove_partial(path: Path) -> None:
    """Remove a partial file or folder, and undo an exchange that was interrupted.

    A folder that such an exchange moved aside goes back to its place; where that is taken, it is removed.
    """
    for each in (path, aside := aside_of(path)):
        with contextlib.suppress(OSError):
            if each == aside and not os.path.lexists(place := place_of(path)):
                os.rename(aside, place)
            elif stat.S_ISDIR(os.lstat(each).st_mode):
                shutil.rmtree(each, ignore_errors=True)
            else:
                os.unlink(each)
