"""Typed access to the fields of a JSON object that came from a file.

JSON may hold ``"false"`` where a truth value is expected, ``true`` for 1, a string for a size, or an infinite number.
Every field is taken through `Fields`, whose error names the wrong field and what it must be.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from edgeseg.text import one_line

__all__ = ["FieldError", "Fields", "parse_object"]

LONGEST = 200
"""Characters of a text field, unless more are allowed."""


class FieldError(ValueError):
    """A field that is missing or has a value that it must not have."""


class Fields:
    """The fields of one JSON object.

    Args:
        data: What JSON gave.
        where: Name of the object, for messages; empty for the outermost one.

    Raises:
        FieldError: `data` is no object.

    Example:
        >>> fields = Fields({"batch": 4, "name": "tiny"})
        >>> fields.integer("batch", 1, 16), fields.text("name")
        (4, 'tiny')
    """

    def __init__(self, data: Any, where: str = "") -> None:
        if not isinstance(data, Mapping):
            raise FieldError(f"{where or 'it'} is {_kind(data)}; it must be an object")
        self._data, self._where = data, where

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def value(self, name: str) -> Any:
        """Take a field of any kind; refuse a missing one."""
        if name not in self._data:
            raise FieldError(f"{self._name(name)} is missing")
        return self._data[name]

    def section(self, name: str) -> Fields:
        """Take an object."""
        return Fields(self.value(name), self._name(name))

    def flag(self, name: str) -> bool:
        """Take a truth value."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """Take a whole number from `low` to `high`, both included."""
        value = self.value(name)
        if not _is_whole(value) or not low <= value <= high:
            raise self._wrong(name, value, f"a whole number from {low} to {high}")
        return int(value)

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float:
        """Take a finite number from `low` to `high`, both included."""
        value = self.value(name)
        if not _is_number(value) or not low <= value <= high:
            limits = "" if low == -math.inf and high == math.inf else f" from {low:g} to {high:g}"
            raise self._wrong(name, value, f"a finite number{limits}")
        return float(value)

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """Take a list of `count` finite numbers."""
        values = self.value(name)
        if not isinstance(values, (list, tuple)) or len(values) != count or not all(map(_is_number, values)):
            raise self._wrong(name, values, f"a list of {count} finite numbers")
        return tuple(float(value) for value in values)

    def integers(self, name: str, count: int, low: int, high: int) -> tuple[int, ...]:
        """Take a list of `count` whole numbers from `low` to `high`, both included."""
        values = self.value(name)
        if not _are_whole(values, count, low, high):
            raise self._wrong(name, values, f"a list of {count} whole numbers from {low} to {high}")
        return tuple(int(value) for value in values)

    def integer_rows(self, name: str, rows: int, count: int, low: int, high: int) -> tuple[tuple[int, ...], ...]:
        """Take a list of `rows` lists, each as `integers` takes one."""
        values = self.items(name, rows, rows)
        if not all(_are_whole(value, count, low, high) for value in values):
            raise self._wrong(name, values, f"{rows} lists of {count} whole numbers from {low} to {high}")
        return tuple(tuple(int(part) for part in value) for value in values)

    def text(self, name: str, *, most: int = LONGEST, pattern: str = "") -> str:
        """Take a text of at most `most` characters that matches the regular expression `pattern` as a whole."""
        value = self.value(name)
        if not isinstance(value, str) or len(value) > most or not re.fullmatch(pattern or "(?s:.*)", value):
            shape = f" that matches {pattern}" if pattern else ""
            raise self._wrong(name, value, f"a text of at most {most} characters{shape}")
        return value

    def choice(self, name: str, words: Collection[str]) -> str:
        """Take one of `words`."""
        value = self.value(name)
        if not isinstance(value, str) or value not in words:
            raise self._wrong(name, value, f"one of {', '.join(words)}")
        return value

    def items(self, name: str, least: int, most: int) -> list[Any]:
        """Take a list of `least` to `most` values of any kind."""
        values = self.value(name)
        if not isinstance(values, (list, tuple)) or not least <= len(values) <= most:
            many = str(least) if least == most else f"{least} to {most}"
            raise self._wrong(name, values, f"a list of {many}")
        return list(values)

    def texts(self, name: str, least: int, most: int, *, longest: int = LONGEST) -> tuple[str, ...]:
        """Take a list of `least` to `most` texts."""
        values = self.items(name, least, most)
        if not all(isinstance(value, str) and len(value) <= longest for value in values):
            raise self._wrong(name, values, f"a list of texts of at most {longest} characters")
        return tuple(values)

    def words(self, name: str, *, most: int = 10_000, pattern: str = "") -> dict[str, str]:
        """Take an object of texts, each of which matches the regular expression `pattern` as a whole."""
        value = self.value(name)
        shape = re.compile(pattern or f"(?s:.{{0,{LONGEST}}})")
        good = isinstance(value, Mapping) and len(value) <= most
        if not good or not all(isinstance(word, str) and shape.fullmatch(word) for word in value.values()):
            raise self._wrong(
                name, value, f"an object of at most {most} texts{f' that match {pattern}' * bool(pattern)}"
            )
        return dict(value)

    def _name(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def _wrong(self, name: str, value: Any, expected: str) -> FieldError:
        got = (
            _kind(value) if isinstance(value, (Mapping, list, tuple)) else one_line(json.dumps(value, default=str), 60)
        )
        return FieldError(f"{self._name(name)} is {got}; it must be {expected}")


def parse_object(text: str) -> dict[str, Any]:
    """Parse a JSON object; refuse repeated names, numbers that are not finite, and endless nesting.

    Raises:
        FieldError: It is not JSON, not an object, or refused.

    Example:
        >>> parse_object('{"batch": 4}')
        {'batch': 4}
    """
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except FieldError:
        raise
    except RecursionError as error:
        raise FieldError("it is nested too deeply") from error
    except ValueError as error:
        raise FieldError(f"it is not JSON ({one_line(error, 100)})") from error
    if not isinstance(data, dict):
        raise FieldError("it is not a JSON object")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise FieldError("it gives a name twice")
    return fields


def _refuse_constant(word: str) -> Any:
    raise FieldError(f"it holds {word}, which is no JSON number")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= 1e300  # a whole number may be too large for a float


def _are_whole(values: Any, count: int, low: int, high: int) -> bool:
    good = isinstance(values, (list, tuple)) and len(values) == count
    return good and all(_is_whole(value) and low <= value <= high for value in values)


def _kind(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    kinds = {dict: "an object", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")
