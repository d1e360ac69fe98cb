"""What lies in a folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["names_in"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
