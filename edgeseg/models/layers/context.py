"""Pyramid pooling over large windows: DAPPM (DDRNet, Hong et al., 2021, arXiv 2101.06085) and PAPPM (PIDNet, 2023).

Everything is pre-activation: BN, ReLU, convolution without bias. Average pools count the zero padding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.layers.pooling import GlobalAvgPool
from edgeseg.models.layers.resize import resize_like

__all__ = ["DAPPM", "PAPPM", "bn_relu_conv"]


def bn_relu_conv(in_channels: int, out_channels: int, kernel: int, *, groups: int = 1) -> tuple[nn.Module, ...]:
    """Build BN, ReLU and a "same" convolution without bias, to be put into a Sequential."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, 1, kernel // 2, groups=groups, bias=False)
    return nn.BatchNorm2d(in_channels), nn.ReLU(), conv


class _Pooling(nn.Module):
    """The parts that DAPPM and PAPPM share: ``scale0`` .. ``scale4``, ``compression``, ``shortcut``."""

    def __init__(self, in_channels: int, inner: int, out_channels: int) -> None:
        super().__init__()
        pools = (nn.AvgPool2d(5, 2, 2), nn.AvgPool2d(9, 4, 4), nn.AvgPool2d(17, 8, 8), GlobalAvgPool())
        self.scale0 = nn.Sequential(*bn_relu_conv(in_channels, inner, 1))
        for k, pool in enumerate(pools):
            self.add_module(f"scale{k + 1}", nn.Sequential(pool, *bn_relu_conv(in_channels, inner, 1)))
        self.compression = nn.Sequential(*bn_relu_conv(5 * inner, out_channels, 1))
        self.shortcut = nn.Sequential(*bn_relu_conv(in_channels, out_channels, 1))

    def pooled(self, x: Tensor) -> list[Tensor]:
        """Compute the four pooled maps, reduced and resized back to the size of `x`."""
        return [resize_like(self.get_submodule(f"scale{k}")(x), x) for k in (1, 2, 3, 4)]


class DAPPM(_Pooling):
    """Deep aggregation: each scale is added to the one before and convolved, one after the other.

    Args:
        in_channels: Input channels.
        inner: Channels per scale.
        out_channels: Output channels.
    """

    def __init__(self, in_channels: int, inner: int, out_channels: int) -> None:
        super().__init__(in_channels, inner, out_channels)
        for k in (1, 2, 3, 4):
            self.add_module(f"process{k}", nn.Sequential(*bn_relu_conv(inner, inner, 3)))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        maps = [self.scale0(x)]
        for k, pooled in enumerate(self.pooled(x)):
            maps.append(self.get_submodule(f"process{k + 1}")(pooled + maps[-1]))
        y: Tensor = self.compression(torch.cat(maps, dim=1)) + self.shortcut(x)
        return y


class PAPPM(_Pooling):
    """Parallel aggregation: every scale is added to the first, and one grouped convolution serves all four.

    Args:
        in_channels: Input channels.
        inner: Channels per scale.
        out_channels: Output channels.
    """

    def __init__(self, in_channels: int, inner: int, out_channels: int) -> None:
        super().__init__(in_channels, inner, out_channels)
        self.scale_process = nn.Sequential(*bn_relu_conv(4 * inner, 4 * inner, 3, groups=4))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        first = self.scale0(x)
        scales = self.scale_process(torch.cat([pooled + first for pooled in self.pooled(x)], dim=1))
        y: Tensor = self.compression(torch.cat((first, scales), dim=1)) + self.shortcut(x)
        return y
