"""Channel shuffle (ShuffleNet, Zhang et al., CVPR 2018, arXiv 1707.01083)."""

from __future__ import annotations

from torch import Tensor

__all__ = ["channel_shuffle"]


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """View the channels of (N, C, H, W) as (groups, C / groups), transpose, flatten back."""
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)
