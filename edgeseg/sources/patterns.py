"""Files by a pattern: shell patterns (``frames/*.png``, ``**``, ``[ab]``) and numbers (``img_%04d.png``)."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from edgeseg.text import natural_key

__all__ = ["matches_of", "numbered_files"]

_NUMBER = re.compile(r"%(0\d{1,2})?[di]")
_RANGES_NAMED = 5


def matches_of(pattern: str) -> list[Path]:
    """List what a shell pattern matches, in natural order; nothing where it is no pattern.

    Hidden files match only where the pattern names the dot. ``~`` is the home folder where nothing else matches.
    """
    if not glob.has_magic(pattern):
        return []
    for text in dict.fromkeys((pattern, os.path.expanduser(pattern))):
        if found := glob.glob(text, recursive=True):
            return [Path(path) for path in sorted(found, key=natural_key)]
    return []


def numbered_files(pattern: str) -> tuple[list[Path], list[str]]:
    """List the files whose number stands where the pattern has ``%d`` or ``%04d``, in the order of the numbers.

    Returns:
        The files, none where it is no such pattern; and a sentence on numbers that are missing between them.

    Example:
        >>> numbered_files("frames/img_%04d.png")
        ([], [])
    """
    for text in dict.fromkeys((pattern, os.path.expanduser(pattern))):
        folder, name = os.path.split(text)
        found = sorted(_numbered(folder, name)) if len(_NUMBER.findall(name)) == 1 else []
        if found:
            return [Path(folder, file) for _, file in found], _gaps([number for number, _ in found])
    return [], []


def _numbered(folder: str, name: str) -> list[tuple[int, str]]:
    (mark,) = _NUMBER.finditer(name)
    wide = int(mark[1] or 0)
    # What printf writes: zeros up to the width, and no zero before a longer number.
    digits = rf"\d{{{wide}}}|[1-9]\d{{{wide},}}" if wide > 1 else r"0|[1-9]\d*"
    before, after = (part.replace("%%", "%") for part in (name[: mark.start()], name[mark.end() :]))
    wanted = re.compile(f"{re.escape(before)}({digits}){re.escape(after)}")
    files: list[str] = []
    with contextlib.suppress(OSError):
        files = os.listdir(folder or ".")
    return [(int(match[1]), file) for file in files if (match := wanted.fullmatch(file))]


def _gaps(numbers: Sequence[int]) -> list[str]:
    """Say which numbers are missing between the first and the last."""
    missing = [
        f"{low + 1}" if low + 2 == high else f"{low + 1} to {high - 1}"
        for low, high in itertools.pairwise(numbers)
        if high > low + 1
    ]
    if not missing:
        return []
    count = numbers[-1] - numbers[0] + 1 - len(numbers)
    more = [f"and {len(missing) - _RANGES_NAMED} more gaps"] if len(missing) > _RANGES_NAMED else []
    named = ", ".join([*missing[:_RANGES_NAMED], *more])
    verb = "number is" if count == 1 else "numbers are"
    return [f"{count} {verb} missing between {numbers[0]} and {numbers[-1]}: {named}"]
