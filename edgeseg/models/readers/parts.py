"""What a tree read from a checkpoint is made of besides plain values: notes of tensors, and stand-ins without powers.

`Stored` are bytes in the file, `Kept` are bytes that came with a pickle. `TensorNote` and `ArrayNote` say how they
become a tensor; everything is checked when the note is made, so that `tensor` only reads.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeseg.models.readers.refusals import UnreadableError, damaged
from edgeseg.text import one_line

__all__ = [
    "ArrayNote",
    "Inert",
    "Name",
    "Stored",
    "TensorNote",
    "Unsupported",
    "Value",
    "check_shape",
    "check_strides",
    "contiguous",
    "last_index",
    "turned",
]

_LARGEST_SIDE = 1 << 31
_LARGEST_RANK = 32
_CHUNK = 1 << 20


class Inert:
    """Stands where a file has an object of a class that is not built; holds the class's name and nothing else."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Name:
    """A name that a pickle says: what it stands for is neither imported nor looked at."""

    __slots__ = ("module", "word")

    def __init__(self, module: str, word: str) -> None:
        self.module, self.word = module, word

    @property
    def name(self) -> str:
        """The whole name, in one line."""
        return one_line(f"{self.module}.{self.word}", 100)


class Unsupported:
    """Stands where a file has a tensor that edgeseg does not take; an error only where that tensor is wanted.

    Args:
        kind: In words, such as ``"a quantised tensor"``.
    """

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind


