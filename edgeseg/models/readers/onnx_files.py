"""ONNX files, of which only the initialisers are looked at: their fields are walked in place, nothing else is built.

A graph of a few megabytes can name millions of empty parts, which a general reader makes objects of; and tensors can
point at files beside the graph. Here nothing but the file itself is read.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from edgeseg.models.readers.parts import (
    ArrayNote,
    Stored,
    TensorNote,
    Unsupported,
    Value,
    check_shape,
    contiguous,
    turned,
)
from edgeseg.models.readers.refusals import AGAIN, UnreadableError, damaged
from edgeseg.text import one_line

__all__ = ["read_onnx"]

_MOST_FIELDS = 1_000_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _TYPE, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14
_FLOATS, _INT32S, _INT64S, _DOUBLES, _UINT64S = 4, 5, 7, 10, 11
_TYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 4: torch.uint16, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float16, 11: torch.float64, 12: torch.uint32, 13: torch.uint64, 14: torch.complex64,
    15: torch.complex128, 16: torch.bfloat16, 17: torch.float8_e4m3fn, 18: torch.float8_e4m3fnuz,
    19: torch.float8_e5m2, 20: torch.float8_e5m2fnuz,
}  # fmt: skip
_STORAGE = {_FLOATS: "<f4", _DOUBLES: "<f8", _INT32S: "<u4", _INT64S: "<u8", _UINT64S: "<u8"}
_WHOLE = (torch.float32, torch.float64, torch.complex64, torch.complex128)
"""Types whose values stand in a field of their own type; bits of the others stand in fields of whole numbers."""

Span = tuple[int, int]
Field = tuple[int, int, int, int]
"""Number, wire type, and the value; of bytes the first and the end."""


def read_onnx(path: Path) -> object:
    """Find the initialisers.

    Returns:
        Notes of the tensors by name.

    Raises:
        UnreadableError: No whole ONNX file, or an initialiser whose values lie in another file.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
        walk = _Walk(view)
        graphs = [(a, b) for number, wire, a, b in walk.fields((0, len(view))) if (number, wire) == (_GRAPH, _BYTES)]
        found: dict[str, Value | Unsupported] = {}
        for graph in graphs:
            for number, wire, start, end in walk.fields(graph):
                if (number, wire) == (_INITIALIZER, _BYTES):
                    name, note = _Tensor(path, walk, (start, end)).note()
                    found[name] = note
    if not graphs:
        raise UnreadableError("is not a whole ONNX file (it has no graph)", AGAIN)
    return found


class _Walk:
    """Walks the fields of a message, counting them."""

    def __init__(self, view: mmap.mmap) -> None:
        self.view = view
        self._left = _MOST_FIELDS

    def fields(self, span: Span) -> Iterator[Field]:
        """Return the fields of the message that lies in `span`."""
        at, end = span
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise UnreadableError(f"has more than {_MOST_FIELDS:,} parts, which no network does")
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                value, at = self.varint(at, end)
                yield number, wire, value, 0
                continue
            size, at = self.varint(at, end) if wire == _BYTES else ({_FIXED64: 8, _FIXED32: 4}.get(wire, -1), at)
            if not 0 <= size <= end - at or number == 0:
                raise UnreadableError("is not a whole ONNX file (a part is longer than what holds it)", AGAIN)
            yield number, wire, at, at + size
            at += size

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """Return a whole number of variable length, and where it ends."""
        value = shift = 0
        while at < end and shift < 70:
            byte = self.view[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value & (1 << 64) - 1, at
        raise UnreadableError("is not a whole ONNX file (a number has no end)", AGAIN)

    def numbers(self, span: Span) -> list[int]:
        """Return the whole numbers packed in `span`, as signed ones."""
        at, end = span
        found = []
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise UnreadableError(f"has more than {_MOST_FIELDS:,} parts, which no network does")
            value, at = self.varint(at, end)
            found.append(value - (1 << 64) if value >> 63 else value)
        return found


class _Tensor:
    """One initialiser, its fields collected."""

    def __init__(self, path: Path, walk: _Walk, span: Span) -> None:
        self._path, self._walk = path, walk
        self._shape: list[int] = []
        self._kind = self._location = 0
        self._name = ""
        self._raw: Span | None = None
        self._packed: dict[int, list[bytes]] = {}
        self._external = False
        for field in walk.fields(span):
            self._take(*field)

    def _take(self, number: int, wire: int, start: int, end: int) -> None:
        packed = wire == _BYTES
        if number == _DIMS:
            self._shape += self._walk.numbers((start, end)) if packed else [start]
        elif number == _TYPE and not packed:
            self._kind = start
        elif number == _NAME and packed:
            self._name = self._walk.view[start : min(end, start + 4096)].decode(errors="backslashreplace")
        elif number == _RAW and packed:
            self._raw = (start, end)
        elif number == _EXTERNAL or (number == _LOCATION and start == 1):
            self._external = True
        elif number in _STORAGE:
            self._packed.setdefault(number, []).append(self._values(number, wire, start, end))

    def _values(self, number: int, wire: int, start: int, end: int) -> bytes:
        """Return the bytes of values that are not raw, in the type of their field."""
        if number in (_FLOATS, _DOUBLES):
            return self._walk.view[start:end]
        numbers = self._walk.numbers((start, end)) if wire == _BYTES else [start]
        return np.array([value & (1 << 64) - 1 for value in numbers], np.uint64).astype(_STORAGE[number]).tobytes()

    def note(self) -> tuple[str, Value | Unsupported]:
        """Return its name, and the note of the tensor."""
        shown = one_line(self._name, 60)
        if self._external:
            raise UnreadableError(
                f"keeps the values of '{shown}' in another file, which is not read",
                "save it whole: onnx.save(onnx.load(file), 'whole.onnx')",
            )
        dtype = _TYPES.get(self._kind)
        if dtype is None:
            return self._name, Unsupported(f"an initialiser of ONNX type {self._kind}")
        shape = check_shape(self._shape)
        needed = math.prod(shape) * dtype.itemsize
        if self._raw is not None:
            start, end = self._raw
            if end - start != needed:
                raise damaged(f"initialiser '{shown}' has other bytes than its shape and type need")
            source = Stored(self._path, start, needed, swap=turned(dtype, True))
            return self._name, TensorNote(source, dtype, 0, shape, contiguous(shape))
        return self._name, self._listed(dtype, shape, shown)

    def _listed(self, dtype: torch.dtype, shape: tuple[int, ...], shown: str) -> Value:
        """Return the note of values that are not raw: narrow ones stand in wider fields."""
        field, pieces = next(iter(self._packed.items()), (_FLOATS, []))
        data, width = b"".join(pieces), dtype.itemsize
        whole = field in (_FLOATS, _DOUBLES)
        if not whole:
            data = np.frombuffer(data, _STORAGE[field]).astype(f"<u{width}").tobytes()
        if len(data) != math.prod(shape) * width or whole != (dtype in _WHOLE):
            raise damaged(f"initialiser '{shown}' has other values than its shape and type need")
        if dtype.is_complex:
            return ArrayNote(data, f"<c{width}", shape)
        return ArrayNote(data, f"<f{width}" if whole else f"<u{width}", shape, seen_as=dtype)
