"""Resizing with explicit sizes: constants in a fixed-size export, symbols in a dynamic one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Upsample", "expand_like", "repeat_like", "resize_bilinear", "resize_like", "upsample"]


def resize_bilinear(x: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Resize maps (N, C, h, w) to `size` = (H, W)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def resize_like(x: Tensor, other: Tensor, *, align_corners: bool = False) -> Tensor:
    """Resize `x` (N, C, h, w) to the height and width of `other`."""
    return resize_bilinear(x, (other.shape[-2], other.shape[-1]), align_corners=align_corners)


def upsample(x: Tensor, factor: int, *, align_corners: bool = False) -> Tensor:
    """Resize maps (N, C, h, w) to (N, C, factor * h, factor * w)."""
    return resize_bilinear(x, (x.shape[-2] * factor, x.shape[-1] * factor), align_corners=align_corners)


class Upsample(nn.Module):
    """`upsample` as a module.

    Args:
        factor: Of both axes.
        align_corners: Of the resize.
    """

    def __init__(self, factor: int, *, align_corners: bool = False) -> None:
        super().__init__()
        self.factor, self.align_corners = factor, align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, C, H, W) into (N, C, factor * H, factor * W)."""
        return upsample(x, self.factor, align_corners=self.align_corners)


def expand_like(x: Tensor, other: Tensor) -> Tensor:
    """Resize maps (N, C, 1, 1) to the height and width of `other`: every place has the one value."""
    return x.expand(-1, -1, other.shape[-2], other.shape[-1])


def repeat_like(x: Tensor, other: Tensor) -> Tensor:
    """Repeat the pixels of `x` (N, C, h, w), nearest first, up to the height and width of `other`."""
    return F.interpolate(x, size=(other.shape[-2], other.shape[-1]), mode="nearest")
