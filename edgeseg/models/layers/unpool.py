"""2x2 max pooling that remembers its places, and unpooling to them, without indices.

TensorRT takes no MaxPool with indices. The four pixels of every window are four strided slices; where each equals the
maximum, and none before it in row order does, is a mask. Unpooling multiplies by the four masks and interleaves: the
same numbers as ``max_pool2d(return_indices=True)`` and ``max_unpool2d``, ties included.

Where an image is flat, the pixels of a window are equal but for rounding, which differs from engine to engine, and a
place that moves changes the logits. So values that differ by rounding alone count as equal.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["max_pool_places", "max_unpool"]

_ROUNDING = 32
"""Relative differences up to so many units of rounding are ties."""


def max_pool_places(x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Pool 2x2 with stride 2 and keep the places.

    Args:
        x: Map (N, C, H, W); the last row or column of an odd size is left out.

    Returns:
        The pooled map (N, C, H // 2, W // 2), and four masks of 0 and 1 of the same shape in row order, of which
        exactly one is 1.
    """
    h, w = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    phases = [x[..., row:h:2, column:w:2] for row in (0, 1) for column in (0, 1)]
    pooled = torch.maximum(torch.maximum(phases[0], phases[1]), torch.maximum(phases[2], phases[3]))
    least = pooled - pooled.abs() * (_ROUNDING * torch.finfo(x.dtype).eps)
    masks: list[Tensor] = []
    free = torch.ones_like(pooled)
    for phase in phases[:3]:
        masks.append((phase >= least).to(x.dtype) * free)
        free = free - masks[-1]
    return pooled, [*masks, free]


def max_unpool(x: Tensor, masks: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Put every value to its place of `max_pool_places`, zeros elsewhere.

    Args:
        x: Map (N, C, h, w).
        masks: From `max_pool_places`.
        size: Height and width of the map that was pooled.

    Returns:
        (N, C, *size).
    """
    n, c, h, w = x.shape
    planes = torch.stack([x * mask for mask in masks], dim=2).reshape(n, 4 * c, h, w)
    full = F.pixel_shuffle(planes, 2)
    below, right = size[0] - 2 * h, size[1] - 2 * w
    return F.pad(full, (0, right, 0, below)) if below or right else full