class Stored:
    """Bytes in a file, read when first asked for, once.

    Args:
        path: Of the file.
        start: Of the bytes in it; None until a later part of the file gives it.
        size: Of the bytes as read.
        packed: Of the bytes in the file where they are deflated.
        checksum: CRC-32 of the bytes as read, where the file has one.
        swap: Bytes of a number that stand in the other order than this machine's; 1 where nothing is turned.
    """

    def __init__(
        self,
        path: Path,
        start: int | None,
        size: int,
        *,
        packed: int | None = None,
        checksum: int = 0,
        swap: int = 1,
    ) -> None:
        self.path, self.start, self.size, self.packed, self.checksum = path, start, size, packed, checksum
        self.swap = swap
        self._bytes: Tensor | None = None

    def read(self) -> Tensor:
        """Return the bytes, shape (size,), uint8.

        Raises:
            UnreadableError: They are not all there, or are not those that were written.
        """
        if self._bytes is None:
            made = self._inflate() if self.packed is not None else self._copy()
            if self.checksum and zlib.crc32(made.numpy().data) != self.checksum:
                raise damaged("the checksum of a tensor's bytes is another one")
            if self.swap > 1:
                made.numpy().view(f"u{self.swap}").byteswap(inplace=True)
            self._bytes = made
        return self._bytes

    def _start(self) -> int:
        if self.start is None:
            raise damaged("a tensor has no bytes")
        return self.start

    def _copy(self) -> Tensor:
        made = _empty(self.size)
        with self.path.open("rb") as stream:
            stream.seek(self._start())
            if stream.readinto(made.numpy().data) != self.size:
                raise damaged("it ends inside a tensor")
        return made

    def _inflate(self) -> Tensor:
        made, filled, left = _empty(self.size), 0, self.packed or 0
        into, unpacker = made.numpy(), zlib.decompressobj(-15)
        with self.path.open("rb") as stream:
            stream.seek(self._start())
            while not unpacker.eof:
                waiting = unpacker.unconsumed_tail or stream.read(min(left, _CHUNK))
                left -= 0 if unpacker.unconsumed_tail else len(waiting)
                try:
                    piece = unpacker.decompress(waiting, _CHUNK)
                except zlib.error as error:
                    raise damaged(error) from error
                if filled + len(piece) > self.size or not (piece or waiting):
                    break
                into[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                filled += len(piece)
        if not unpacker.eof or filled != self.size:
            raise damaged("a compressed part has another size than it states")
        return made


def _empty(size: int) -> Tensor:
    try:
        return torch.empty(size, dtype=torch.uint8)
    except RuntimeError as error:
        raise UnreadableError(
            f"needs {size / 1e9:.1f} GB of memory for one tensor, which this machine does not give",
            "use a machine with more memory",
        ) from error


@dataclass(frozen=True, eq=False)
class TensorNote:
    """A tensor over stored bytes.

    Attributes:
        source: The bytes; tensors that share them share memory.
        dtype: Of the values.
        offset: Of the first value, in values.
        size: Shape.
        stride: In values.
        conjugated: The values are the conjugates of what is stored.
        negated: The values are the negatives of what is stored.
        cast: Type that the tensor is turned into, where it is another.
    """

    source: Stored
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    conjugated: bool = False
    negated: bool = False
    cast: torch.dtype | None = None

    def tensor(self) -> Tensor:
        """Read it, with the strides stored.

        Raises:
            UnreadableError: The bytes are not all there.
        """
        made = torch.empty(0, dtype=self.dtype)
        made.set_(self.source.read().untyped_storage(), self.offset, self.size, self.stride)
        made = made.conj() if self.conjugated else made
        made = torch.ops.aten._neg_view(made) if self.negated else made
        return made if self.cast is None else made.to(self.cast)

    @property
    def kept(self) -> int:
        """Bytes of the pickle that it holds: none."""
        return 0


@dataclass(eq=False)
class ArrayNote:
    """A numpy array whose bytes came with the pickle.

    Attributes:
        data: The bytes.
        number: numpy's type string, with its byte order.
        shape: Of the array.
        fortran: The first axis is the fastest.
        seen_as: Torch type whose bits the values are, where numpy has no name for it.
        cast: Torch type it is turned into, where it is another.
    """

    data: bytes | bytearray
    number: str
    shape: tuple[int, ...]
    fortran: bool = False
    seen_as: torch.dtype | None = None
    cast: torch.dtype | None = None

    def tensor(self) -> Tensor:
        """Return a tensor of the machine's byte order, first axis slowest; over the bytes themselves where possible."""
        flat = np.frombuffer(self.data, dtype=np.dtype(self.number))
        array = flat.reshape(self.shape, order="F" if self.fortran else "C")
        ready = isinstance(self.data, bytearray) and array.dtype.isnative and array.flags.c_contiguous
        made = torch.from_numpy(array if ready else np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
        made = made if self.seen_as is None else made.view(self.seen_as)
        return made if self.cast is None else made.to(self.cast)

    @property
    def kept(self) -> int:
        """Bytes of the pickle that it holds."""
        return len(self.data)


Value = TensorNote | ArrayNote
"""What becomes a tensor."""


def check_shape(shape: Any) -> tuple[int, ...]:
    """Return the shape as whole numbers, not negative, of at most 32 axes.

    Raises:
        UnreadableError: It is none.
    """
    if not isinstance(shape, (tuple, list)) or len(shape) > _LARGEST_RANK:
        raise damaged("a tensor's shape is none")
    if not all(type(side) is int and 0 <= side < _LARGEST_SIDE for side in shape):
        raise damaged("a tensor has sides that cannot be")
    return tuple(shape)


def check_strides(shape: Sequence[int], stride: Any) -> tuple[int, ...]:
    """Return the strides as whole numbers, one per axis, not negative.

    Raises:
        UnreadableError: They are none.
    """
    if not isinstance(stride, (tuple, list)) or len(stride) != len(shape):
        raise damaged("a tensor's strides are none")
    if not all(type(step) is int and 0 <= step < 1 << 62 for step in stride):
        raise damaged("a tensor has strides that cannot be")
    return tuple(stride)


def last_index(shape: Sequence[int], stride: Sequence[int]) -> int:
    """Return the index of the last value, from the first one; -1 where there are no values."""
    return -1 if 0 in shape else sum((side - 1) * step for side, step in zip(shape, stride, strict=True))


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a tensor that lies without gaps, first axis slowest."""
    return tuple(math.prod(max(1, side) for side in shape[axis + 1 :]) for axis in range(len(shape)))


def turned(dtype: torch.dtype, little: bool) -> int:
    """Return the bytes per number that must be turned round for this machine: 1 where nothing is."""
    if little == (sys.byteorder == "little"):
        return 1
    return dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
