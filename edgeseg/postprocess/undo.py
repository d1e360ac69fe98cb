"""Undo a bilinear resize: the logits that a network's last resize enlarged, from what the network returned.

An export peels that resize off, and the postprocessing goes from the logits before it to the size wanted at once.
PyTorch's own module returns the enlarged logits. Enlarging loses nothing, so what they were made of can be solved for.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.postprocess.axes import F32, interpolation_bands
from edgeseg.specs import Size

__all__ = ["undo_resize"]


def undo_resize(logits: F32, size: Size, *, align_corners: bool) -> F32:
    """Solve for the logits that were enlarged bilinearly.

    Args:
        logits: float32 (..., H, W), as ``torch.nn.functional.interpolate`` enlarged them.
        size: Height x width of the logits before.
        align_corners: As in ``interpolate``.

    Returns:
        float32 (..., h, w), to a few roundings of float32.

    Raises:
        UsageError: They were not enlarged: `size` is larger than they are.

    Example:
        >>> undo_resize(np.array([[1.0, 2.0, 4.0, 5.0]], np.float32), (1, 2), align_corners=False).round(3).tolist()
        [[1.0, 5.0]]
    """
    height, width = logits.shape[-2:]
    if size[0] > height or size[1] > width:
        raise UsageError(f"logits of {height}x{width} were not enlarged from {size[0]}x{size[1]}; give a smaller size")
    rows, columns = _inverse(size[0], height, align_corners), _inverse(size[1], width, align_corners)
    before: F32 = (rows @ logits.astype(np.float64) @ columns.T).astype(np.float32)
    return before


@functools.lru_cache(maxsize=8)
def _inverse(n: int, out: int, align_corners: bool) -> NDArray[np.float64]:
    """The (n, out) matrix that leads back from `out` interpolated values to the `n` that they lie between."""
    ((_, inputs, matrix),) = interpolation_bands(n, out, align_corners, out)
    full = np.zeros((n, out))
    full[inputs] = matrix
    return np.asarray(np.linalg.pinv(full.T), np.float64)
