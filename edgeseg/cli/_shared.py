"""What several commands share: consoles, and how sizes and shares are written."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["console", "errors", "optional_size", "percent", "size_text", "split_targets", "table"]


@lru_cache(maxsize=1)
def console() -> Console:
    """Console for results (stdout). No markup: brackets in names and advice are text. Wide where it is no terminal."""
    from rich.console import Console

    plain = Console(markup=False, highlight=False)
    return plain if plain.is_terminal else Console(markup=False, highlight=False, width=180)


def table(*titles: str, right: tuple[str, ...] = ()) -> Table:
    """A plain table with the given column titles; those in `right` hold numbers."""
    from rich.table import Table

    made = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        made.add_column(title, justify="right" if title in right else "left")
    return made


@lru_cache(maxsize=1)
def errors() -> Console:
    """Console for progress and notices (stderr)."""
    from rich.console import Console

    return Console(stderr=True)


def size_text(size: tuple[int, int] | None) -> str:
    """``(512, 1024)`` as ``512x1024``, height first."""
    return "-" if size is None else f"{size[0]}x{size[1]}"


def optional_size(text: str | None) -> tuple[int, int] | None:
    """Parse a size given on the command line; None stays None."""
    from edgeseg.specs import parse_size

    return None if text is None else parse_size(text)


def percent(share: float) -> str:
    """A share as per cent, with as many digits as tell a single pixel of two megapixels from none."""
    return f"{100 * share:.4f} %" if share < 1.0 else "100 %"


def split_targets(words: list[str]) -> list[str]:
    """Canonical target names of repeated and comma-separated words, each once."""
    from edgeseg.targets import resolve_target

    names = [resolve_target(part) for word in words for part in word.split(",") if part.strip()]
    return list(dict.fromkeys(names))
