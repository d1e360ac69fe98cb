"""The blocks of the ESPNet line (ESPNet, SINet, ExtremeC3Net, C3Net): convolution, BN, PReLU in three combinations.

Published keys are ``conv``, ``bn``, ``act``; BN eps is 1e-3 where the published code does not say otherwise.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["EPS", "BNPReLU", "Conv", "ConvBN", "ConvBNPReLU", "as_pair"]

EPS = 1e-3
"""BN eps of the ESPNet line."""


def as_pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a kernel given as one number or two."""
    return (value, value) if isinstance(value, int) else value


class Conv(nn.Module):
    """Convolution with "same" zero padding and no bias ("C").

    Args:
        cin: Input channels.
        cout: Output channels.
        kernel: Odd kernel size, or (height, width).
        stride: Of both axes.
        dilation: Of both axes; the padding grows with it.
        groups: As in ``nn.Conv2d``.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        height, width = as_pair(kernel)
        pad = (dilation * (height // 2), dilation * (width // 2))
        self.conv = nn.Conv2d(cin, cout, (height, width), stride, pad, dilation, groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps (N, cin, H, W)."""
        y: Tensor = self.conv(x)
        return y


class BNPReLU(nn.Module):
    """BN and a PReLU with one slope per channel ("BR"), for sums and concatenations that no convolution precedes.

    `act` is the activation's key.
    """

    def __init__(self, channels: int, *, eps: float = EPS, act: str = "act") -> None:
        super().__init__()
        self.act_name = act
        self.bn: nn.Module = nn.BatchNorm2d(channels, eps=eps)
        self.add_module(act, nn.PReLU(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and activate maps (N, C, H, W)."""
        y: Tensor = self.get_submodule(self.act_name)(self.bn(x))
        return y


class ConvBN(Conv):
    """Convolution, BN ("CB"). Arguments as `Conv` without the dilation, and the BN's `eps`."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        eps: float = EPS,
    ) -> None:
        super().__init__(cin, cout, kernel, stride=stride, groups=groups)
        self.bn = nn.BatchNorm2d(cout, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise maps (N, cin, H, W)."""
        y: Tensor = self.bn(self.conv(x))
        return y

    def fuse(self) -> None:
        """Fold the BN into the convolution."""
        from edgeseg.export.fusion import fold_bn_pair

        fold_bn_pair(self, "conv", "bn")


class ConvBNPReLU(ConvBN):
    """Convolution, BN, PReLU ("CBR"). Arguments as `ConvBN`, and the activation's key `act`."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        eps: float = EPS,
        act: str = "act",
    ) -> None:
        super().__init__(cin, cout, kernel, stride=stride, groups=groups, eps=eps)
        self.act_name = act
        self.add_module(act, nn.PReLU(cout))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise and activate maps (N, cin, H, W)."""
        y: Tensor = self.get_submodule(self.act_name)(self.bn(self.conv(x)))
        return y
