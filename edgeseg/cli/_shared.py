"""Output that several commands share: tables and JSON that no name can garble, and how sizes and shares are written."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edgeseg.runtimes.registry import BUILT_IN, resolve_target
from edgeseg.text import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "console",
    "errors",
    "json_text",
    "no_warnings",
    "optional_size",
    "percent",
    "plain_console",
    "print_json",
    "results_alone_on_stdout",
    "size_text",
    "split_targets",
    "table",
    "target_names",
]

_CELL = 1000  # characters of a table's cell at most
_HIDDEN_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@lru_cache(maxsize=1)
def console() -> Console:
    """Make the console for results (stdout). It is wide where it is no terminal."""
    plain = plain_console()
    return plain if plain.is_terminal else plain_console(width=180)


@lru_cache(maxsize=1)
def errors() -> Console:
    """Make the console for progress and notices (stderr)."""
    return plain_console(stderr=True)


def plain_console(**options: Any) -> Console:
    """Make a console that shows text as it is: no markup, no emoji, and escapes for what a terminal would act on.

    Args:
        options: Of rich's Console.
    """
    from rich.console import Console
    from rich.segment import Segment

    class PlainConsole(Console):
        """Strings are cleaned before they are laid out, everything else before it is written."""

        def on_broken_pipe(self) -> None:
            """Let results end the command, since their reader has gone; go on without progress and notices."""
            if not self.stderr:
                raise BrokenPipeError
            self.quiet = True

        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(printable(text), **how)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else printable(text), style, control)

    return PlainConsole(**{"markup": False, "highlight": False, "emoji": False, **options})


def table(*titles: str, right: tuple[str, ...] = ()) -> Table:
    """Make a plain table with these column titles; those in `right` are numbers. A cell's text is put on one line."""
    from rich.table import Table

    class OneLineTable(Table):
        def add_row(self, *cells: RenderableType | None, **how: Any) -> None:
            super().add_row(*(one_line(cell, _CELL) if isinstance(cell, str) else cell for cell in cells), **how)

    plain = OneLineTable(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        plain.add_column(one_line(title, _CELL), justify="right" if title in right else "left")
    return plain


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Keep what libraries warn developers of (deprecations, defaults that changed) from the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def results_alone_on_stdout() -> Iterator[None]:
    """Send what libraries of C++ print meanwhile to standard error: standard output is for results, such as JSON."""
    if sys.stdout is not None:  # closed before the start
        sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def json_text(data: object, *, indent: int | None = None, ascii_only: bool = False) -> str:
    r"""Write JSON that is safe to show: what a terminal would act on is ``\uXXXX``, which loads as it was.

    Args:
        data: What `json.dumps` takes.
        indent: Of `json.dumps`.
        ascii_only: Escape everything that is not ASCII.

    Example:
        >>> json_text({"name": "x"})
        '{"name": "x"}'
    """
    import json

    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only)
    return _HIDDEN_IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def print_json(data: object, *, indent: int | None = None) -> None:
    """Print `json_text` and flush; only ASCII where the output is not UTF-8, so that it stays JSON there too."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "")
    print(json_text(data, indent=indent, ascii_only=encoding not in ("utf8", "utf8sig")), flush=True)


def size_text(size: tuple[int, int] | None) -> str:
    """Write ``(512, 1024)`` as ``512x1024``, height first.

    Example:
        >>> size_text((512, 1024)), size_text(None)
        ('512x1024', '-')
    """
    return "-" if size is None else f"{size[0]}x{size[1]}"


def optional_size(text: str | None) -> tuple[int, int] | None:
    """Parse a size given on the command line; None stays None."""
    from edgeseg.specs import parse_size

    return None if text is None else parse_size(text)


def percent(share: float) -> str:
    """Write a share as per cent, with enough digits that a single pixel of two megapixels shows.

    Example:
        >>> percent(0.99995)
        '99.9950 %'
    """
    return f"{100 * share:.4f} %" if share < 1.0 else "100 %"


def split_targets(words: list[str]) -> list[str]:
    """List the canonical target names of repeated and comma-separated words, each once.

    Example:
        >>> split_targets(["ort,openvino", "onnx"])
        ['ort', 'openvino']
    """
    names = [resolve_target(part) for word in words for part in word.split(",") if part.strip()]
    return list(dict.fromkeys(names))


def target_names(*, last: str = ", ") -> str:
    """Name edgeseg's own targets for a help text; ``edgeseg doctor`` lists those of other packages too.

    Args:
        last: Between the last two.
    """
    names = [record.name for record in BUILT_IN]
    return last.join([", ".join(names[:-1]), names[-1]])
