"""The operating system's refusals as one class of errors, and hashes of files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path

from edgeseg.errors import EdgesegError, StorageError
from edgeseg.text import one_line

__all__ = ["sha256_of", "storage_errors"]

_REASONS = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write `path` into one sentence.

    Raises:
        StorageError: Disk full, no permission, read-only file system, or an impossible path.
    """
    try:
        yield
    except EdgesegError:
        raise
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None) or 0
        reason = _REASONS.get(number, (getattr(error, "strerror", None) or str(error)).lower())
        raise StorageError(f"cannot write '{one_line(path)}': {reason}; free space or choose another folder") from error


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes, in hexadecimal.

    Example:
        >>> sha256_of(bundle.file("sample.png")) == bundle.manifest.files["sample.png"]
        True
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
