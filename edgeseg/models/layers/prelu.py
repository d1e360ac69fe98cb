"""The blocks of the ESPNet line (ESPNet, SINet, ExtremeC3Net, C3Net): convolution, BN, PReLU in three combinations.

Published keys are ``conv``, ``bn``, ``act``; BN eps is 1e-3 where the published code does not say otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from torch import Tensor, nn

from edgeseg.models.layers.folding import fold_bn_pair

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["EPS", "BNPReLU", "Conv", "ConvBN", "ConvBNOptions", "ConvBNPReLU", "ConvOptions", "as_pair"]

EPS = 1e-3
"""BN eps of the ESPNet line."""


def as_pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a kernel given as one number or two."""
    return (value, value) if isinstance(value, int) else value


class ConvOptions(TypedDict, total=False):
    """Options of `Conv`."""

    stride: int
    dilation: int
    groups: int


class ConvBNOptions(ConvOptions, total=False):
    """Options of `ConvBN`."""

    eps: float


class Conv(nn.Module):
    """Convolution with "same" zero padding and no bias ("C").

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Odd kernel size, or (height, width).
        stride: Of both axes.
        dilation: Of both axes; the padding grows with it.
        groups: As in ``nn.Conv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        height, width = as_pair(kernel)
        pad = (dilation * (height // 2), dilation * (width // 2))
        self.conv = nn.Conv2d(in_channels, out_channels, (height, width), stride, pad, dilation, groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps (N, in_channels, H, W)."""
        y: Tensor = self.conv(x)
        return y


class BNPReLU(nn.Module):
    """BN and a PReLU with one slope per channel ("BR"), for sums and concatenations that no convolution precedes."""

    def __init__(self, channels: int, *, eps: float = EPS) -> None:
        super().__init__()
        self.bn: nn.Module = nn.BatchNorm2d(channels, eps=eps)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and activate maps (N, C, H, W)."""
        y: Tensor = self.act(self.bn(x))
        return y


class ConvBN(Conv):
    """Convolution, BN ("CB"). Arguments as `Conv`, and the BN's `eps`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        *,
        eps: float = EPS,
        **options: Unpack[ConvOptions],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, **options)
        self.bn = nn.BatchNorm2d(out_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise maps (N, in_channels, H, W)."""
        y: Tensor = self.bn(self.conv(x))
        return y

    def fuse(self) -> None:
        """Fold the BN into the convolution."""
        fold_bn_pair(self, "conv", "bn")


class ConvBNPReLU(ConvBN):
    """Convolution, BN, PReLU ("CBR"). Arguments as `ConvBN`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int | tuple[int, int], **options: Unpack[ConvBNOptions]
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, **options)
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise and activate maps (N, in_channels, H, W)."""
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y
