"""What a network returns, and where in it the logits are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from edgeseg.errors import ExportError

__all__ = ["join_path", "logits_at", "tensors_in"]

_DEEPEST = 8
"""Levels of nesting that are looked through; an object may hold itself."""


def tensors_in(output: object) -> dict[str, Tensor]:
    """List every tensor in what a network returns by its path; a tensor alone has the path ``""``.

    Mappings, named tuples, dataclasses and objects are looked through by key, field and attribute, sequences by index.

    Example:
        >>> import torch
        >>> x = torch.zeros(1)
        >>> list(tensors_in({"out": x, "aux": [x, x], "loss": 0.5}))
        ['out', 'aux.0', 'aux.1']
    """
    return dict(_walk(output, "", _DEEPEST))


def join_path(first: str, then: object) -> str:
    """Put one more key, field or index behind a path."""
    return f"{first}.{then}" if first else str(then)


def logits_at(output: object, take: str = "") -> Tensor:
    """Give the logits in what a network returns.

    A classifier's (N, classes) becomes (N, classes, 1, 1): one label for the whole picture.

    Args:
        output: What the network returned.
        take: Path of the logits in it, as in `tensors_in`; empty where it is or holds one tensor alone.

    Raises:
        ExportError: There is no such tensor, or it is not floating-point (N, C, h, w).
    """
    tensors = {"": output} if isinstance(output, Tensor) and not take else tensors_in(output)
    if not take and len(tensors) == 1:
        logits = next(iter(tensors.values()))
    elif take in tensors:
        logits = tensors[take]
    else:
        raise ExportError(_missing(output, take, tensors))
    if not logits.is_floating_point():
        raise ExportError(f"the network returned {logits.dtype}; expected floating-point logits, before any argmax")
    if logits.ndim == 2:
        return logits[:, :, None, None]
    if logits.ndim != 4:
        raise ExportError(_not_four(logits))
    return logits


def _missing(output: object, take: str, tensors: Mapping[str, Tensor]) -> str:
    expected = "expected logits (N, classes, height, width)"
    if not tensors:
        return f"the network returned {type(output).__name__} without a tensor in it; {expected}"
    if not take:
        return f"the network returned {len(tensors)} tensors ({', '.join(tensors)}); {expected} alone, or their path"
    listed = ", ".join(path or "a tensor alone" for path in tensors)
    return f"the network returned no tensor '{take}'; it returned {listed}"


def _not_four(logits: Tensor) -> str:
    shape = tuple(logits.shape)
    hint = "; a single channel that was squeezed is kept by leaving out the squeeze" if logits.ndim == 3 else ""
    return f"the network returned {shape}; expected logits (N, classes, height, width){hint}"


def _walk(value: object, path: str, levels: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif levels:
        for key, part in _parts(value):
            yield from _walk(part, join_path(path, key), levels - 1)


def _parts(value: Any) -> Iterable[tuple[object, object]]:
    """Keys and values of a structure; nothing for what is none."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, (list, tuple)):
        return zip(getattr(value, "_fields", range(len(value))), value, strict=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(entry.name, getattr(value, entry.name, None)) for entry in dataclasses.fields(value)]
    if isinstance(value, type) or callable(value):
        return ()
    return [(name, part) for name, part in getattr(value, "__dict__", {}).items() if not name.startswith("_")]
