"""How much a config may hold, so that a file of a few lines cannot take the machine's memory or its time."""

from __future__ import annotations

from typing import Any

__all__ = ["DEEPEST", "LARGEST_FILE", "MOST_FILES", "MOST_VALUES", "Budget", "ConfigError"]

LARGEST_FILE = 4 * 2**20
"""Bytes of one file."""

MOST_FILES = 64
"""Files that one config is made of, its bases included."""

MOST_VALUES = 500_000
"""Values that one config holds, counted each time they are named."""

DEEPEST = 64
"""Dictionaries and lists inside one another."""

_LONGEST_NUMBER = 1024  # bits


class ConfigError(ValueError):
    """What is wrong with a config: the end of a sentence that begins with its name."""


class Budget:
    """Values that may still be read.

    Example:
        >>> budget = Budget()
        >>> budget.count({"model": [1, 2, 3]})
        >>> budget.count([[]] * 1_000_000)
        Traceback (most recent call last):
        edgeseg.models.configs.limits.ConfigError: holds more than 500000 values; give the config of one network
    """

    def __init__(self) -> None:
        self.left = MOST_VALUES

    def take(self, values: int) -> None:
        """Take so many values.

        Raises:
            ConfigError: More than are left.
        """
        self.left -= values
        if self.left < 0:
            raise ConfigError(f"holds more than {MOST_VALUES} values; give the config of one network")

    def count(self, value: Any) -> None:
        """Take every value inside dictionaries, lists and tuples; what is shared counts each time.

        Raises:
            ConfigError: Too many, too deep, or a number too long.
        """
        waiting = [(value, 0)]
        while waiting:
            value, depth = waiting.pop()
            if depth > DEEPEST:
                raise ConfigError(f"is nested deeper than {DEEPEST} levels; give the config of one network")
            if isinstance(value, dict):
                inside = list(value.values())
            elif isinstance(value, (list, tuple)):
                inside = list(value)
            else:
                inside = []
                _check_number(value)
            self.take(1 + len(inside))
            waiting += [(each, depth + 1) for each in inside]


def _check_number(value: object) -> None:
    if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
        raise ConfigError(f"holds a whole number of more than {_LONGEST_NUMBER} bits, which is no option of a network")
