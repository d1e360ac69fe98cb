"""Tables that say what label values or colours mean: a JSON object or a CSV of two columns."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgeseg.errors import UsageError
from edgeseg.labels import Color
from edgeseg.text import one_line

__all__ = ["LabelTable", "read_label_table"]

LabelTable = tuple[dict[int, int | None], dict[Color, int | None]]
"""Stored value -> class or None for void, and RGB -> class or None for void."""

_COLOR = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_HEADS = ("value", "color", "colour", "id", "label")
_VOID_WORDS = ("void", "ignore", "null", "none", "")


def read_label_table(file: Path, names: Sequence[str]) -> LabelTable:
    """Read what label values mean.

    A JSON file is an object of ``"VALUE": CLASS``; any other file is a CSV of ``VALUE,CLASS`` whose first line may be a
    heading. VALUE is a number or ``#RRGGBB``; CLASS is an index, a class name, or ``void`` (``null`` in JSON).

    Args:
        file: The file.
        names: Class names of the network.

    Raises:
        UsageError: Not readable, no rows, a row of another form, a value twice, or a class that the network lacks.
    """
    values: dict[int, int | None] = {}
    colors: dict[Color, int | None] = {}
    for key, meaning in _rows(file):
        label = _class(meaning, names, file)
        color = _COLOR.fullmatch(key)
        if color:
            _put(colors, (int(color[1], 16), int(color[2], 16), int(color[3], 16)), label, key, file)
        elif key.isdecimal() and key.isascii() and int(key) <= 65535:
            _put(values, int(key), label, key, file)
        else:
            raise UsageError(f"label map '{file}' names the value '{one_line(key, 40)}'; expected 0..65535 or #RRGGBB")
    if not values and not colors:
        raise UsageError(f"label map '{file}' names no value; give lines of VALUE,CLASS")
    return values, colors


def _put(table: dict[Any, int | None], value: object, label: int | None, key: str, file: Path) -> None:
    if value in table:
        raise UsageError(f"label map '{file}' names the value '{key}' twice; leave one of them")
    table[value] = label


def _rows(file: Path) -> list[tuple[str, object]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".json":
            pairs = json.loads(text, object_pairs_hook=list)
            if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
                raise UsageError(f"label map '{file}' is no JSON object; expected {{\"VALUE\": CLASS, ...}}")
            return [(key.strip(), meaning) for key, meaning in pairs]
        return _csv_rows(csv.reader(text.splitlines()), file)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"label map '{file}' cannot be read ({one_line(error, 120)}); give JSON or CSV") from error


def _csv_rows(lines: Iterable[list[str]], file: Path) -> list[tuple[str, object]]:
    rows = [[cell.strip() for cell in row] for row in lines if any(cell.strip() for cell in row)]
    if rows and rows[0][0].lower() in _HEADS:
        rows = rows[1:]
    for row in rows:
        if len(row) != 2:
            raise UsageError(f"label map '{file}' has a line of {len(row)} columns; expected VALUE,CLASS")
    return [(row[0], row[1]) for row in rows]


def _class(meaning: object, names: Sequence[str], file: Path) -> int | None:
    """Find the index of a class, None for void."""
    word = "" if meaning is None else str(meaning).strip()
    if word in names:
        return names.index(word)
    if word.lower() in _VOID_WORDS and (meaning is None or word):
        return None
    if word.isdecimal() and word.isascii() and not isinstance(meaning, bool) and int(word) < len(names):
        return int(word)
    raise UsageError(
        f"label map '{file}' names the class '{one_line(word, 40)}'; the network has 0..{len(names) - 1} "
        f"({one_line(', '.join(names), 200)}), and void"
    )
