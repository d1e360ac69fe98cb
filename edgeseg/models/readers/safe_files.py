"""safetensors files: a JSON header of types, shapes and places, then the bytes; checked whole before any is read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from edgeseg.models.readers.parts import Stored, TensorNote, Unsupported, check_shape, contiguous, turned
from edgeseg.models.readers.refusals import AGAIN, UnreadableError, read_exactly
from edgeseg.text import first_line, one_line

__all__ = ["read_safetensors"]

_LARGEST_HEADER = 16 << 20
_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "U16": torch.uint16,
    "U32": torch.uint32, "U64": torch.uint64, "BOOL": torch.bool, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip


def _broken(why: object) -> UnreadableError:
    return UnreadableError(f"is not a whole safetensors file ({one_line(why, 160)})", AGAIN)


def read_safetensors(path: Path) -> object:
    """Read the header.

    Returns:
        Notes of the tensors by name.

    Raises:
        UnreadableError: The header is none, or its places have gaps, overlap, lie outside or do not fit the shapes.
    """
    length = path.stat().st_size
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little") if length > 8 else -1
        if not 0 < size <= min(_LARGEST_HEADER, length - 8):
            raise _broken(f"its header states {size} bytes where {max(0, length - 8)} follow")
        header = _parsed(read_exactly(stream, 8, size))
    header.pop("__metadata__", None)
    found, start = {}, 8 + size
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        found[name], span = _note(path, entry, start, length - start, one_line(name, 60))
        spans.append(span)
    _check_spans(sorted(spans), length - start)
    return found


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _broken(first_line(error)) from error
    if not isinstance(header, dict):
        raise _broken("its header is no table")
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return made


def _note(
    path: Path, entry: Any, start: int, room: int, shown: str
) -> tuple[TensorNote | Unsupported, tuple[int, int]]:
    """Return the note of one tensor, and its place among the bytes."""
    span = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(span, list) or len(span) != 2 or not all(type(at) is int for at in span):
        raise _broken(f"tensor '{shown}' has no place")
    first, end = span
    if not 0 <= first <= end <= room:
        raise _broken(f"tensor '{shown}' lies outside of the file")
    dtype = _TYPES.get(entry["dtype"]) if isinstance(entry.get("dtype"), str) else None
    if dtype is None:
        return Unsupported(f"a tensor of type {one_line(entry.get('dtype'), 40)}"), (first, end)
    shape = check_shape(entry.get("shape"))
    if math.prod(shape) * dtype.itemsize != end - first:
        raise _broken(f"tensor '{shown}' has other bytes than its shape and type need")
    source = Stored(path, start + first, end - first, swap=turned(dtype, True))
    return TensorNote(source, dtype, 0, shape, contiguous(shape)), (first, end)


def _check_spans(spans: list[tuple[int, int]], room: int) -> None:
    """Refuse places that overlap or leave bytes over."""
    end = 0
    for first, last in spans:
        if first != end:
            raise _broken("its tensors overlap or leave gaps")
        end = last
    if end != room:
        raise _broken(f"it has {room - end} bytes more than its tensors")
