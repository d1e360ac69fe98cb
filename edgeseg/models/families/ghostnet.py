"""GhostNet, a classification network and backbone.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, arXiv 1911.11907. Equals the authors' own
implementation (huawei-noah/Efficient-AI-Backbones, ``ghostnet_pytorch/ghostnet.py``) number for number. Half of every
map comes from a depthwise 3x3 on the other half. Nothing but the dropout is training-only.
"""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.squeeze import SqueezeExcite
from edgeseg.models.layers.width import make_divisible
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, ResizeRule

__all__ = ["GhostNet", "ghostnet_0_5x", "ghostnet_1_0x", "ghostnet_1_3x"]

_ROWS = (
    # stage, kernel, expansion, channels, squeeze, stride
    (0, 3, 16, 16, False, 1),
    (1, 3, 48, 24, False, 2),
    (2, 3, 72, 24, False, 1),
    (3, 5, 72, 40, True, 2),
    (4, 5, 120, 40, True, 1),
    (5, 3, 240, 80, False, 2),
    (6, 3, 200, 80, False, 1),
    (6, 3, 184, 80, False, 1),
    (6, 3, 184, 80, False, 1),
    (6, 3, 480, 112, True, 1),
    (6, 3, 672, 112, True, 1),
    (7, 5, 672, 160, True, 2),
    (8, 5, 960, 160, False, 1),
    (8, 5, 960, 160, True, 1),
    (8, 5, 960, 160, False, 1),
    (8, 5, 960, 160, True, 1),
)
_STRIDES = {2: 4, 4: 8, 6: 16, 8: 32}
"""Stages whose outputs are the backbone's maps, and their strides."""


