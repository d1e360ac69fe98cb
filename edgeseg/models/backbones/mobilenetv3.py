"""MobileNetV3 as a backbone of segmentation networks.

Howard et al., "Searching for MobileNetV3", ICCV 2019, arXiv 1905.02244. Published implementations differ in their key
names, in the hard sigmoid of the channel weights, in whether the first block expands, in the padding of strided
convolutions and in BN eps: `PADDLE` equals PaddlePaddle/PaddleSeg number for number, `MMSEG` open-mmlab's
mmsegmentation. Both are third-party; neither has a classifier here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.keys import put_module
from edgeseg.models.layers.paddleseg import pad_same
from edgeseg.models.layers.squeeze import SqueezeExcite
from edgeseg.models.layers.width import make_divisible

__all__ = ["LARGE", "MMSEG", "PADDLE", "SMALL", "MobileNetV3", "MobileNetV3Style", "Row", "hard_sigmoid_fifth"]


@dataclass(frozen=True)
class Row:
    """One block: kernel, inner and output channels, channel weights or not, hard swish or ReLU, stride."""

    kernel: int
    inner: int
    channels: int
    squeeze: bool
    swish: bool
    stride: int


LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
"""The blocks of MobileNetV3-Large."""

SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)
"""The blocks of MobileNetV3-Small."""


def hard_sigmoid_fifth(x: Tensor) -> Tensor:
    """Compute Paddle's hard sigmoid, clip(x / 5 + 1/2, 0, 1)."""
    return torch.clamp(0.2 * x + 0.5, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class MobileNetV3Style:
    """What published implementations do differently.

    Attributes:
        stem: Name of the first convolution.
        block: Name of block k, counted from 0 or 1 as `first` says; a dot stands for a list.
        first: Number of the first block.
        depthwise: Name of the depthwise convolution.
        squeeze: Name of the channel weights.
        nested: Their convolutions are ``conv1.conv``, not ``conv1``.
        rounding: The channels between them are a multiple of this.
        gate: Their hard sigmoid.
        expand_always: The first block has an expansion although it does not widen.
        same: Strided convolutions pad as TensorFlow does, below and to the right first.
        last: A 1x1 with hard swish follows the blocks, to the channels of the last block's inside.
        eps: Of every BN.
    """

    stem: str
    block: str
    first: int
    depthwise: str
    squeeze: str
    nested: bool
    rounding: int
    gate: Callable[[Tensor], Tensor]
    expand_always: bool
    same: bool
    last: bool
    eps: float


PADDLE = MobileNetV3Style(
    stem="conv",
    block="blocks.{}",
    first=0,
    depthwise="bottleneck_conv",
    squeeze="mid_se",
    nested=False,
    rounding=1,
    gate=hard_sigmoid_fifth,
    expand_always=True,
    same=False,
    last=False,
    eps=1e-5,
)
MMSEG = MobileNetV3Style(
    stem="layer0",
    block="layer{}",
    first=1,
    depthwise="depthwise_conv",
    squeeze="se",
    nested=True,
    rounding=8,
    gate=F.hardsigmoid,
    expand_always=False,
    same=True,
    last=True,
    eps=1e-3,
)


class Block(nn.Module):
    """1x1 to the inner width, depthwise convolution, channel weights, linear 1x1; plus the input where shape allows."""

    def __init__(self, in_channels: int, row: Row, style: MobileNetV3Style, *, stride: int, dilation: int) -> None:
        super().__init__()
        act = F.hardswish if row.swish else torch.relu
        inner, eps = row.inner, style.eps
        self.style, self.kernel, self.stride = style, row.kernel, stride
        self.same = style.same and stride > 1
        self.add = stride == 1 and in_channels == row.channels
        self.expand = style.expand_always or inner != in_channels
        if self.expand:
            self.expand_conv = ConvBN(in_channels, inner, 1, act=act, eps=eps)
        pad = 0 if self.same else None
        deep = ConvBN(
            inner, inner, row.kernel, stride=stride, padding=pad, dilation=dilation, groups=inner, act=act, eps=eps
        )
        self.add_module(style.depthwise, deep)
        self.squeeze = row.squeeze
        if row.squeeze:
            hidden = make_divisible(inner / 4, style.rounding)
            names = ("conv1", "conv2")
            weights = SqueezeExcite(inner, hidden, gate=style.gate, names=names, nested=style.nested)
            self.add_module(style.squeeze, weights)
        self.linear_conv = ConvBN(inner, row.channels, 1, relu=False, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, channels, ceil(H / stride), ceil(W / stride))."""
        y = self.expand_conv(x) if self.expand else x
        y = self.get_submodule(self.style.depthwise)(pad_same(y, self.kernel, self.stride) if self.same else y)
        if self.squeeze:
            y = self.get_submodule(self.style.squeeze)(y)
        out: Tensor = self.linear_conv(y)
        return x + out if self.add else out


def _strides(rows: tuple[Row, ...], output_stride: int) -> list[tuple[int, int, int]]:
    """Return stride, dilation and total stride of each block; dilation takes over where `output_stride` is reached."""
    total, dilation, found = 2, 1, []
    for row in rows:
        stride = row.stride
        if total * stride > output_stride:
            dilation, stride = dilation * stride, 1
        total *= stride
        found.append((stride, dilation, total))
    return found


class MobileNetV3(nn.Module):
    """The backbone.

    Args:
        rows: `LARGE` or `SMALL`.
        style: `PADDLE` or `MMSEG`.
        taps: Which maps `features` gives: 0 is the first convolution's, k that of the k-th block; the last 1x1 is one
            block more.
        output_stride: 32, 16 or 8; blocks that would stride further dilate instead.

    Shape:
        image (N, 3, H, W), any size -> `features`, one map per tap. Blocks behind the last tap do not run; they are
        built because published checkpoints hold them.
    """

    def __init__(
        self,
        rows: tuple[Row, ...] = LARGE,
        *,
        style: MobileNetV3Style = PADDLE,
        taps: tuple[int, ...] = (3, 6, 12, 15),
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        self.style, self.taps = style, taps
        stem = ConvBN(3, 16, 3, stride=2, padding=0 if style.same else None, act=F.hardswish, eps=style.eps)
        self.add_module(style.stem, stem)
        plan = _strides(rows, output_stride)
        self.units: list[str] = []
        in_channels, found = 16, [FeatureInfo(16, 2)]
        for row, (stride, dilation, total) in zip(rows, plan, strict=True):
            self._add_unit(Block(in_channels, row, style, stride=stride, dilation=dilation))
            in_channels = row.channels
            found.append(FeatureInfo(in_channels, total))
        if style.last:
            self._add_unit(ConvBN(in_channels, rows[-1].inner, 1, act=F.hardswish, eps=style.eps))
            found.append(FeatureInfo(rows[-1].inner, plan[-1][2]))
        self.feature_info = tuple(found[tap] for tap in taps)

    def _add_unit(self, unit: nn.Module) -> None:
        """Put a block, or the last 1x1, where the published key names say."""
        name = self.style.block.format(self.style.first + len(self.units))
        put_module(self, name, unit)
        self.units.append(name)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute maps of an image (N, 3, H, W) at the taps."""
        x = self.get_submodule(self.style.stem)(pad_same(image) if self.style.same else image)
        maps = [x]
        for name in self.units[: self.taps[-1]]:
            maps.append(self.get_submodule(name)(maps[-1]))
        return [maps[tap] for tap in self.taps]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the same as `features`."""
        return self.features(image)
