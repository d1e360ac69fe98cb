"""Depthwise separable convolutions made of two blocks of a family's own."""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.models.layers.conv_bn import ConvBN

__all__ = ["SeparableConv", "separable_conv_bn"]


class SeparableConv(nn.Module):
    """A depthwise block and a 1x1 block under two names.

    Args:
        depthwise: Convolution of single channels, with what follows it.
        pointwise: 1x1 convolution, with what follows it.
        names: Keys of both.
    """

    def __init__(
        self,
        depthwise: nn.Module,
        pointwise: nn.Module,
        *,
        names: tuple[str, str] = ("depthwise_conv", "pointwise_conv"),
    ) -> None:
        super().__init__()
        self.names = names
        self.add_module(names[0], depthwise)
        self.add_module(names[1], pointwise)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / stride, W / stride)."""
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x


def separable_conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    inner_relu: bool = False,
) -> SeparableConv:
    """Build mmsegmentation's separable convolution: depthwise, BN, ReLU where `inner_relu`, 1x1, BN, ReLU."""
    depthwise = ConvBN(
        in_channels, in_channels, kernel, stride=stride, dilation=dilation, groups=in_channels, relu=inner_relu
    )
    return SeparableConv(depthwise, ConvBN(in_channels, out_channels, 1))
