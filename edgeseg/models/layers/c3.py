"""Concentrated-comprehensive convolutions (C3): ExtremeC3Net (Park et al., 2019, arXiv 1908.03093) and C3Net.

A dilated depthwise convolution is preceded by a long vertical and a long horizontal one, which see what it skips.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.layers.prelu import EPS, BNPReLU, Conv

__all__ = ["C3Block", "C3Module", "DownC3Module"]


class C3Block(nn.Module):
    """Depthwise convolutions that grow with `rate`, then 1x1; BN eps is 1e-5 here. Rate 1 has one 3x3 and no BN.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        rate: Dilation of the 3x3; the vertical and horizontal kernels have 2 rate - 1 taps.
    """

    def __init__(self, in_channels: int, out_channels: int, rate: int) -> None:
        super().__init__()

        def depthwise(kernel: tuple[int, int], dilation: int = 1) -> nn.Conv2d:
            pad = (dilation * (kernel[0] // 2), dilation * (kernel[1] // 2))
            return nn.Conv2d(in_channels, in_channels, kernel, 1, pad, dilation, groups=in_channels, bias=False)

        long = 2 * rate - 1
        concentrate: list[nn.Module] = []
        if rate > 1:
            concentrate = [
                depthwise((long, 1)),
                nn.BatchNorm2d(in_channels),
                nn.PReLU(in_channels),
                depthwise((1, long)),
                nn.BatchNorm2d(in_channels),
            ]
        self.conv = nn.Sequential(
            *concentrate, depthwise((3, 3), rate), nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        y: Tensor = self.conv(x)
        return y


class _Branches(nn.Module):
    """Reduction ``c1`` to n channels, then C3 blocks ``d1``, ``d2``, ... side by side; ``d1`` takes the remainder."""

    def __init__(self, in_channels: int, out_channels: int, rates: tuple[int, ...], kernel: int, stride: int) -> None:
        super().__init__()
        n = out_channels // len(rates)
        self.names = [f"d{k + 1}" for k in range(len(rates))]
        self.c1 = Conv(in_channels, n, kernel, stride=stride)
        for k, (name, rate) in enumerate(zip(self.names, rates, strict=True)):
            self.add_module(name, C3Block(n, n if k else out_channels - n * (len(rates) - 1), rate))

    def branches(self, x: Tensor) -> Tensor:
        x = self.c1(x)
        return torch.cat([self.get_submodule(name)(x) for name in self.names], dim=1)


class C3Module(_Branches):
    """C3 blocks behind a 1x1 reduction, plus the input where `add`, then BN and PReLU.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        rates: One C3 block per rate.
        add: Residual; needs in_channels == out_channels.
    """

    def __init__(self, in_channels: int, out_channels: int, rates: tuple[int, ...], *, add: bool = True) -> None:
        super().__init__(in_channels, out_channels, rates, 1, 1)
        self.add = add
        self.bn = BNPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        y = self.branches(x)
        out: Tensor = self.bn(x + y if self.add else y)
        return out


class DownC3Module(_Branches):
    """C3 blocks behind a strided 3x3 reduction, then BN and PReLU. Arguments as `C3Module`."""

    def __init__(self, in_channels: int, out_channels: int, rates: tuple[int, ...]) -> None:
        super().__init__(in_channels, out_channels, rates, 3, 2)
        self.bn = nn.BatchNorm2d(out_channels, eps=EPS)
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / 2, W / 2)."""
        y: Tensor = self.act(self.bn(self.branches(x)))
        return y
