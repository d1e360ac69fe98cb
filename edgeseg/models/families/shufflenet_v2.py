"""ShuffleNet v2, a classification network and backbone.

Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018, arXiv 1807.11164.
Equals the authors' own implementation (megvii-model/ShuffleNet-Series, ``ShuffleNetV2/network.py``) number for number;
torchvision's network of that name is another one. The shuffle stands at the entry of a block (even channels pass, odd
ones are convolved), so the output of a stage is not shuffled. It is written as two strided slices, which every engine
has, where the published code reshapes and permutes. As in v1, the average is over the whole map in place of 7x7.
Nothing but the dropout of 2.0x is training-only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.families.shufflenet_v1 import StagedNetwork, megvii_spec
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec

__all__ = ["ShuffleNetV2", "shufflenet_v2_0_5x", "shufflenet_v2_1_0x", "shufflenet_v2_1_5x", "shufflenet_v2_2_0x"]


def _depthwise(channels: int, stride: int) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return conv, nn.BatchNorm2d(channels)


def _pointwise(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()


class _Unit(nn.Module):
    """The branch that every block has: 1x1, depthwise 3x3, 1x1; ReLU after the 1x1s."""

    def __init__(self, in_channels: int, inner: int, made: int, stride: int) -> None:
        super().__init__()
        self.branch_main = nn.Sequential(
            *_pointwise(in_channels, inner), *_depthwise(inner, stride), *_pointwise(inner, made)
        )


class SplitUnit(_Unit):
    """Even channels pass, odd ones go through the branch; joined in that order."""

    def __init__(self, channels: int) -> None:
        half = channels // 2
        super().__init__(half, half, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, C, H, W) into maps of the same shape."""
        return torch.cat((x[:, 0::2], self.branch_main(x[:, 1::2])), dim=1)


class StridedUnit(_Unit):
    """Both branches read the whole map at stride 2: the first keeps `in_channels` channels, the second adds others."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels // 2, out_channels - in_channels, 2)
        self.branch_proj = nn.Sequential(*_depthwise(in_channels, 2), *_pointwise(in_channels, in_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / 2, W / 2)."""
        return torch.cat((self.branch_proj(x), self.branch_main(x)), dim=1)


def _unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return SplitUnit(in_channels) if stride == 1 else StridedUnit(in_channels, out_channels)


class ShuffleNetV2(StagedNetwork):
    """The network.

    Args:
        num_classes: Output channels.
        widths: Channels of stages 2, 3, 4.
        last: Channels before the classifier.
        dropout: Share dropped in training.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes), any height and width. `feature_maps`: the stem at stride 4
        and the ends of the stages at 8, 16 and 32, before the last 1x1.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        widths: tuple[int, int, int] = (116, 232, 464),
        last: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        super().__init__((24, *widths), _unit)
        self.conv_last = nn.Sequential(*_pointwise(widths[-1], last))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Sequential(nn.Linear(last, num_classes, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, num_classes); see the class."""
        x = self.conv_last(self.feature_maps(image)[-1])
        logits: Tensor = self.classifier(self.dropout(x.mean((2, 3))))
        return logits


def _spec(params: int, top1: float) -> ModelSpec:
    return megvii_spec(
        "ShuffleNet v2",
        "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design (ECCV 2018, arXiv 1807.11164)",
        year=2018,
        source="ShuffleNetV2/network.py",
        params=params,
        accuracy=f"ImageNet top-1 {top1:.1f} % at 224x224" if top1 else "",
    )


@register(_spec(1_365_792, 61.1))
def shufflenet_v2_0_5x(*, num_classes: int = 1000) -> ShuffleNetV2:
    """Build ShuffleNet v2 0.5x."""
    return ShuffleNetV2(num_classes, widths=(48, 96, 192))


@register(_spec(2_278_760, 69.4))
def shufflenet_v2_1_0x(*, num_classes: int = 1000) -> ShuffleNetV2:
    """Build ShuffleNet v2 1.0x."""
    return ShuffleNetV2(num_classes)


@register(_spec(3_506_720, 72.6))
def shufflenet_v2_1_5x(*, num_classes: int = 1000) -> ShuffleNetV2:
    """Build ShuffleNet v2 1.5x."""
    return ShuffleNetV2(num_classes, widths=(176, 352, 704))


@register(_spec(7_402_600, 0.0))
def shufflenet_v2_2_0x(*, num_classes: int = 1000) -> ShuffleNetV2:
    """Build ShuffleNet v2 2.0x."""
    return ShuffleNetV2(num_classes, widths=(244, 488, 976), last=2048, dropout=0.2)
