"""SINet, the portrait network.

Park et al., "SINet: Extreme Lightweight Portrait Segmentation Networks with Spatial Squeeze Modules and Information
Blocking Decoder", WACV 2020, arXiv 1911.09099. Equals the authors' own implementation
(clovaai/ext_portrait_segmentation, ``models/SINet.py``) number for number. Every BN has eps 1e-3, every resize has
align_corners True. Nothing is training-only. With one class the information blocking gate is identically zero, so
``level2_C`` is in the state dict but has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from edgeseg.models.layers.folding import fold_distant, split_bn
from edgeseg.models.layers.prelu import EPS, BNPReLU, Conv, ConvBNPReLU
from edgeseg.models.layers.resize import upsample
from edgeseg.models.layers.shuffle import channel_shuffle
from edgeseg.models.layers.squeeze import LinearSqueeze
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = [
    "PORTRAIT_INPUT",
    "BlockPlan",
    "S2Module",
    "SINet",
    "SpatialSqueeze",
    "SqueezeDown",
    "blocking_gate",
    "s2_stage",
    "sinet",
    "sinet_1class",
]

PORTRAIT_INPUT = InputSpec("bgr", (107.304565, 115.69884, 132.35703), (63.97182, 65.1337, 68.29726), scale=1 / 255)
"""Input of the portrait weights of clovaai: BGR, mean and std on 0..255, then divided by 255 as well."""

BlockPlan = tuple[tuple[int, int], tuple[int, int]]
"""(kernel, pooling) of the two blocks of an S2-module."""

_LEVEL2: tuple[BlockPlan, ...] = (((3, 1), (5, 1)), ((3, 1), (3, 1)))
_LEVEL3: tuple[BlockPlan, ...] = (
    ((3, 1), (5, 1)),
    ((3, 1), (3, 1)),
    ((5, 1), (3, 2)),
    ((5, 2), (3, 4)),
    ((3, 1), (3, 1)),
    ((5, 1), (5, 1)),
    ((3, 2), (3, 4)),
    ((3, 1), (5, 2)),
)


class SpatialSqueeze(nn.Module):
    """S2-block: pool, depthwise convolution, BN, PReLU, 1x1, resize back, BN."""

    def __init__(self, channels: int, kernel: int, pooling: int) -> None:
        super().__init__()
        self.pooling = pooling
        depthwise = nn.Conv2d(channels, channels, kernel, 1, kernel // 2, groups=channels, bias=False)
        self.conv = nn.Sequential(depthwise, nn.BatchNorm2d(channels, eps=EPS))
        self.act_conv1x1 = nn.Sequential(nn.PReLU(channels), nn.Conv2d(channels, channels, 1, bias=False))
        self.bn = nn.BatchNorm2d(channels, eps=EPS)

    def mix(self, x: Tensor) -> Tensor:
        """Compute the depthwise convolution and its BN."""
        y: Tensor = self.conv(x)
        return y

    def forward(self, x: Tensor) -> Tensor:
        if self.pooling > 1:
            x = nn.functional.avg_pool2d(x, self.pooling, self.pooling)
        x = self.act_conv1x1(self.mix(x))
        if self.pooling > 1:
            x = upsample(x, self.pooling, align_corners=True)
        out: Tensor = self.bn(x)
        return out

    def fuse(self) -> None:
        """Fold the last BN through the resize into the 1x1."""
        fold_distant(self, "act_conv1x1.1", "bn")


Block = Callable[[int, int, int], SpatialSqueeze]
"""Builds an S2-block from channels, kernel and pooling."""


class S2Module(nn.Module):
    """Grouped 1x1, shuffle, two S2-blocks on the whole map, concatenation, plus the input where widths agree."""

    def __init__(self, in_channels: int, out_channels: int, plan: BlockPlan, block: Block = SpatialSqueeze) -> None:
        super().__init__()
        half = out_channels // 2
        self.add = in_channels == out_channels
        self.c1 = Conv(in_channels, half, 1, groups=2)
        self.d1 = block(half, *plan[0])
        self.d2 = block(half, *plan[1])
        self.BR = BNPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        reduced = channel_shuffle(self.c1(x), 2)
        y = torch.cat((self.d1(reduced), self.d2(reduced)), dim=1)
        out: Tensor = self.BR(x + y if self.add else y)
        return out

    def fuse(self) -> None:
        """Fold the outer BN into both blocks where no input is added before it."""
        outer = self.BR.bn
        if self.add or not isinstance(outer, nn.BatchNorm2d):
            return
        half = outer.num_features // 2
        for block, part in zip((self.d1, self.d2), split_bn(outer, (half, half)), strict=True):
            block.fuse()
            block.bn = part
            block.fuse()
        self.BR.bn = nn.Identity()


class SqueezeDown(nn.Module):
    """Strided depthwise 3x3, channel weights, 1x1, BN, PReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, divide: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, 2, 1, groups=in_channels, bias=False),
            LinearSqueeze(in_channels, divide=divide),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=EPS)
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y

    def fuse(self) -> None:
        """Fold the BN into the 1x1."""
        fold_distant(self, "conv.2", "bn")


