"""Guard of a cache that an engine keeps by itself, such as OpenVINO's: files it writes into a folder and trusts later.

Each model, device, configuration and engine has a folder of its own, and beside it an index with the SHA-256 of every
file. What differs from the index is removed before the engine may see it; the engine then compiles anew, and that is
said. Two processes never use the same folder at once while it is checked or filled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.errors import StorageError
from edgeseg.runtimes.cache_folder import (
    DistrustedError,
    hash_private,
    keep_private,
    locked,
    make_private,
    read_private,
    refusal,
)
from edgeseg.text import first_line, one_line

__all__ = ["Blobs", "guarded_blobs"]

_log = logging.getLogger(__name__)


@dataclass
class Blobs:
    """What an engine may use.

    Attributes:
        folder: To hand to the engine; None where it must do without.
        notes: Sentences for the user: what was removed and why, or why there is no cache.
    """

    folder: Path | None = None
    notes: list[str] = field(default_factory=list)

    def tell(self, sentence: str) -> None:
        """Keep a sentence for the user, and log it."""
        self.notes.append(sentence)
        _log.warning("%s", sentence)


@contextlib.contextmanager
def guarded_blobs(key: Mapping[str, object], root: Path) -> Iterator[Blobs]:
    """Check the folder for `key`, yield it while the engine compiles, and note what the engine left there.

    A folder that cannot be used is no error: the engine then compiles without a cache, and the notes say so.

    Args:
        key: Everything the files depend on; JSON values.
        root: Folder of all keys; made where it is missing.
    """
    blobs = Blobs()
    facts = json.dumps(dict(key), sort_keys=True)
    folder = root / hashlib.sha256(facts.encode()).hexdigest()
    refused = _prepared(root)
    if refused:
        blobs.tell(refused)
        yield blobs
        return
    with locked(folder.with_suffix(".lock")):
        refused = _prepared(folder, entry=True) or _clean(folder, facts, blobs)
        if refused:
            blobs.tell(refused)
            yield blobs
            return
        blobs.folder = folder
        before = _signatures(folder)
        yield blobs
        if _signatures(folder) != before or not before:
            _write_index(folder, facts, blobs)


def _prepared(folder: Path, *, entry: bool = False) -> str:
    """Make a folder; the sentence why it cannot be used, or nothing."""
    refused = refusal(folder, entry=entry)
    if refused:
        return refused
    try:
        make_private(folder)
    except OSError as error:
        return f"the cache folder '{one_line(folder)}' cannot be made ({first_line(error)}); name another cache_dir"
    return refusal(folder, entry=entry)


def _clean(folder: Path, facts: str, blobs: Blobs) -> str:
    """Remove what the index does not vouch for; the sentence why that failed, or nothing."""
    known = _read_index(folder, facts, blobs)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        return f"the cache folder '{one_line(folder)}' cannot be read ({first_line(error)}); name another cache_dir"
    for entry in entries:
        reason = _damage(entry, known)
        if not reason:
            continue
        try:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        except OSError as error:
            return f"{_which(entry)} {reason} and could not be removed ({first_line(error)}); name another cache_dir"
        blobs.tell(f"{_which(entry)} {reason}; it was removed and the graph compiled anew")
    if not os.access(folder, os.W_OK) and not known:
        return f"the cache folder '{one_line(folder)}' cannot be written and was not used; name another cache_dir"
    return ""


def _damage(entry: Path, known: Mapping[str, object]) -> str:
    """Why an entry must not reach the engine, or nothing."""
    if entry.name not in known:
        return "is not in the cache's index"
    try:
        found = hash_private(entry)
    except DistrustedError as error:
        return str(error)
    except OSError as error:
        return f"could not be read ({first_line(error)})"
    return "" if found == known[entry.name] else "was damaged (its SHA-256 differs)"


def _read_index(folder: Path, facts: str, blobs: Blobs) -> Mapping[str, object]:
    """SHA-256 by name; nothing where there is no index, or one that cannot be used."""
    try:
        index = json.loads(read_private(_index(folder)))
    except DistrustedError as error:
        blobs.tell(f"{_which(_index(folder))} {error} and was not used; keep others from writing into that folder")
        return {}
    except (OSError, ValueError):
        return {}
    if not isinstance(index, dict) or index.get("built_for") != json.loads(facts):
        return {}
    files = index.get("sha256")
    return files if isinstance(files, dict) else {}


def _write_index(folder: Path, facts: str, blobs: Blobs) -> None:
    try:
        files = {}
        for entry in sorted(folder.iterdir()):
            entry.chmod(0o600)  # the engine goes by the umask
            files[entry.name] = hash_private(entry)
        if not files:
            blobs.tell(f"the engine kept nothing in '{one_line(folder)}' and will compile again; free space there")
            return
        index = {"built_for": json.loads(facts), "sha256": files}
        keep_private(_index(folder), (json.dumps(index, indent=2) + "\n").encode())
    except (OSError, DistrustedError, StorageError) as error:
        blobs.tell(f"the compiled graph could not be kept and will be compiled again ({first_line(error)})")


def _index(folder: Path) -> Path:
    return folder.with_suffix(".json")


def _signatures(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What changes where a file is written anew."""
    with os.scandir(folder) as entries:
        stats = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    return {name: (status.st_ino, status.st_size, status.st_mtime_ns) for name, status in stats.items()}


def _which(entry: Path) -> str:
    return f"'{one_line(entry.name, 40)}' in the cache folder '{one_line(entry.parent)}'"
