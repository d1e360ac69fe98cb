"""Pyramid pooling (PSPNet, Zhao et al., CVPR 2017, arXiv 1612.01105)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from edgeseg.models.layers.pooling import adaptive_avg_pool
from edgeseg.models.layers.resize import expand_like, resize_like

__all__ = ["BINS", "pyramid_maps"]

BINS = (1, 2, 3, 6)
"""Bins per side of the four levels."""


def pyramid_maps(
    x: Tensor, convs: Iterable[nn.Module], *, align_corners: bool, bins: tuple[int, ...] = BINS
) -> list[Tensor]:
    """Average over each number of bins per side, convolve, and resize back to the size of `x`.

    Args:
        x: Maps (N, C, H, W).
        convs: One module per level.
        align_corners: Of the resizes.
        bins: Per side, one number per level.

    Returns:
        One map (N, c, H, W) per level.
    """
    maps = []
    for n, conv in zip(bins, convs, strict=True):
        y = conv(adaptive_avg_pool(x, (n, n)))
        maps.append(expand_like(y, x) if n == 1 else resize_like(y, x, align_corners=align_corners))
    return maps