def s2_stage(
    in_channels: int, out_channels: int, plans: tuple[BlockPlan, ...], block: Block = SpatialSqueeze
) -> Iterator[S2Module]:
    """Build S2-modules in a row; the first widens."""
    return (S2Module(out_channels if k else in_channels, out_channels, plan, block) for k, plan in enumerate(plans))


def blocking_gate(logits: Tensor) -> Tensor:
    """Compute information blocking: 1 - the largest class probability.

    Args:
        logits: (N, classes, H, W). With two classes this is sigmoid(-|difference|), one class needs no gate.

    Returns:
        (N, 1, H, W) in [0, 1): near 0 where the coarse prediction is sure.
    """
    if logits.shape[1] == 2:
        first, second = torch.split(logits, 1, dim=1)
        return torch.sigmoid(-(first - second).abs())
    return 1.0 - logits.softmax(dim=1).amax(dim=1, keepdim=True)


class _Encoder(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.level1 = ConvBNPReLU(3, 12, 3, stride=2)
        self.level2_0 = SqueezeDown(12, 16, divide=1)
        self.level2 = nn.Sequential(*s2_stage(16, 48, _LEVEL2))
        self.BR2 = BNPReLU(64)
        self.level3_0 = SqueezeDown(64, 48, divide=2)
        self.level3 = nn.Sequential(*s2_stage(48, 96, _LEVEL3))
        self.BR3 = BNPReLU(144)
        self.classifier = Conv(144, num_classes, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        down2 = self.level2_0(self.level1(image))
        level2 = self.level2(down2)
        down3 = self.level3_0(self.BR2(torch.cat((down2, level2), dim=1)))
        return level2, self.classifier(self.BR3(torch.cat((down3, self.level3(down3)), dim=1)))


class SINet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H, W); H and W are multiples of 32.
    """

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.encoder = _Encoder(num_classes)
        self.bn_3 = nn.BatchNorm2d(num_classes, eps=EPS)
        self.level2_C = ConvBNPReLU(48, num_classes, 1)
        self.bn_2 = nn.BatchNorm2d(num_classes, eps=EPS)
        # Index 0 of the published Sequential is the resize, which has no weights.
        self.classifier = nn.Sequential(nn.Identity(), nn.Conv2d(num_classes, num_classes, 3, 1, 1, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at input size; see the class."""
        level2, coarse = self.encoder(image)
        x = self.bn_3(upsample(coarse, 2, align_corners=True))
        if x.shape[1] > 1:
            x = self.level2_C(level2) * blocking_gate(x) + x
        x = self.bn_2(upsample(x, 2, align_corners=True))
        logits: Tensor = self.classifier(upsample(x, 2, align_corners=True))
        return logits

    def fuse(self) -> None:
        """Fold ``bn_3`` through the resize into the encoder's classifier."""
        fold_distant(self, "encoder.classifier.conv", "bn_3")


_SPEC = ModelSpec(
    system="SINet",
    year=2020,
    paper="SINet: Extreme Lightweight Portrait Segmentation Networks with Spatial Squeeze Modules and Information "
    "Blocking Decoder (WACV 2020, arXiv 1911.09099)",
    source="clovaai/ext_portrait_segmentation, official",
    num_classes=2,
    labels="person",
    input_size=(224, 224),
    divisor=32,
    input=PORTRAIT_INPUT,
    classes_key="classifier.1.weight",
    params=86_910,
    accuracy="EG1800 mIoU 95.2 at 224x224",
    weights_licence="MIT",
)


@register(_SPEC)
def sinet(*, num_classes: int = 2) -> SINet:
    """Build SINet with two classes, as published."""
    return SINet(num_classes)


@register(_SPEC.but(num_classes=1, params=86_684, accuracy="", weights_licence="", notes="No published weights."))
def sinet_1class(*, num_classes: int = 1) -> SINet:
    """Build SINet with one logit: person where it is above 0."""
    return SINet(num_classes)
