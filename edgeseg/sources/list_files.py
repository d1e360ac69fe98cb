"""Lists of paths: text files of one path a line, relative to the list's folder."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.text import one_line, os_reason, shown_name

__all__ = ["LIST_SUFFIXES", "listed_paths", "text_of"]

LIST_SUFFIXES = frozenset((".list", ".lst", ".txt"))
"""Suffixes of files that may be lists of paths."""

_LARGEST = 1 << 28


def listed_paths(path: Path) -> list[Path]:
    r"""Read a list of paths.

    Blank lines are left out, and lines that begin with ``#`` and name no file. A path is relative to the list's folder
    or, where nothing is there, to the current one; ``\`` separates folders where ``/`` would not find it.

    Args:
        path: Text in UTF-8, with or without byte order mark, or in UTF-16 with it; bytes of names that are no UTF-8
            stay as they are.

    Returns:
        One path a line, in the order of the lines; those where nothing is, too.

    Raises:
        InputError: It cannot be read, is no text, or no line of it names anything that exists.
    """
    lines = [line for line in text_of(path).replace("\r\n", "\n").split("\n") if line.strip()]
    entries = [(line, _entry(line, path.parent)) for line in lines]
    if not any(entry for _, entry in entries):
        told = f"its first line, '{one_line(lines[0], 60)}', names no file" if lines else "it is empty"
        raise InputError(
            f"'{shown_name(path)}' is neither an image nor a video edgeseg reads, nor a list of paths ({told}); "
            "a list holds one path a line, relative to the folder of the list"
        )
    return [entry or path.parent / line.strip() for line, entry in entries if entry or not line.startswith("#")]


def text_of(path: Path) -> str:
    """Read a text file; bytes that are no UTF-8 become lone surrogates, as in names of files.

    Raises:
        InputError: It cannot be read, is too large, or is no text.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"'{shown_name(path)}' cannot be read ({os_reason(error)}); check the path") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    if b"\0" in data or len(data) > _LARGEST:
        raise InputError(f"'{shown_name(path)}' is neither an image, a video nor a list of paths; give one of these")
    return os.fsdecode(data.removeprefix(codecs.BOM_UTF8))


def _entry(line: str, folder: Path) -> Path | None:
    """Find what a line names."""
    for text in dict.fromkeys((line, line.strip(), line.strip().strip("\"'"), line.strip().replace("\\", "/"))):
        for place in (folder / text, Path(text), Path(os.path.expanduser(text))):
            if os.path.lexists(place):
                return place
    return None
