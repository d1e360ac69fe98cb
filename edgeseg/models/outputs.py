"""What a network returns, and which part of it is the logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from edgeseg.errors import ExportError

__all__ = ["first_logits"]


def first_logits(output: object) -> Tensor:
    """The logits in what a network returns: the tensor itself, or the first value of a sequence or mapping.

    A classifier's (N, classes) becomes (N, classes, 1, 1): one label for the whole picture.

    Raises:
        ExportError: Something else, or a tensor that is not (N, C, h, w).
    """
    found: Any = output
    if isinstance(found, dict):
        found = next(iter(found.values()), None)
    elif isinstance(found, (list, tuple)):
        found = found[0] if found else None
    if isinstance(found, Tensor) and found.ndim == 2:
        return found[:, :, None, None]
    if not isinstance(found, Tensor) or found.ndim != 4:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
        raise ExportError(f"the network returned {shape}; expected logits (N, classes, height, width)")
    if not found.is_floating_point():
        raise ExportError(f"the network returned {found.dtype}; expected floating-point logits, before any argmax")
    return found
