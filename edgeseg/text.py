"""Text that comes from elsewhere (file names, manifests, other libraries' errors) as it may be shown to a person.

A name can hold terminal escapes that move the cursor or retitle the window, a manifest can hold a megabyte where a
word was expected, and another library's error is often a page. What is shown is one line of visible characters.
"""

from __future__ import annotations

import re

__all__ = ["LINE", "first_line", "natural_key", "one_line", "printable"]

LINE = 200
"""Characters that text from a file takes at most in a message."""

# C0 and C1 controls but for newline and tab, delete, marks that reorder a line, and halves of surrogate pairs (bytes
# of a file name that are no UTF-8).
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Replace what a terminal would act on by its escape, so that ``\x1b[2J`` is read and not done.

    Newlines and tabs stay.
    """
    return _HIDDEN.sub(_escape, text)


def one_line(text: object, limit: int = LINE) -> str:
    """Show a value in one line of at most `limit` visible characters; what is cut is marked by an ellipsis."""
    words = printable(" ".join(str(text)[: 8 * limit].split()))
    return words if len(words) <= limit else f"{words[: limit - 1]}…"


def first_line(error: BaseException, limit: int = LINE, *, skip: tuple[str, ...] = ()) -> str:
    """Give the first line of an error that says something, or the error's kind where it says nothing.

    Args:
        error: The error.
        limit: Characters at most.
        skip: Beginnings of lines that are left out where any other says something.
    """
    lines = [line.strip() for line in str(error)[: 64 * limit].splitlines() if line.strip()]
    telling = (line for line in lines if not line.startswith(skip)) if skip else iter(lines)
    return one_line(next(telling, lines[0] if lines else type(error).__name__), limit)


def natural_key(text: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key of natural order (``q3``, ``q8``, ``q10``): digits count as numbers, case breaks ties."""
    parts = re.split(r"(\d+)", text.casefold())
    return [(int(part), "") if index % 2 else (-1, part) for index, part in enumerate(parts)], text


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
