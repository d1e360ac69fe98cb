"""Temporary names: ``.NAME.edgeseg-xxxxxxxx``, beside the place of NAME, with eight random letters or digits."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

__all__ = ["aside_of", "is_temporary", "place_of", "temporary_path"]

_PATTERN = re.compile(r"\..*\.edgeseg-[a-z0-9]{8}(\.old|\.[a-z0-9]{1,4})?", re.DOTALL)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_LONGEST = 255  # bytes of a file name
ASIDE = ".old"


def temporary_path(target: Path, suffix: str) -> Path:
    """Make up a temporary path beside `target` that ends in `suffix`."""
    mark = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return target.with_name(f".{_shortened(target.name, suffix)}.edgeseg-{mark}{suffix}")


def is_temporary(name: str) -> bool:
    """Tell whether a file name is one that `temporary_path` or `aside_of` makes."""
    return _PATTERN.fullmatch(name) is not None


def aside_of(path: Path) -> Path:
    """Path at which the old folder waits while the temporary folder `path` takes its place."""
    return path.with_name(f"{path.name}{ASIDE}")


def place_of(path: Path) -> Path:
    """Path that a temporary path without a suffix stands in for, unless that path's name was shortened."""
    return path.with_name(path.name[1:].rpartition(".edgeseg-")[0])


def _shortened(name: str, suffix: str) -> str:
    """Cut a name so that the temporary one, also aside, fits into a file system's longest name."""
    room = _LONGEST - len(f"..edgeseg-12345678{ASIDE}{suffix}")
    return os.fsdecode(os.fsencode(name)[:room]) if len(os.fsencode(name)) > room else name