class GhostModule(nn.Module):
    """A 1x1 makes the first half of the channels, a depthwise 3x3 on that the second; each with BN.

    Args:
        in_channels: Input channels.
        out_channels: Output channels; an odd number drops the last of the second half.
        relu: Activate both halves.
    """

    def __init__(self, in_channels: int, out_channels: int, *, relu: bool = True) -> None:
        super().__init__()
        half = -(-out_channels // 2)
        self.surplus = 2 * half - out_channels
        act = [nn.ReLU()] if relu else []
        self.primary_conv = nn.Sequential(nn.Conv2d(in_channels, half, 1, bias=False), nn.BatchNorm2d(half), *act)
        cheap = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.cheap_operation = nn.Sequential(cheap, nn.BatchNorm2d(half), *act)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        first = self.primary_conv(x)
        y = torch.cat((first, self.cheap_operation(first)), dim=1)
        return y[:, : y.shape[1] - self.surplus] if self.surplus else y


def _shortcut(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    """Build a depthwise, BN, 1x1, BN; empty where the shape stays."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, kernel, stride, kernel // 2, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class GhostBottleneck(nn.Module):
    """Two ghost modules, between them a depthwise convolution where it strides and channel weights, and a shortcut.

    Args:
        in_channels: Input channels.
        inner: Channels between the modules.
        out_channels: Output channels.
        kernel: Of the depthwise convolutions.
        stride: 1 or 2.
        squeeze: Weigh the channels.
    """

    def __init__(
        self, in_channels: int, inner: int, out_channels: int, *, kernel: int, stride: int, squeeze: bool
    ) -> None:
        super().__init__()
        self.ghost1 = GhostModule(in_channels, inner)
        self.strided = stride > 1
        if self.strided:
            self.conv_dw = nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False)
            self.bn_dw = nn.BatchNorm2d(inner)
        self.se = SqueezeExcite(inner, make_divisible(inner / 4, 4)) if squeeze else None
        self.ghost2 = GhostModule(inner, out_channels, relu=False)
        self.shortcut = _shortcut(in_channels, out_channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / stride, W / stride)."""
        y = self.ghost1(x)
        if self.strided:
            y = self.bn_dw(self.conv_dw(y))
        if self.se is not None:
            y = self.se(y)
        out: Tensor = self.ghost2(y) + self.shortcut(x)
        return out

    def fuse(self) -> None:
        """Fold the BN of the depthwise convolution."""
        if self.strided:
            fold_bn_pair(self, "conv_dw", "bn_dw")


class GhostNet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        width: Factor of all channels but the last 1280.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes), any height and width. `features`: the ends of the stages at
        strides 4, 8, 16 and 32.
    """

    def __init__(self, num_classes: int = 1000, *, width: float = 1.0) -> None:
        super().__init__()
        in_channels = make_divisible(16 * width, 4)
        self.conv_stem = nn.Conv2d(3, in_channels, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        stages: list[nn.Module] = []
        info = []
        for stage, rows in groupby(_ROWS, key=lambda row: row[0]):
            units = []
            for _, kernel, expansion, channels, squeeze, stride in rows:
                inner, out_channels = make_divisible(expansion * width, 4), make_divisible(channels * width, 4)
                units.append(
                    GhostBottleneck(in_channels, inner, out_channels, kernel=kernel, stride=stride, squeeze=squeeze)
                )
                in_channels = out_channels
            stages.append(nn.Sequential(*units))
            if stage in _STRIDES:
                info.append(FeatureInfo(in_channels, _STRIDES[stage]))
        last = make_divisible(960 * width, 4)
        self.stages = len(stages)
        self.blocks = nn.Sequential(*stages, nn.Sequential(ConvBN(in_channels, last, 1, names=("conv", "bn1"))))
        self.conv_head = nn.Conv2d(last, 1280, 1)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(1280, num_classes)
        self.feature_info = tuple(info)

    def _stem(self, image: Tensor) -> Tensor:
        return torch.relu(self.bn1(self.conv_stem(image)))

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute maps at strides 4, 8, 16, 32 of an image (N, 3, H, W)."""
        x, maps = self._stem(image), []
        for stage in range(self.stages):
            x = self.blocks[stage](x)
            if stage in _STRIDES:
                maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, num_classes); see the class."""
        x = self.blocks(self._stem(image)).mean((2, 3), keepdim=True)
        x = torch.relu(self.conv_head(x)).flatten(1)
        logits: Tensor = self.classifier(self.dropout(x))
        return logits

    def fuse(self) -> None:
        """Fold the stem's BN."""
        fold_bn_pair(self, "conv_stem", "bn1")


_SPEC = ModelSpec(
    system="GhostNet",
    year=2020,
    paper="GhostNet: More Features from Cheap Operations (CVPR 2020, arXiv 1911.11907)",
    source="huawei-noah/Efficient-AI-Backbones (ghostnet_pytorch), official",
    num_classes=1000,
    labels="generic",
    input_size=(224, 224),
    divisor=1,
    input=InputSpec.imagenet(),
    resize=ResizeRule("stretch", "pillow_bilinear"),
    classes_key="classifier.weight",
    params=5_182_508,
    accuracy="ImageNet top-1 73.9 % at 224x224",
    notes="Classifier: one label per image. Published input: short side to 256 (Pillow bilinear), centre crop 224x224.",
)


@register(_SPEC.but(params=2_587_292, accuracy="ImageNet top-1 66.2 % at 224x224"))
def ghostnet_0_5x(*, num_classes: int = 1000) -> GhostNet:
    """Build GhostNet 0.5x."""
    return GhostNet(num_classes, width=0.5)


@register(_SPEC)
def ghostnet_1_0x(*, num_classes: int = 1000) -> GhostNet:
    """Build GhostNet 1.0x."""
    return GhostNet(num_classes)


@register(_SPEC.but(params=7_358_820, accuracy=""))
def ghostnet_1_3x(*, num_classes: int = 1000) -> GhostNet:
    """Build GhostNet 1.3x."""
    return GhostNet(num_classes, width=1.3)
