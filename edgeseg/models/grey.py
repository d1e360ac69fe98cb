"""Grey of colour, for networks of one channel."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg.specs import GREY

__all__ = ["grey_of"]


def grey_of(rgb: Tensor) -> Tensor:
    """Make grey of colour: 0.299 R + 0.587 G + 0.114 B, not rounded.

    It is written so that equal channels stay exactly what they are, however an engine rounds.

    Args:
        rgb: float32 (N, 3, H, W).

    Returns:
        float32 (N, 1, H, W).

    Example:
        >>> grey_of(torch.full((1, 3, 1, 1), 77.0)).tolist()
        [[[[77.0]]]]
    """
    red, green, blue = torch.split(rgb, 1, dim=1)
    return green + GREY[0] * (red - green) + GREY[2] * (blue - green)
