"""Context guided blocks (CGNet, Wu et al., 2018, arXiv 1811.08201): local, surrounding and global context of a map.

A depthwise 3x3 and a dilated one side by side, BN and PReLU over both, then channel weights from the global average.
BN eps is 1e-3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.layers.folding import fold_bn, split_bn
from edgeseg.models.layers.keys import put_module
from edgeseg.models.layers.prelu import EPS, Conv, ConvBNPReLU
from edgeseg.models.layers.squeeze import LinearExcite

__all__ = ["ContextGuided", "ContextGuidedDown"]


class _Context(nn.Module):
    """Local and surrounding context of a map of n channels, joined, normalised and activated: 2 n channels."""

    def __init__(self, n: int, dilation: int, norm: str = "") -> None:
        super().__init__()
        self.paths = (f"{norm}bn", f"{norm}act")
        self.F_loc = Conv(n, n, 3, groups=n)
        self.F_sur = Conv(n, n, 3, dilation=dilation, groups=n)
        put_module(self, self.paths[0], nn.BatchNorm2d(2 * n, eps=EPS))
        put_module(self, self.paths[1], nn.PReLU(2 * n))

    def context(self, x: Tensor) -> Tensor:
        joined = torch.cat((self.F_loc(x), self.F_sur(x)), dim=1)
        for path in self.paths:
            joined = self.get_submodule(path)(joined)
        return joined

    def fuse(self) -> None:
        """Fold each half of the BN into its depthwise convolution."""
        bn = self.get_submodule(self.paths[0])
        if not isinstance(bn, nn.BatchNorm2d):
            return
        half = bn.num_features // 2
        for owner, part in zip((self.F_loc, self.F_sur), split_bn(bn, (half, half)), strict=True):
            owner.set_submodule("conv", fold_bn(owner.conv, part))
        self.set_submodule(self.paths[0], nn.Identity())


class ContextGuided(_Context):
    """CG block: 1x1 to half the width, context, global weights, plus the input.

    Args:
        channels: Of the map.
        dilation: Of the surrounding context.
        reduction: Of the global weights.
    """

    def __init__(self, channels: int, dilation: int, reduction: int) -> None:
        super().__init__(channels // 2, dilation, "bn_prelu.")
        self.conv1x1 = ConvBNPReLU(channels, channels // 2, 1)
        self.F_glo = LinearExcite(channels, reduction=reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        y: Tensor = self.F_glo(self.context(self.conv1x1(x)))
        return x + y


class ContextGuidedDown(_Context):
    """Strided CG block: 3x3 with stride 2, context, 1x1, global weights.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        dilation: Of the surrounding context.
        reduction: Of the global weights.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int, reduction: int) -> None:
        super().__init__(out_channels, dilation)
        self.conv1x1 = ConvBNPReLU(in_channels, out_channels, 3, stride=2)
        self.reduce = Conv(2 * out_channels, out_channels, 1)
        self.F_glo = LinearExcite(out_channels, reduction=reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / 2, W / 2)."""
        y: Tensor = self.F_glo(self.reduce(self.context(self.conv1x1(x))))
        return y
