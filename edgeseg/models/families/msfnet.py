"""MSFNet, in the style of its paper: no published implementation or weights were found.

Si et al., "Real-Time Semantic Segmentation via Multiply Spatial Fusion Network", 2019, arXiv 1911.07217 (BMVC 2021). No
number of this file can be checked against the authors' code; treat it as a network of its own.

Certain, from the paper: maps of every backbone stage are pooled (spatial aware pooling), maps of one size from several
stages are fused, two independent light branches upsample the result to stride 8, one for the segmentation and one
supervised with the boundaries of classes, and the last resize starts at stride 8.

Uncertain, and chosen here: the backbone (ResNet-18, widely believed), the pools (windows of twice their stride less
one), the 1x1 to 128 channels after each, fusion by sum, and the branches (bilinear resize, sum with the finer level,
depthwise separable 3x3). The boundary branch serves training only, is built with ``aux`` alone, and gives one logit per
class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.backbones.resnet import ResNet
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.layers.separable import separable_conv_bn
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["MSFNet", "msfnet"]

_WIDTH = 128
_LEVELS = (8, 16, 32)
"""Strides at which maps are fused."""


class SpatialAwarePooling(nn.Module):
    """A map pooled to every level as fine as itself or coarser, and reduced.

    Args:
        in_channels: Input channels.
        reduction: Stride of the map.
    """

    def __init__(self, in_channels: int, reduction: int) -> None:
        super().__init__()
        self.levels = tuple(level for level in _LEVELS if level >= reduction)
        for level in self.levels:
            ratio = level // reduction
            pool = (
                nn.AvgPool2d(2 * ratio - 1, ratio, ratio - 1, count_include_pad=False) if ratio > 1 else nn.Identity()
            )
            self.add_module(f"level{level}", nn.Sequential(pool, ConvBN(in_channels, _WIDTH, 1, relu=False)))

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Turn maps (N, in_channels, H, W) into one map (N, 128, h, w) per level, by stride."""
        return {level: self.get_submodule(f"level{level}")(x) for level in self.levels}


class Upsampling(nn.Module):
    """From the coarsest level to stride 8, then the classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(separable_conv_bn(_WIDTH, _WIDTH) for _ in _LEVELS)
        self.classifier = nn.Conv2d(_WIDTH, num_classes, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Turn levels, coarse to fine, into logits at the finest."""
        x: Tensor | None = None
        for conv, level in zip(self.convs, levels, strict=True):
            x = conv(level if x is None else level + resize_like(x, level))
        logits: Tensor = self.classifier(x)
        return logits


class MSFNet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        aux: Build the boundary branch.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 8), ceil(W / 8)), any size; then a bilinear resize to the
        input size (align_corners False).
    """

    def __init__(self, num_classes: int = 19, *, aux: bool = False) -> None:
        super().__init__()
        self.backbone = ResNet(18)
        info = self.backbone.feature_info
        self.poolings = nn.ModuleList(SpatialAwarePooling(each.channels, each.reduction) for each in info)
        self.segment = Upsampling(num_classes)
        self.boundary = Upsampling(num_classes) if aux else None
        self.checkpoint_ignores = () if aux else (r"^boundary\.",)

    def fused(self, image: Tensor) -> list[Tensor]:
        """Compute the fused maps of an image (N, 3, H, W), coarse to fine."""
        maps = self.backbone.features(image)
        pooled = [pooling(x) for pooling, x in zip(self.poolings, maps, strict=True)]
        sums = []
        for level in reversed(_LEVELS):
            parts: list[Tensor] = [by_level[level] for by_level in pooled if level in by_level]
            sums.append(torch.relu(sum(parts[1:], start=parts[0])))
        return sums

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.segment(self.fused(image))
        return logits

    def forward_train(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute logits, and with `aux` those of class boundaries, both at stride 8."""
        levels = self.fused(image)
        logits = self.segment(levels)
        return (logits,) if self.boundary is None else (logits, self.boundary(levels))


@register(
    ModelSpec(
        system="MSFNet",
        year=2019,
        paper="Real-Time Semantic Segmentation via Multiply Spatial Fusion Network (2019, arXiv 1911.07217; BMVC 2021)",
        source="none published; in the style of the paper, see the module",
        num_classes=19,
        labels="cityscapes",
        input_size=(1024, 2048),
        divisor=1,
        input=InputSpec.imagenet(),
        classes_key="segment.classifier.weight",
        params=11_440_211,
        accuracy="paper: Cityscapes test mIoU 77.1 at 1024x2048; not reproduced here",
        notes="No published implementation or weights exist: most of the structure is a guess.",
    )
)
def msfnet(*, num_classes: int = 19, aux: bool = False) -> MSFNet:
    """Build MSFNet on ResNet-18."""
    return MSFNet(num_classes, aux=aux)
