"""The bytes of a pickle, taken in turn; what a length states is compared with what is left before it is read."""

from __future__ import annotations

import struct
from typing import BinaryIO

from edgeseg.models.readers.refusals import RESAVE, UnreadableError, damaged

__all__ = ["MANY", "Stream"]

_MOST_STEPS = 2_000_000
_LONGEST_NAME = 1000
MANY = 1 << 16
"""Bytes from which on a value is kept where a tensor can take it over."""


class Stream:
    """A pickle's bytes and the budget of what may be done with them.

    Args:
        file: Open for reading, at the first byte.
        size: Bytes there are.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size, self.left = file, size, size
        self._steps = _MOST_STEPS
        self._recoded = size

    @property
    def position(self) -> int:
        """Bytes taken."""
        return self.size - self.left

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes.

        Raises:
            UnreadableError: There are not so many.
        """
        if not 0 <= count <= self.left:
            raise damaged(f"a pickled value states {count} bytes where {self.left} are left")
        found = self._file.read(count)
        if len(found) != count:
            raise damaged("the pickle ends early")
        self.left -= count
        return found

    def take_own(self, count: int) -> bytes | bytearray:
        """Return the same; many bytes come in memory that a tensor can take over without a copy."""
        if count < MANY or count > self.left:
            return self.take(count)
        made = bytearray(count)
        if self._file.readinto(made) != count:  # type: ignore[attr-defined]
            raise damaged("the pickle ends early")
        self.left -= count
        return made

    def code(self) -> bytes:
        """Return the next opcode, which is a step of work.

        Raises:
            UnreadableError: There is none, or it is one too many.
        """
        self.left -= 1
        self._steps -= 1
        found = self._file.read(1)
        if self._steps < 0 or self.left < 0 or not found:
            self.spend(0)
            raise damaged("the pickle ends early")
        return found

    def number(self, form: str) -> int:
        """Return the next whole number, of a `struct` format."""
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def line(self, longest: int = _LONGEST_NAME) -> bytes:
        """Return the bytes up to the next newline, without it.

        Raises:
            UnreadableError: There is no newline within `longest` bytes.
        """
        found = self._file.readline(min(longest + 1, self.left))
        if not found.endswith(b"\n"):
            raise damaged("a pickled line has no end")
        self.left -= len(found)
        return found[:-1]

    def skip(self, count: int) -> None:
        """Pass over `count` bytes without reading them.

        Raises:
            UnreadableError: There are not so many.
        """
        if not 0 <= count <= self.left:
            raise damaged(f"{count} bytes are stated where {self.left} are left")
        self._file.seek(count, 1)
        self.left -= count

    def spend(self, steps: int = 1) -> None:
        """Count steps of work.

        Raises:
            UnreadableError: More than any checkpoint needs.
        """
        self._steps -= steps
        if self._steps < 0:
            raise UnreadableError(f"has a pickle of more than {_MOST_STEPS:,} steps, which no state dict needs", RESAVE)

    def recode(self, count: int) -> None:
        """Count bytes that text is turned into; all together are no more than the pickle has.

        Raises:
            UnreadableError: They are more.
        """
        self._recoded -= count
        if self._recoded < 0:
            raise damaged("its pickle turns one text into bytes many times")
