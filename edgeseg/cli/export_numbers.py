"""Options of one or several numbers, such as ``--mean 123.7 116.3 103.5``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

from edgeseg.errors import UsageError

__all__ = ["NumbersCommand", "joined", "numbers_in"]

_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf)", re.IGNORECASE)
_OPTIONS = ("--mean", "--std")


class NumbersCommand(TyperCommand):
    """A command whose ``--mean`` and ``--std`` take as many numbers as follow them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the numbers behind each of these options into one word."""
        rest: list[str] = super().parse_args(ctx, joined(args))
        return rest


def joined(args: Sequence[str]) -> list[str]:
    """Join the numbers behind ``--mean`` and ``--std``.

    >>> joined(["net", "--mean", "1", "2", "--std=3", "-t", "ort"])
    ['net', '--mean=1 2', '--std=3', '-t', 'ort']
    """
    words: list[str] = []
    at = 0
    while at < len(args):
        word, at = args[at], at + 1
        name, equals, first = word.partition("=")
        if name in _OPTIONS:
            numbers = [first] if equals else []
            while at < len(args) and all(_NUMBER.fullmatch(part) for part in _parts(args[at])) and args[at].strip():
                numbers.append(args[at])
                at += 1
            word = f"{name}={' '.join(numbers)}" if numbers else word
        words.append(word)
    return words


def numbers_in(option: str, text: str) -> tuple[float, ...]:
    """Read numbers with spaces or commas between them.

    Raises:
        UsageError: Something else, or nothing.

    >>> numbers_in("--mean", "1, 2.5 3e1")
    (1.0, 2.5, 30.0)
    """
    try:
        numbers = tuple(float(part) for part in _parts(text))
    except ValueError:
        numbers = ()
    if not numbers:
        raise UsageError(f"{option} '{text}' is no list of numbers; give one per channel, or one for all")
    return numbers


def _parts(text: str) -> list[str]:
    return text.replace(",", " ").split()
