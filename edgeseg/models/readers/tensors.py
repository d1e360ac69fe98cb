"""PyTorch tensors in pickles, from what PyTorch writes: a storage, an offset, a shape and strides, all checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from edgeseg.models.readers import arrays
from edgeseg.models.readers.parts import (
    ArrayNote,
    Name,
    Stored,
    TensorNote,
    Unsupported,
    check_shape,
    check_strides,
    last_index,
)
from edgeseg.models.readers.refusals import damaged
from edgeseg.models.readers.stream import Stream

__all__ = ["BUILDERS", "UNWRAPPED", "Storage", "storage_type", "torch_type"]

UNWRAPPED = ("_rebuild_from_type_v2", "_rebuild_from_type")
"""Builders of tensor subclasses, whose tensor is what their inner call builds."""

_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128, "ComplexFloatStorage": torch.complex64, "UntypedStorage": torch.uint8,
}  # fmt: skip
_QUANTISED = {"QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1}
_TYPES = (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32",
    "uint64", "bool", "complex32", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
    "float8_e5m2fnuz", "float8_e8m0fnu",
)  # fmt: skip
_ALIASES = {"float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32"}


@dataclass(frozen=True)
class Storage:
    """Values outside of the pickle.

    Attributes:
        source: Their bytes.
        dtype: None for quantised ones.
        first: Index of the first value in `source`; of a view in old files it is not 0.
        count: Values.
        bound: Largest number of bytes a tensor over it may span: those of the file.
    """

    source: Stored
    dtype: torch.dtype | None
    first: int
    count: int
    bound: int


def storage_type(name: Name) -> tuple[torch.dtype | None, int]:
    """Return the type of a storage's values, None for quantised ones, and the bytes of one.

    Raises:
        UnreadableError: No storage that PyTorch has.
    """
    dtype = _STORAGES.get(name.word)
    if dtype is not None:
        return dtype, dtype.itemsize
    if name.word not in _QUANTISED:
        raise damaged(f"it names a storage {name.name} that PyTorch does not have")
    return None, _QUANTISED[name.word]


def torch_type(name: object) -> torch.dtype | None:
    """Return the type that a name such as ``torch.float8_e5m2`` stands for; None where it is none that is read."""
    word = getattr(name, "word", "")
    word = _ALIASES.get(word, word)
    dtype = getattr(torch, word, None) if getattr(name, "module", "") == "torch" and word in _TYPES else None
    return dtype if isinstance(dtype, torch.dtype) else None


def _tensor(arguments: tuple[Any, ...], stream: Stream) -> object:
    """Return ``(storage, offset, shape, strides, gradient, hooks, metadata)``; older files end after the strides."""
    if len(arguments) < 4:
        raise damaged("a tensor's parts are none")
    metadata = arguments[6] if len(arguments) > 6 else None
    return _note(arguments[:4], None, metadata)


def _typed_tensor(arguments: tuple[Any, ...], stream: Stream) -> object:
    """Return the same with the type after the hooks, for types that have no storage of their own."""
    if len(arguments) < 7:
        raise damaged("a tensor's parts are none")
    dtype = torch_type(arguments[6])
    if dtype is None:
        return Unsupported("a tensor of a type that edgeseg does not read")
    return _note(arguments[:4], dtype, arguments[7] if len(arguments) > 7 else None)


def _note(parts: tuple[Any, ...], dtype: torch.dtype | None, metadata: object) -> TensorNote | Unsupported:
    storage, offset, size, stride = parts
    if isinstance(storage, Unsupported):
        return storage
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        raise damaged("a tensor's storage is none")
    if storage.dtype is None:
        return Unsupported("a quantised tensor")
    own: torch.dtype = storage.dtype
    length, first = storage.count * own.itemsize, storage.first * own.itemsize
    seen: torch.dtype = own if dtype is None else dtype
    shape = check_shape(size)
    steps = check_strides(shape, stride)
    end = (offset + last_index(shape, steps) + 1) * seen.itemsize
    if end > length or first % seen.itemsize:
        raise damaged(f"a tensor of shape {list(shape)} reaches beyond its storage")
    if math.prod(shape) * seen.itemsize > storage.bound:
        raise damaged(f"a tensor of shape {list(shape)} is larger than the file")
    bits = metadata if isinstance(metadata, dict) else {}
    return TensorNote(
        storage.source,
        seen,
        first // seen.itemsize + offset,
        shape,
        steps,
        conjugated=bool(bits.get("conj")) and seen.is_complex,
        negated=bool(bits.get("neg")),
    )


def _first(arguments: tuple[Any, ...], stream: Stream) -> object:
    """Return the tensor of a parameter."""
    return arguments[0] if arguments else Unsupported("a parameter without values")


def _moved(arguments: tuple[Any, ...], stream: Stream) -> object:
    """Return a tensor of another device, kept as numpy array or CPU tensor: ``(values, type, device, gradient)``."""
    if len(arguments) < 2:
        raise damaged("a tensor's parts are none")
    values, dtype = arguments[0], torch_type(arguments[1])
    values = values.value if isinstance(values, arrays.Draft) else values
    if dtype is None or not isinstance(values, (TensorNote, ArrayNote)):
        return Unsupported("a tensor of another device")
    return replace(values, cast=dtype)


def _unsupported(kind: str) -> Callable[[tuple[Any, ...], Stream], object]:
    return lambda arguments, stream: Unsupported(kind)


BUILDERS: dict[str, Callable[[tuple[Any, ...], Stream], object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _moved,
    "torch._utils._rebuild_xla_tensor": _moved,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _moved,
    "torch._utils._rebuild_qtensor": _unsupported("a quantised tensor"),
    "torch._utils._rebuild_sparse_tensor": _unsupported("a sparse tensor"),
    "torch._utils._rebuild_sparse_csr_tensor": _unsupported("a sparse tensor"),
    "torch._utils._rebuild_nested_tensor": _unsupported("a nested tensor"),
    "torch.nested._internal.nested_tensor._rebuild_njt": _unsupported("a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unsupported("a tensor without values"),
    "torch._utils._rebuild_wrapper_subclass": _unsupported("a tensor of a class of its own"),
    "torch.storage._load_from_bytes": _unsupported("a tensor pickled without torch.save"),
}
