"""Files that are kept between runs in one folder: each with what it was made for, and the hash of its bytes.

Beside every file lies a small JSON file that says both. A file that is damaged, belongs to something else, or could
have been written by others is not used (`edgeseg.runtimes.cache_folder`). Above `MOST_BYTES` those that were not used
for longest go.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import EdgesegError
from edgeseg.runtimes.cache_folder import DistrustedError, keep_private, make_private, read_private, refusal
from edgeseg.text import first_line, one_line

__all__ = ["MOST_BYTES", "SUFFIXES", "KeptFile", "UnusableError"]

_log = logging.getLogger(__name__)

MOST_BYTES = 8 << 30
"""Bytes that all kept files of a folder may take together; the one just written stays whatever its size."""

SUFFIXES = (".plan", ".timings", ".kernels")
"""Of engines, of what was timed while they were built, and of kernels that were made when they were loaded."""


class UnusableError(EdgesegError):
    """A kept file that is not used; the message ends a sentence that begins with its name.

    Attributes:
        advice: What to do besides, beginning with ``"; "``; empty where there is nothing to do.
    """

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


@dataclass(frozen=True)
class KeptFile:
    """A file of a cache folder.

    Attributes:
        path: Its name ends in one of `SUFFIXES`.
        made_for: What it belongs to.
    """

    path: Path
    made_for: Mapping[str, object]

    def refusal(self) -> str:
        """Make the folder where it is missing; why it must not be used, in a sentence, or nothing."""
        with contextlib.suppress(OSError):  # writing says why it cannot be made
            make_private(self.path.parent)
        return refusal(self.path.parent)

    def read(self) -> bytes | None:
        """Read it; None where there is none.

        Raises:
            UnusableError: It must not be used.
        """
        try:
            data, facts = read_private(self.path), json.loads(read_private(self._facts))
        except (FileNotFoundError, NotADirectoryError):
            if _exists(self.path):
                raise UnusableError("lost its description") from None
            return None
        except DistrustedError as error:
            folder = one_line(self.path.parent)
            raise UnusableError(str(error), f"; keep others from writing into '{folder}'") from error
        except (OSError, ValueError) as error:
            raise UnusableError(f"could not be read ({first_line(error)})") from error
        if not isinstance(facts, dict) or facts.get("built_for") != dict(self.made_for):
            raise UnusableError("was built for something else")
        if facts.get("sha256") != hashlib.sha256(data).hexdigest():
            raise UnusableError("was damaged (its SHA-256 differs)")
        return data

    def used(self) -> None:
        """Note that it was used now: it is among the last to go."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def write(self, data: bytes) -> None:
        """Write it, for its owner alone, and let the folder's oldest go.

        Raises:
            StorageError: Writing failed; what lay there is as it was.
        """
        keep_private(self.path, data)
        facts = {"built_for": dict(self.made_for), "sha256": hashlib.sha256(data).hexdigest()}
        keep_private(self._facts, (json.dumps(facts, indent=2) + "\n").encode())
        _evict(self.path)

    @property
    def _facts(self) -> Path:
        return _facts_of(self.path)


def _facts_of(path: Path) -> Path:
    """The JSON file beside a file: ``X.json`` of an engine, ``X.kernels.json`` of what else bears its name."""
    return path.with_suffix(".json") if path.suffix == ".plan" else path.with_name(f"{path.name}.json")


def _evict(kept: Path) -> None:
    """Remove the files that were not used for longest, until the others take no more than `MOST_BYTES`."""
    found = []
    for file in (each for suffix in SUFFIXES for each in kept.parent.glob(f"*{suffix}")):
        with contextlib.suppress(OSError):
            status = file.lstat()
            found.append((file != kept, status.st_mtime_ns, status.st_size, file))
    total = sum(size for _, _, size, _ in found)
    for other, _, size, file in sorted(found, key=lambda entry: entry[1]):
        if total <= MOST_BYTES:
            return
        if other:
            _log.info("removing %s, which was not used for longest", file.name[:12])
            for each in (file, _facts_of(file)):
                with contextlib.suppress(OSError):
                    each.unlink()
            total -= size


def _exists(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.exists()
    return False
