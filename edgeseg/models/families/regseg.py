"""RegSeg.

Gao, "Rethink Dilated Convolution for Real-time Semantic Segmentation", 2021, arXiv 2111.09957. Equals the author's own
implementation (RolandGao/RegSeg) number for number: ``regseg`` is its ``exp48_decoder26``, the network of the paper,
and ``regseg_exp53_decoder29`` a larger one of the same repository. The 3x3s are grouped, as in RegNet, and most are
split in halves of different dilation. Nothing is training-only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.folding import fold_bn, fold_bn_pair
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.layers.squeeze import SqueezeExcite
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["RegSeg", "regseg", "regseg_exp53_decoder29"]

_STEM = 32
_DILATIONS: tuple[tuple[int, ...], ...] = ((1,), (1, 2), *((1, 4),) * 4, *((1, 14),) * 7)
"""Of the blocks at stride 16 after the strided one."""


def grouped(channels: int, group_width: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Build 3x3 in groups of `group_width` channels, without bias."""
    groups = channels // group_width
    return nn.Conv2d(channels, channels, 3, stride, dilation, dilation, groups, bias=False)


class SplitConv(nn.Module):
    """The channels in equal parts, each through a grouped 3x3 of its own dilation."""

    def __init__(self, channels: int, group_width: int, *, stride: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.part = channels // len(dilations)
        convs = (grouped(self.part, group_width, stride=stride, dilation=d) for d in dilations)
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(len(self.convs), dim=1)
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], dim=1)


