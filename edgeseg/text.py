"""Text from elsewhere (file names, manifests, other libraries' errors) made safe to show to a person.

A name can contain terminal escapes that move the cursor or retitle the window. A manifest can have a megabyte where a
word is expected. Another library's error is often a page. What is shown is one line of visible characters.
"""

from __future__ import annotations

import re

__all__ = ["LINE", "first_line", "natural_key", "one_line", "os_reason", "printable", "shown_name"]

LINE = 200
"""Characters that text from a file takes at most in a message."""

# C0 and C1 controls but for newline and tab, delete, marks that reorder a line, and halves of surrogate pairs (bytes
# of a file name that are no UTF-8).
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Replace characters that a terminal would act on by escapes, so that ``\x1b[2J`` is shown and does nothing.

    Newlines and tabs stay.

    Example:
        >>> printable("a\x1b[2J")
        'a\\x1b[2J'
    """
    return _HIDDEN.sub(_escape, text)


def one_line(text: object, limit: int = LINE) -> str:
    r"""Show a value in one line of at most `limit` visible characters; an ellipsis marks where it is cut.

    Example:
        >>> one_line("two\nlines", limit=6)
        'two l…'
    """
    words = printable(" ".join(str(text)[: 8 * limit].split()))
    return words if len(words) <= limit else f"{words[: limit - 1]}…"


def shown_name(name: object, limit: int = 300) -> str:
    r"""Show a path as it is, blanks included, in one line of visible characters; a long one is cut at its beginning.

    Example:
        >>> shown_name(" two  blanks\n.png")
        ' two  blanks\\n.png'
    """
    text = str(name)
    text = text if len(text) <= limit else f"…{text[1 - limit :]}"
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def first_line(error: BaseException, limit: int = LINE, *, skip: tuple[str, ...] = ()) -> str:
    r"""Take the first line of an error that says something; the class name where there is none.

    Args:
        error: The error.
        limit: Characters at most.
        skip: Beginnings of lines that are left out where any other says something.

    Example:
        >>> first_line(ValueError("\nbad size\nmore"))
        'bad size'
    """
    lines = [line.strip() for line in str(error)[: 64 * limit].splitlines() if line.strip()]
    telling = (line for line in lines if not line.startswith(skip)) if skip else iter(lines)
    return one_line(next(telling, lines[0] if lines else type(error).__name__), limit)


def os_reason(error: OSError) -> str:
    """Say why the system refused, in lower case, as it goes on a sentence.

    Example:
        >>> os_reason(FileNotFoundError(2, "No such file or directory"))
        'no such file or directory'
    """
    return (error.strerror or str(error)).lower()


def natural_key(text: str) -> tuple[list[tuple[int, str]], str]:
    """Make a sort key of natural order (``q3``, ``q8``, ``q10``): digits count as numbers, case breaks ties.

    Example:
        >>> sorted(["q10", "q3"], key=natural_key)
        ['q3', 'q10']
    """
    parts = re.split(r"(\d+)", text.casefold())
    return [(int(part), "") if index % 2 else (-1, part) for index, part in enumerate(parts)], text


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
