"""Write whole files and folders, and folders for temporary files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from edgeseg.errors import StorageError
from edgeseg.files.partial import Partial
from edgeseg.files.storage import storage_errors
from edgeseg.text import os_reason

__all__ = ["atomic_folder", "scratch_folder", "write_bytes", "write_text"]


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file beside `path`, then rename it into place.

    Raises:
        StorageError: Writing failed; `path` is as it was before.
    """
    with Partial(path) as partial, storage_errors(path):
        with partial.path.open("wb") as stream:
            stream.write(data)
        partial.put_in_place()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does. A character that UTF-8 cannot encode becomes ``?``.

    Example:
        >>> write_text(folder / "note.txt", "whole")
        >>> (folder / "note.txt").read_text()
        'whole'
    """
    write_bytes(path, text.encode(errors="replace"))


@contextlib.contextmanager
def atomic_folder(
    path: Path, *, replaces: Callable[[Path], None] | None = None, settles: bool = False
) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends well, and is removed otherwise.

    An existing folder at `path` is replaced only at the very end.

    Args:
        path: Of the folder.
        replaces: As in `Partial.put_in_place`.
        settles: As in `Partial.put_in_place`.

    Raises:
        StorageError: Writing failed; what stood at `path` is untouched.

    Example:
        >>> with atomic_folder(folder / "made") as temporary:
        ...     _ = (temporary / "a").write_text("1")
        >>> (folder / "made" / "a").exists()
        True
    """
    with Partial(path, folder=True) as partial:
        yield partial.path
        partial.put_in_place(replaces=replaces, settles=settles)


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """Yield a folder for temporary files. It is removed after the block, or by the next run after a ``kill -9``.

    Raises:
        StorageError: No folder for temporary files can be written.
    """
    with Partial(_temporary() / name, folder=True) as partial:
        yield partial.path


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise StorageError(f"{os_reason(error)}; set TMPDIR to a folder that can be written") from error