class HalvingShortcut(ConvBN):
    """2x2 average pool that rounds the size up (edge windows average what is inside), 1x1, BN."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        bottom, right = x.shape[-2] % 2, x.shape[-1] % 2
        if bottom or right:  # repeating the last row leaves the average of an edge window as it is
            x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        return super().forward(F.avg_pool2d(x, 2, 2))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 2:
        return HalvingShortcut(in_channels, out_channels)
    return nn.Identity() if in_channels == out_channels else ConvBN(in_channels, out_channels, 1, relu=False)


class DilatedBlock(nn.Module):
    """1x1, grouped 3x3, channel weights, 1x1, and a shortcut.

    Args:
        in_channels: Input channels; a quarter of them lies inside the channel weights.
        out_channels: Output channels.
        group_width: Channels per group of the 3x3.
        stride: Of the 3x3.
        dilations: One for the whole 3x3, or one for each half.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        group_width: int,
        stride: int = 1,
        dilations: tuple[int, ...] = (1,),
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2: nn.Module
        if len(dilations) == 1:
            self.conv2 = grouped(out_channels, group_width, stride=stride, dilation=dilations[0])
        else:
            self.conv2 = SplitConv(out_channels, group_width, stride=stride, dilations=dilations)
        self.bn2: nn.Module = nn.BatchNorm2d(out_channels)
        self.se = SqueezeExcite(out_channels, in_channels // 4, gate=torch.sigmoid, names=("conv1", "conv2"))
        self.conv3 = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.se(torch.relu(self.bn2(self.conv2(y))))
        return torch.relu(self.bn3(self.conv3(y)) + self.shortcut(x))

    def fuse(self) -> None:
        """Fold the BNs into their convolutions, a split one into each part."""
        from edgeseg.models.layers.folding import split_bn

        for k in ("1", "2", "3"):
            fold_bn_pair(self, f"conv{k}", f"bn{k}")
        if isinstance(self.conv2, SplitConv) and isinstance(self.bn2, nn.BatchNorm2d):
            parts = split_bn(self.bn2, (self.conv2.part,) * len(self.conv2.convs))
            convs = [conv for conv in self.conv2.convs if isinstance(conv, nn.Conv2d)]
            self.conv2.convs = nn.ModuleList(fold_bn(conv, bn) for conv, bn in zip(convs, parts, strict=True))
            self.bn2 = nn.Identity()


@dataclass(frozen=True)
class Plan:
    """Widths and depths of the body and the decoder.

    Attributes:
        widths: Channels at strides 4, 8 and 16, and of the last block.
        blocks: Blocks at strides 4 and 8.
        group_width: Channels per group.
        reduced: Channels of the decoder's three maps, at strides 4, 8 and 16.
        merged: Output channels of the decoder's two 3x3s, at strides 8 and 4.
    """

    widths: tuple[int, int, int, int]
    blocks: tuple[int, int]
    group_width: int
    reduced: tuple[int, int, int]
    merged: tuple[int, int]


EXP48 = Plan((48, 128, 256, 320), (1, 3), 16, (8, 128, 128), (64, 64))
EXP53 = Plan((48, 120, 336, 384), (2, 6), 24, (16, 256, 256), (128, 128))


class Body(nn.Module):
    """From the stem's map to strides 4, 8 and 16."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        c4, c8, c16, last = plan.widths
        width = plan.group_width
        fourth = self._stage(_STEM, c4, plan.blocks[0], width)
        self.stage4 = fourth if len(fourth) > 1 else fourth[0]
        self.stage8 = self._stage(c4, c8, plan.blocks[1], width)
        first = DilatedBlock(c8, c16, group_width=width, stride=2)
        middle = (DilatedBlock(c16, c16, group_width=width, dilations=d) for d in _DILATIONS[:-1])
        final = DilatedBlock(c16, last, group_width=width, dilations=_DILATIONS[-1])
        self.stage16 = nn.Sequential(first, *middle, final)

    @staticmethod
    def _stage(in_channels: int, out_channels: int, blocks: int, width: int) -> nn.Sequential:
        rest = (DilatedBlock(out_channels, out_channels, group_width=width) for _ in range(blocks - 1))
        return nn.Sequential(DilatedBlock(in_channels, out_channels, group_width=width, stride=2), *rest)

    def forward(self, x: Tensor) -> list[Tensor]:
        fourth = self.stage4(x)
        eighth = self.stage8(fourth)
        return [fourth, eighth, self.stage16(eighth)]


class Decoder(nn.Module):
    """Adds the map at stride 16 to that at 8, joins the result with that at 4."""

    def __init__(self, plan: Plan, num_classes: int) -> None:
        super().__init__()
        c4, c8, _, c16 = plan.widths
        r4, r8, r16 = plan.reduced
        self.head16 = ConvBN(c16, r16, 1)
        self.head8 = ConvBN(c8, r8, 1)
        self.head4 = ConvBN(c4, r4, 1)
        self.conv8 = ConvBN(r8, plan.merged[0], 3)
        self.conv4 = ConvBN(plan.merged[0] + r4, plan.merged[1], 3)
        self.classifier = nn.Conv2d(plan.merged[1], num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        fourth, eighth = self.head4(maps[0]), self.head8(maps[1])
        x = self.conv8(eighth + resize_like(self.head16(maps[2]), eighth))
        x = self.conv4(torch.cat((resize_like(x, fourth), fourth), dim=1))
        logits: Tensor = self.classifier(x)
        return logits


class RegSeg(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        plan: `EXP48` or `EXP53`.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 4), ceil(W / 4)), any size; the published code then
        resizes bilinearly to the input size (align_corners False). `features`: strides 4, 8 and 16.
    """

    def __init__(self, num_classes: int = 19, *, plan: Plan = EXP48) -> None:
        super().__init__()
        self.stem = ConvBN(3, _STEM, 3, stride=2)
        self.body = Body(plan)
        self.decoder = Decoder(plan, num_classes)
        c4, c8, _, c16 = plan.widths
        self.feature_info = (FeatureInfo(c4, 4), FeatureInfo(c8, 8), FeatureInfo(c16, 16))

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute three maps of an image (N, 3, H, W); see the class."""
        maps: list[Tensor] = self.body(self.stem(image))
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 4; see the class."""
        logits: Tensor = self.decoder(self.features(image))
        return logits


_SPEC = ModelSpec(
    system="RegSeg",
    year=2021,
    paper="Rethink Dilated Convolution for Real-time Semantic Segmentation (2021, arXiv 2111.09957)",
    source="RolandGao/RegSeg, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=1,
    input=InputSpec.imagenet(),
    classes_key="decoder.classifier.weight",
    params=3_334_951,
    accuracy="Cityscapes test mIoU 78.3, val 78.23 (mean of three) at 1024x2048",
    weights_licence="MIT",
)


@register(_SPEC)
def regseg(*, num_classes: int = 19) -> RegSeg:
    """Build RegSeg: exp48 with decoder 26."""
    return RegSeg(num_classes)


@register(_SPEC.but(params=6_131_579, accuracy="Cityscapes test mIoU 79.5 at 1024x2048"))
def regseg_exp53_decoder29(*, num_classes: int = 19) -> RegSeg:
    """Build the larger RegSeg: exp53 with decoder 29."""
    return RegSeg(num_classes, plan=EXP53)
