"""Spatial pyramid of dilated convolutions with hierarchical sums (ESPNet, Mehta et al., ECCV 2018, arXiv 1803.06815).

One map reduced to n channels goes through 3x3 convolutions of dilation 1, 2, 4, 8, 16. The outputs of the dilated ones
are summed step by step before the concatenation, which removes the gridding of large dilations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.layers.prelu import EPS, BNPReLU, Conv

__all__ = ["DILATIONS", "DownSampler", "ESPBlock", "ESPStyle", "hierarchical_sums"]

DILATIONS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class ESPStyle:
    """Key names and BN eps of one published implementation.

    Attributes:
        reduce: Name of the reducing convolution.
        branch: Name of a dilated convolution; ``{}`` stands for the dilation.
        bare: Convolutions are ``nn.Conv2d`` themselves instead of modules that hold one as ``conv``.
        eps: Of every BN.
    """

    reduce: str = "c1"
    branch: str = "d{}"
    bare: bool = False
    eps: float = EPS

    def conv(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, dilation: int = 1
    ) -> nn.Module:
        """Build a "same" convolution without bias."""
        wrapped = Conv(in_channels, out_channels, kernel, stride=stride, dilation=dilation)
        return wrapped.conv if self.bare else wrapped


OFFICIAL = ESPStyle()


def hierarchical_sums(x: Tensor, branches: Sequence[nn.Module], *, first: int = 1) -> Tensor:
    """Concatenate the branches' outputs, those after branch `first` as running sums that begin there.

    Args:
        x: Reduced map (N, n, H, W), read by every branch.
        branches: Convolutions in order of dilation.
        first: 1 in ESPNet, whose branch 0 stands alone; 0 in ESPNetv2.

    Returns:
        (N, sum of the branches' channels, H, W).
    """
    outputs: list[Tensor] = [branch(x) for branch in branches]
    for k in range(first + 1, len(outputs)):
        outputs[k] = outputs[k] + outputs[k - 1]
    return torch.cat(outputs, dim=1)


class _Pyramid(nn.Module):
    """Reduction and dilated convolutions; the undilated one takes the channels that division by five leaves."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, style: ESPStyle) -> None:
        super().__init__()
        n = out_channels // len(DILATIONS)
        if n < 1:
            raise UsageError(f"an ESP block of {out_channels} channels is too narrow for five branches; use 5 or more")
        n1 = out_channels - n * (len(DILATIONS) - 1)
        self.style = style
        self.add_module(style.reduce, style.conv(in_channels, n, kernel, stride=stride))
        for dilation in DILATIONS:
            branch = style.conv(n, n1 if dilation == 1 else n, 3, dilation=dilation)
            self.add_module(style.branch.format(dilation), branch)

    def pyramid(self, x: Tensor) -> Tensor:
        reduced = self.get_submodule(self.style.reduce)(x)
        return hierarchical_sums(reduced, [self.get_submodule(self.style.branch.format(d)) for d in DILATIONS])


class DownSampler(_Pyramid):
    """Pyramid behind a strided 3x3 reduction, then BN and PReLU.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        style: Key names.
    """

    def __init__(self, in_channels: int, out_channels: int, *, style: ESPStyle = OFFICIAL) -> None:
        super().__init__(in_channels, out_channels, 3, 2, style)
        self.bn = nn.BatchNorm2d(out_channels, eps=style.eps)
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / 2, W / 2)."""
        y: Tensor = self.act(self.bn(self.pyramid(x)))
        return y


class ESPBlock(_Pyramid):
    """Pyramid behind a 1x1 reduction, plus the input where `residual`, then BN and PReLU.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        residual: Needs in_channels == out_channels.
        style: Key names.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, residual: bool = True, style: ESPStyle = OFFICIAL
    ) -> None:
        super().__init__(in_channels, out_channels, 1, 1, style)
        self.residual = residual
        self.bn = BNPReLU(out_channels, eps=style.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        y = self.pyramid(x)
        out: Tensor = self.bn(x + y if self.residual else y)
        return out
