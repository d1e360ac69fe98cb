"""Context guided blocks (CGNet, Wu et al., 2018, arXiv 1811.08201): local, surrounding and global context of a map.

A depthwise 3x3 and a dilated one side by side, BN and PReLU over both, then channel weights from the global average.
BN eps is 1e-3. `CGStyle` names the parts as one published implementation does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.models.layers.folding import split_bn
from edgeseg.models.layers.keys import put_module
from edgeseg.models.layers.prelu import EPS, Conv, ConvBNPReLU
from edgeseg.models.layers.squeeze import LinearExcite

__all__ = ["OFFICIAL", "CGStyle", "ContextGuided", "ContextGuidedDown"]


@dataclass(frozen=True)
class CGStyle:
    """Key names of one published implementation.

    Attributes:
        local: Depthwise 3x3.
        surround: Dilated depthwise 3x3.
        norm: Prefix of ``bn`` and the activation after the concatenation, in a block that does not stride.
        act: Activations.
        reduce: 1x1 of a strided block.
        weigh: Global channel weights.
        bare: Convolutions without BN are ``nn.Conv2d`` themselves instead of modules that hold one as ``conv``.
    """

    local: str = "F_loc"
    surround: str = "F_sur"
    norm: str = "bn_prelu."
    act: str = "act"
    reduce: str = "reduce"
    weigh: str = "F_glo"
    bare: bool = False

    def conv(self, cin: int, cout: int, kernel: int, *, dilation: int = 1, groups: int = 1) -> nn.Module:
        """A convolution without bias or BN."""
        plain = Conv(cin, cout, kernel, dilation=dilation, groups=groups)
        return plain.conv if self.bare else plain


OFFICIAL = CGStyle()


class _Context(nn.Module):
    """Local and surrounding context of a map of n channels, joined, normalised and activated: 2 n channels."""

    def __init__(self, n: int, dilation: int, norm: str, style: CGStyle) -> None:
        super().__init__()
        self.style, self.paths = style, (f"{norm}bn", f"{norm}{style.act}")
        self.add_module(style.local, style.conv(n, n, 3, groups=n))
        self.add_module(style.surround, style.conv(n, n, 3, dilation=dilation, groups=n))
        put_module(self, self.paths[0], nn.BatchNorm2d(2 * n, eps=EPS))
        put_module(self, self.paths[1], nn.PReLU(2 * n))

    def context(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.get_submodule(name)(x) for name in (self.style.local, self.style.surround)], dim=1)
        for path in self.paths:
            joined = self.get_submodule(path)(joined)
        return joined

    def fuse(self) -> None:
        """Fold each half of the BN into its depthwise convolution."""
        from edgeseg.export.fusion import fold_bn

        bn = self.get_submodule(self.paths[0])
        if not isinstance(bn, nn.BatchNorm2d):
            return
        half = bn.num_features // 2
        leaf = "" if self.style.bare else ".conv"
        for name, part in zip((self.style.local, self.style.surround), split_bn(bn, (half, half)), strict=True):
            conv = self.get_submodule(name + leaf)
            if isinstance(conv, nn.Conv2d):
                self.set_submodule(name + leaf, fold_bn(conv, part))
        self.set_submodule(self.paths[0], nn.Identity())


class ContextGuided(_Context):
    """CG block: 1x1 to half the width, context, global weights, plus the input.

    Args:
        channels: Of the map.
        dilation: Of the surrounding context.
        reduction: Of the global weights.
        style: Key names.
    """

    def __init__(self, channels: int, dilation: int, reduction: int, *, style: CGStyle = OFFICIAL) -> None:
        super().__init__(channels // 2, dilation, style.norm, style)
        self.conv1x1 = ConvBNPReLU(channels, channels // 2, 1, act=style.act)
        self.add_module(style.weigh, LinearExcite(channels, reduction=reduction))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to the same shape."""
        y: Tensor = self.get_submodule(self.style.weigh)(self.context(self.conv1x1(x)))
        return x + y


class ContextGuidedDown(_Context):
    """Strided CG block: 3x3 with stride 2, context, 1x1, global weights.

    Args:
        cin: Input channels.
        cout: Output channels.
        dilation: Of the surrounding context.
        reduction: Of the global weights.
        style: Key names.
    """

    def __init__(self, cin: int, cout: int, dilation: int, reduction: int, *, style: CGStyle = OFFICIAL) -> None:
        super().__init__(cout, dilation, "", style)
        self.conv1x1 = ConvBNPReLU(cin, cout, 3, stride=2, act=style.act)
        self.add_module(style.reduce, style.conv(2 * cout, cout, 1))
        self.add_module(style.weigh, LinearExcite(cout, reduction=reduction))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, cin, H, W) to (N, cout, H / 2, W / 2)."""
        reduced = self.get_submodule(self.style.reduce)(self.context(self.conv1x1(x)))
        y: Tensor = self.get_submodule(self.style.weigh)(reduced)
        return y
