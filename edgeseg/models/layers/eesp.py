"""Extremely efficient spatial pyramids (ESPNetv2, Mehta et al., CVPR 2019, arXiv 1811.11431) and what surrounds them.

A grouped 1x1 reduction, depthwise 3x3 of growing dilation summed step by step, BN and PReLU, a grouped 1x1 expansion.
PaddleSeg's blocks differ: PReLUs have one slope, dilations are 1 (its "same" padding resets them), strided convolutions
pad below and to the right only, and average pools leave the padding out of the divisor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.layers.esp import hierarchical_sums
from edgeseg.models.layers.paddleseg import PaddleBNPReLU, PaddleConv, pad_same
from edgeseg.models.layers.prelu import BNPReLU, Conv, ConvBN, ConvBNPReLU

__all__ = ["EESP", "OFFICIAL", "PADDLESEG", "DownEESP", "EESPStyle"]

EPS = 1e-5
"""BN eps of ESPNetv2."""


class PaddedDepthwise(nn.Conv2d):
    """Depthwise 3x3 with stride 2 and "same" padding."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, 2, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Turn maps (N, C, H, W) into (N, C, ceil(H / 2), ceil(W / 2))."""
        return super().forward(pad_same(input))


@dataclass(frozen=True)
class EESPStyle:
    """Key names and conventions of one published implementation.

    Attributes:
        reduce: Grouped reduction.
        branches: List of depthwise convolutions.
        merge: BN and PReLU after the concatenation.
        expand: Grouped expansion.
        act: Activation after the addition.
        image: The image's path into a strided block.
        down_act: Activation of a strided block.
        paddle: PaddleSeg's conventions (see the module) instead of the authors'.
    """

    reduce: str = "proj_1x1"
    branches: str = "spp_dw"
    merge: str = "br_after_cat"
    expand: str = "conv_1x1_exp"
    act: str = "module_act"
    image: str = "inp_reinf"
    down_act: str = "act"
    paddle: bool = False

    def conv_act(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> nn.Module:
        """Build a convolution, BN, PReLU ("CBR")."""
        if self.paddle:
            return PaddleConv(in_channels, out_channels, kernel, stride=stride, groups=groups, bias=False)
        return ConvBNPReLU(in_channels, out_channels, kernel, stride=stride, groups=groups, eps=EPS)

    def conv_norm(self, in_channels: int, out_channels: int, *, groups: int = 1) -> nn.Module:
        """Build 1x1, BN ("CB")."""
        if self.paddle:
            return PaddleConv(in_channels, out_channels, 1, groups=groups, bias=False, act="none")
        return ConvBN(in_channels, out_channels, 1, groups=groups, eps=EPS)

    def norm_act(self, channels: int) -> nn.Module:
        """Build BN, PReLU ("BR")."""
        return PaddleBNPReLU(channels) if self.paddle else BNPReLU(channels, eps=EPS)

    def prelu(self, channels: int) -> nn.Module:
        """Build PReLU, of one slope in PaddleSeg."""
        return nn.PReLU(1 if self.paddle else channels)

    def conv(self, in_channels: int, out_channels: int, kernel: int, *, groups: int = 1) -> nn.Module:
        """Build a convolution without bias or BN, padded to keep the size."""
        plain = Conv(in_channels, out_channels, kernel, groups=groups)
        return plain.conv if self.paddle else plain

    def depthwise(self, channels: int, *, stride: int, dilation: int) -> nn.Module:
        """Build a depthwise 3x3."""
        if not self.paddle:
            return Conv(channels, channels, 3, stride=stride, dilation=dilation, groups=channels)
        return PaddedDepthwise(channels) if stride == 2 else self.conv(channels, channels, 3, groups=channels)

    def pool(self, x: Tensor) -> Tensor:
        """Average 3x3 places with stride 2."""
        return F.avg_pool2d(x, 3, 2, 1, count_include_pad=not self.paddle)


OFFICIAL = EESPStyle()
PADDLESEG = EESPStyle(
    reduce="group_conv_in",
    branches="spp_modules",
    merge="bn_act",
    expand="group_conv_out",
    act="_act",
    image="shortcut_layer",
    down_act="_act",
    paddle=True,
)


class EESP(nn.Module):
    """EESP unit: pyramid, plus the input where shapes agree, then PReLU. Strided, it ends after the expansion.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        dilations: Of the four branches.
        stride: 1 or 2.
        style: Key names and conventions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dilations: tuple[int, ...],
        *,
        stride: int = 1,
        style: EESPStyle = OFFICIAL,
    ) -> None:
        super().__init__()
        k = len(dilations)
        n = out_channels // k
        self.style, self.add, self.strided = style, stride == 1 and in_channels == out_channels, stride > 1
        self.add_module(style.reduce, style.conv_act(in_channels, n, 1, groups=k))
        branches = nn.ModuleList(style.depthwise(n, stride=stride, dilation=d) for d in dilations)
        self.add_module(style.branches, branches)
        self.add_module(style.merge, style.norm_act(out_channels))
        self.add_module(style.expand, style.conv_norm(out_channels, out_channels, groups=k))
        self.add_module(style.act, style.prelu(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / stride, W / stride)."""
        style = self.style
        reduced = self.get_submodule(style.reduce)(x)
        sums = hierarchical_sums(reduced, list(self.get_submodule(style.branches).children()), first=0)
        y: Tensor = self.get_submodule(style.expand)(self.get_submodule(style.merge)(sums))
        if self.strided:
            return y
        y = self.get_submodule(style.act)(x + y if self.add else y)
        return y


class DownEESP(nn.Module):
    """Average pool and strided EESP side by side, plus the pooled image through two convolutions, then PReLU.

    Args:
        in_channels: Input channels, which the pool passes on.
        out_channels: Output channels.
        dilations: Of the EESP.
        style: Key names and conventions.
    """

    def __init__(
        self, in_channels: int, out_channels: int, dilations: tuple[int, ...], *, style: EESPStyle = OFFICIAL
    ) -> None:
        super().__init__()
        self.style = style
        self.eesp = EESP(in_channels, out_channels - in_channels, dilations, stride=2, style=style)
        self.add_module(style.image, nn.Sequential(style.conv_act(3, 3, 3), style.conv_norm(3, out_channels)))
        self.add_module(style.down_act, style.prelu(out_channels))

    def forward(self, x: Tensor, image: Tensor | None = None) -> Tensor:
        """Turn maps (N, in_channels, H, W), and the image at half of it, into (N, out_channels, H / 2, W / 2)."""
        y = torch.cat((self.style.pool(x), self.eesp(x)), dim=1)
        if image is not None:
            y = y + self.get_submodule(self.style.image)(image)
        out: Tensor = self.get_submodule(self.style.down_act)(y)
        return out
