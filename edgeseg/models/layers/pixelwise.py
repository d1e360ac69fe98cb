"""A transformer's linear layers, norms and position convolutions on maps (N, C, H, W), without tokens in between.

The weights have the shapes of ``nn.Linear`` and ``nn.LayerNorm``, as in published state dicts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.layers.folding import linear_to_conv

__all__ = ["ChannelNorm", "PixelLinear", "ResidualDepthwise", "fold_norm"]


class PixelLinear(nn.Linear):
    """A linear layer at every pixel."""

    def forward(self, input: Tensor) -> Tensor:
        """Turn maps (N, in, H, W) into (N, out, H, W)."""
        return F.conv2d(input, self.weight[:, :, None, None], self.bias)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of every pixel's channel vector; `plain` once its scale and shift are folded away."""

    plain = False

    def forward(self, input: Tensor) -> Tensor:
        """Normalise maps (N, C, H, W)."""
        centred = input - input.mean(dim=1, keepdim=True)
        y = centred * torch.rsqrt((centred * centred).mean(dim=1, keepdim=True) + self.eps)
        return y if self.plain else y * self.weight[:, None, None] + self.bias[:, None, None]


class ResidualDepthwise(nn.Module):
    """The input plus a depthwise 3x3 of it, with bias.

    Args:
        channels: Of the map.
        name: Attribute name of the convolution, as in the published state dict.
    """

    def __init__(self, channels: int, *, name: str) -> None:
        super().__init__()
        self.name, self.add = name, True
        self.add_module(name, nn.Conv2d(channels, channels, 3, 1, 1, groups=channels))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        y: Tensor = self.get_submodule(self.name)(x)
        return x + y if self.add else y

    def fuse(self) -> None:
        """Put the addition into the middle of the kernel."""
        if self.add:
            with torch.no_grad():
                self.get_parameter(f"{self.name}.weight")[:, :, 1, 1] += 1.0
            self.add = False


def fold_norm(owner: nn.Module, norm: str, linear: str) -> None:
    """Make a `PixelLinear` a 1x1 convolution that takes over the scale and shift of the norm before it; exact.

    Args:
        owner: Module that runs the one directly after the other.
        norm: Dotted path of a `ChannelNorm`.
        linear: Dotted path of the `PixelLinear`, which has a bias. Nothing happens where it is a convolution by now.
    """
    first, second = owner.get_submodule(norm), owner.get_submodule(linear)
    if not isinstance(first, ChannelNorm) or not isinstance(second, nn.Linear):
        return
    conv = linear_to_conv(second)
    with torch.no_grad():
        conv.bias = nn.Parameter(second.bias + second.weight @ first.bias)
        conv.weight.mul_(first.weight[None, :, None, None])
    first.plain = True
    owner.set_submodule(linear, conv)
