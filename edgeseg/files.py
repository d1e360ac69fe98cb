"""Writing files so that a crash, a full disk or Ctrl-C leaves nothing half done."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeseg.errors import StorageError

__all__ = ["atomic_folder", "sha256_of", "storage_errors", "write_bytes", "write_text"]


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write `path` into one sentence.

    Raises:
        StorageError: Disk full, no permission, read-only file system, or a path that cannot be.
    """
    try:
        yield
    except OSError as error:
        reasons = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
        reason = reasons.get(error.errno or 0, (error.strerror or str(error)).lower())
        raise StorageError(f"cannot write '{path}': {reason}; free space or choose another folder") from error


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file beside `path`, then rename it into place.

    Raises:
        StorageError: Writing failed; `path` is as it was before.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode())


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place when the block ends well, and vanishes otherwise.

    An existing folder at `path` is replaced only at the very end.

    Raises:
        StorageError: Writing failed; what stood at `path` is untouched.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        with storage_errors(path):
            os.chmod(temporary, 0o755)
            _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, path: Path) -> None:
    if not path.exists():
        os.replace(temporary, path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent)) / "old"
    try:
        os.replace(path, old)
        os.replace(temporary, path)
    finally:
        if old.exists() and not path.exists():  # refused or interrupted between the two: what stood there goes back
            os.replace(old, path)
        shutil.rmtree(old.parent, ignore_errors=True)
