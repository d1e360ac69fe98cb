"""Two paths change places, in one step where the system can do that."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from edgeseg.files.names import aside_of

__all__ = ["exchange"]

_RENAME_EXCHANGE = 2  # flag of renameat2
_AT_FDCWD = -100


def exchange(new: Path, old: Path) -> None:
    """Put `new` at the path of `old`, and what was there at the path of `new`.

    Without the system call there are three renames: `old` goes aside, `new` takes its place, and the one aside takes
    the temporary path. When the second one fails, the first one is undone.
    """
    if _renameat2(new, old):
        return
    aside = aside_of(new)
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except BaseException:
        os.rename(aside, old)
        raise
    os.rename(aside, new)


def _renameat2(first: Path, second: Path) -> bool:
    """Exchange two paths by Linux's system call; False where system or file system lack it."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = (ctypes.c_char_p(os.fsencode(path)) for path in (first, second))
    return bool(call(_AT_FDCWD, next(names), _AT_FDCWD, next(names), ctypes.c_uint(_RENAME_EXCHANGE)) == 0)
