"""PaddleSeg's convolution blocks under its key names: ``_conv``, ``_batch_norm``, ``_prelu.act_func``.

Its "same" padding pads a stride-2 3x3 below and to the right only where the size is even, and its average pools leave
the padding out of the divisor.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.separable import SeparableConv

__all__ = ["EPS", "PaddleBNPReLU", "PaddleConv", "PaddleSeparable", "SharedPReLU", "pad_same", "same_avg_pool"]

EPS = 1e-5
"""BN eps of PaddleSeg's blocks."""


def pad_same(x: Tensor, kernel: int = 3, stride: int = 2) -> Tensor:
    """Pad maps (N, C, H, W) with zeros so that a convolution gives the sizes rounded up; the odd zero lies after."""
    pads: list[int] = []
    for n in (x.shape[-1], x.shape[-2]):
        total = max((-(n // -stride) - 1) * stride + kernel - n, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def same_avg_pool(x: Tensor) -> Tensor:
    """Average 3x3 places with stride 2 and "same" padding; the padding does not count.

    Args:
        x: Maps (N, C, H, W).

    Returns:
        (N, C, ceil(H / 2), ceil(W / 2)).
    """
    inside = F.avg_pool2d(pad_same(torch.ones_like(x[:1, :1])), 3, 2)
    return F.avg_pool2d(pad_same(x), 3, 2) / inside


class SharedPReLU(nn.Module):
    """PReLU with one slope for all channels, under Paddle's key ``act_func``."""

    def __init__(self) -> None:
        super().__init__()
        self.act_func = nn.PReLU(1)

    def forward(self, x: Tensor) -> Tensor:
        """Activate maps of any shape."""
        y: Tensor = self.act_func(x)
        return y


class PaddleBNPReLU(nn.Module):
    """BN and a single-slope PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._batch_norm = nn.BatchNorm2d(channels, eps=EPS)
        self._prelu = SharedPReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and activate maps (N, channels, H, W)."""
        y: Tensor = self._prelu(self._batch_norm(x))
        return y


class PaddleConv(nn.Module):
    """Convolution, BN, activation.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Odd kernel size.
        stride: Of both axes.
        groups: As in ``nn.Conv2d``.
        bias: Of the convolution.
        act: Single-slope PReLU, ReLU, or none.
        same: Pad a strided convolution as `pad_same` does; else by half the kernel on every side.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        act: Literal["prelu", "relu", "none"] = "prelu",
        same: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.same = kernel, stride, same and stride > 1
        self._conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, 0 if self.same else kernel // 2, groups=groups, bias=bias
        )
        self._batch_norm = nn.BatchNorm2d(out_channels, eps=EPS)
        self.act = act
        if act == "prelu":
            self._prelu = SharedPReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / stride, W / stride)."""
        y: Tensor = self._batch_norm(self._conv(pad_same(x, self.kernel, self.stride) if self.same else x))
        if self.act == "prelu":
            y = self._prelu(y)
        return torch.relu(y) if self.act == "relu" else y

    def fuse(self) -> None:
        """Fold the BN into the convolution."""
        fold_bn_pair(self, "_conv", "_batch_norm")


class PaddleSeparable(SeparableConv):
    """Depthwise 3x3 and BN, then 1x1, BN, and ReLU where `relu`. ``piontwise`` is the published spelling.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the depthwise convolution.
        bias: Of the 1x1, and of the depthwise convolution too unless `depthwise_bias` says otherwise.
        depthwise_bias: Of the depthwise convolution; None is as `bias`.
        relu: End in a ReLU.
        same: Padding, as in `PaddleConv`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        bias: bool = True,
        depthwise_bias: bool | None = None,
        relu: bool = True,
        same: bool = True,
    ) -> None:
        first = bias if depthwise_bias is None else depthwise_bias
        depthwise = PaddleConv(
            in_channels, in_channels, 3, stride=stride, groups=in_channels, bias=first, act="none", same=same
        )
        pointwise = PaddleConv(in_channels, out_channels, 1, bias=bias, act="relu" if relu else "none")
        super().__init__(depthwise, pointwise, names=("depthwise_conv", "piontwise_conv"))
