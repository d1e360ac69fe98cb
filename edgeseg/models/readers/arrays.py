"""Arrays of numpy in pickles, from what it writes: a type, a shape and bytes. None of its own builders is called."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeseg.models.readers.parts import ArrayNote, Inert, TensorNote, Unsupported, check_shape
from edgeseg.models.readers.refusals import damaged
from edgeseg.models.readers.stream import Stream
from edgeseg.text import one_line

__all__ = ["BUILDERS", "Draft", "Kind", "stands_for"]

_SPELLED = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16|\?)")
_ORDERS = "<>=|"


class Kind:
    """A type of numbers; its byte order follows in a state.

    Args:
        spelled: As numpy spells it, such as ``"f4"``.
    """

    def __init__(self, spelled: str) -> None:
        self.plain = _SPELLED.fullmatch(spelled) is not None
        self.description = f"an array of type {one_line(spelled, 40)}"
        self._order = spelled[0] if self.plain and spelled[0] in _ORDERS else "="
        self._number = spelled.lstrip(_ORDERS)

    def set_state(self, state: object) -> None:
        """Take the byte order; fields or a shape of its own make it a type that is not read."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "=", "|"):
            raise damaged("an array's type is none")
        self._order = state[1]
        if any(part is not None for part in state[2:5]):
            self.plain, self.description = False, "an array of structures"

    @property
    def number(self) -> str:
        """The type string of numpy, with the byte order."""
        return self._order + self._number

    @property
    def width(self) -> int:
        """Bytes of a value."""
        return np.dtype(self.number).itemsize


class Draft:
    """An array before its state is read; `value` is what it is then."""

    def __init__(self) -> None:
        self.value: ArrayNote | Unsupported = Unsupported("an array without values")

    def set_state(self, state: object) -> None:
        """Take ``(version, shape, type, first axis fastest, bytes)``, or the same without the version.

        Raises:
            UnreadableError: The bytes are not those of the shape.
        """
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise damaged("an array's state is none")
        shape, kind, fortran, data = state[-4:]
        self.value = _note(data, kind, shape, bool(fortran))


def _note(data: object, kind: object, shape: object, fortran: bool) -> ArrayNote | Unsupported:
    if not isinstance(kind, Kind):
        raise damaged("an array's type is none")
    if not kind.plain:
        return Unsupported(kind.description)
    sides = check_shape(shape)
    content = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(content, (bytes, bytearray)) or math.prod(sides) * kind.width != len(content):
        raise damaged(f"an array of shape {list(sides)} has other bytes than its shape and type need")
    return ArrayNote(content, kind.number, sides, fortran)


def _kind(arguments: tuple[Any, ...], stream: Stream) -> object:
    if not arguments or not isinstance(arguments[0], str):
        return Kind("an object's")
    return Kind(arguments[0])


def _draft(arguments: tuple[Any, ...], stream: Stream) -> object:
    return Draft()


def _number(arguments: tuple[Any, ...], stream: Stream) -> object:
    """Return a numpy number as Python's."""
    if len(arguments) != 2 or not isinstance(arguments[0], Kind):
        raise damaged("a numpy number is none")
    note = _note(arguments[1], arguments[0], (), False) if arguments[0].plain else None
    return Inert("numpy number") if note is None or isinstance(note, Unsupported) else note.tensor().item()


def _from_buffer(arguments: tuple[Any, ...], stream: Stream) -> object:
    """Return an array of protocol 5: ``(bytes, type, shape, order)``."""
    if len(arguments) != 4:
        raise damaged("an array's parts are none")
    draft = Draft()
    draft.value = _note(arguments[0], arguments[1], arguments[2], arguments[3] == "F")
    return draft


def stands_for(value: object) -> TensorNote | ArrayNote | Unsupported | None:
    """Return what a value of a tree stands for as a tensor; None where it is something else.

    Paddle writes some tensors as a pair of name and array.
    """
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    value = value.value if isinstance(value, Draft) else value
    return value if isinstance(value, (TensorNote, ArrayNote, Unsupported)) else None


BUILDERS: dict[str, Callable[[tuple[Any, ...], Stream], object]] = {
    "numpy.dtype": _kind,
    "numpy.core.multiarray._reconstruct": _draft,
    "numpy.ndarray": _draft,
    "numpy.core.multiarray.scalar": _number,
    "numpy.core.numeric._frombuffer": _from_buffer,
}
