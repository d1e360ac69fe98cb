"""SwiftNet, single scale and pyramid.

Orsic et al., "In Defense of Pre-trained ImageNet Architectures for Real-time Semantic Segmentation of Road-driving
Images", CVPR 2019, arXiv 1903.08469; pyramid: Orsic and Segvic, "Efficient semantic segmentation with pyramidal
fusion", Pattern Recognition 110, 2021. Equals the authors' own implementation (orsic/swiftnet) number for number. The
skips are what the published code computes, not what it seems to: it activates in place, so the single-scale skips come
after the ReLU, the pyramid's before it. Nothing is training-only. RN34 is a published constructor without a
configuration.

The published network normalises its input itself, with a mean and std that its checkpoints hold. Here the input is
normalised already, as the spec says; a checkpoint with other values keeps its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.backbones.resnet import RESNET_BLOCKS, resnet_stage
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.pooling import adaptive_avg_pool
from edgeseg.models.layers.residual import BasicBlock
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["SwiftNet", "swiftnet_rn18", "swiftnet_rn18_pyramid", "swiftnet_rn34"]

_MEAN, _STD = (73.15, 82.90, 72.3), (47.67, 48.49, 47.73)
_GRIDS = (8, 4, 2)
_LEVELS = 3


class PreConv(nn.Module):
    """BN, ReLU and a "same" convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, bias: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, 1, kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        y: Tensor = self.conv(torch.relu(self.norm(x)))
        return y


def _difference(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift from the spec's normalisation to that of `mean` and `std`, (1, 3, 1, 1) each."""
    first = torch.tensor(_MEAN, device=mean.device).to(mean.dtype).view(1, 3, 1, 1)
    deviation = torch.tensor(_STD, device=mean.device).to(mean.dtype).view(1, 3, 1, 1)
    return deviation / std, (first - mean) / std


class SpatialPyramid(nn.Module):
    """Pools the map on three grids as wide as its aspect ratio asks for, and joins them with the map."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        level = width // len(_GRIDS)
        self.spp = nn.ModuleDict({"spp_bn": PreConv(in_channels, width, 1)})
        for k in range(len(_GRIDS)):
            self.spp[f"spp{k}"] = PreConv(width, level, 1)
        self.spp["spp_fuse"] = PreConv(width + level * len(_GRIDS), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, width, H, W)."""
        x = self.spp["spp_bn"](x)
        ratio = int(x.shape[-1]) / int(x.shape[-2])
        maps = [x]
        for k, grid in enumerate(_GRIDS):
            pooled = adaptive_avg_pool(x, (grid, max(1, round(grid * ratio))))
            maps.append(resize_like(self.spp[f"spp{k}"](pooled), x))
        y: Tensor = self.spp["spp_fuse"](torch.cat(maps, dim=1))
        return y


class Upsample(nn.Module):
    """Resizes the coarse map to the skip, adds the skip at the same width, convolves.

    Args:
        skip: Channels of the skip; None where it has the width already.
        width: Channels of the coarse map and of the result.
    """

    def __init__(self, skip: int | None, width: int) -> None:
        super().__init__()
        self.bottleneck = None if skip is None else PreConv(skip, width, 1)
        self.blend_conv = PreConv(width, width, 3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Join (N, width, h, w) and the skip (N, C, H, W) to (N, width, H, W)."""
        lateral = skip if self.bottleneck is None else self.bottleneck(skip)
        y: Tensor = self.blend_conv(resize_like(x, skip) + lateral)
        return y


class Trunk(nn.Module):
    """What both backbones share: the 7x7, the stages, and the published normalisation where it is not the spec's."""

    img_mean: Tensor | None
    img_std: Tensor | None

    def __init__(self, depth: int, block: type[BasicBlock]) -> None:
        super().__init__()
        self.register_buffer("img_mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("img_std", torch.tensor(_STD).view(1, 3, 1, 1))
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        in_channels = 64
        for k, blocks in enumerate(RESNET_BLOCKS[depth]):
            self.add_module(
                f"layer{k + 1}", resnet_stage(block, in_channels, 64 * 2**k, blocks, stride=1 if k == 0 else 2)
            )
            in_channels = 64 * 2**k

    def own_input(self, image: Tensor) -> Tensor:
        """Normalise the image (N, 3, H, W) with ``img_mean`` and ``img_std`` in place of the spec's values."""
        if self.img_mean is None or self.img_std is None:
            return image
        scale, shift = _difference(self.img_mean, self.img_std)
        return image * scale + shift

    def fuse(self) -> None:
        """Drop the normalisation where it changes nothing; fold the stem's BN where it has one."""
        fold_bn_pair(self, "conv1", "bn1")
        if self.img_mean is None or self.img_std is None:
            return
        scale, shift = _difference(self.img_mean, self.img_std)
        if bool((scale == 1.0).all()) and bool((shift == 0.0).all()):
            self.img_mean = self.img_std = None


class SingleScale(Trunk):
    """ResNet, spatial pyramid and a lean decoder to stride 4."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__(depth, BasicBlock)
        self.bn1 = nn.BatchNorm2d(64)
        self.spp = SpatialPyramid(512, width)
        self.upsample = nn.ModuleList(Upsample(skip, width) for skip in (256, 128, 64))

    def forward(self, image: Tensor) -> Tensor:
        """Turn maps (N, 3, H, W) into (N, width, H / 4, W / 4)."""
        x: Tensor = self.maxpool(torch.relu(self.bn1(self.conv1(self.own_input(image)))))
        skips: list[Tensor] = []
        for k in range(1, 5):
            x = self.get_submodule(f"layer{k}")(x)
            skips.append(x)
        x = self.spp(skips.pop())
        for stage, skip in zip(self.upsample, reversed(skips), strict=True):
            x = stage(x, skip)
        return x


class LevelBlock(BasicBlock):
    """A basic block with one pair of BNs per pyramid level; convolutions and shortcut are shared.

    It returns the sum before the last ReLU.
    """

    conv1: nn.Module
    conv2: nn.Module
    bn1: nn.ModuleList
    bn2: nn.ModuleList

    def __init__(self, in_channels: int, width: int, **options: Any) -> None:
        super().__init__(in_channels, width, **options)
        self.bn1, self.bn2 = _level_norms(width), _level_norms(width)

    def forward(self, x: Tensor, level: int = 0) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, width, H / stride, W / stride), with the BNs of `level`."""
        y = torch.relu(self.bn1[level](self.conv1(x)))
        out: Tensor = self.bn2[level](self.conv2(y)) + (x if self.downsample is None else self.downsample(x))
        return out


def _level_norms(width: int) -> nn.ModuleList:
    return nn.ModuleList(nn.BatchNorm2d(width) for _ in range(_LEVELS))


class Pyramid(Trunk):
    """One ResNet on the image at three scales, whose maps of one stride are added up.

    The BNs of the levels stay apart from the shared convolutions: folding would keep three copies of every weight.
    """

    def __init__(self, depth: int, width: int) -> None:
        super().__init__(depth, LevelBlock)
        self.bn1 = _level_norms(64)
        self.upsample_bottlenecks = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in (512, 256, 128, 64))
        self.upsample_blends = nn.ModuleList(Upsample(None, width) for _ in range(5))

    def _level(self, image: Tensor, level: int) -> list[Tensor]:
        """Compute the four skips of one level, reduced to the decoder's width, fine to coarse."""
        x, skips = (
            self.maxpool(self.bn1[level](self.conv1(image))),
            [],
        )  # the first block's ReLU may come after the pool
        for k in range(4):
            for block in self.get_submodule(f"layer{k + 1}").children():
                x = block(torch.relu(x), level)
            skips.append(self.upsample_bottlenecks[3 - k](x))
        return skips

    def forward(self, image: Tensor) -> Tensor:
        """Turn maps (N, 3, H, W) into (N, width, H / 4, W / 4)."""
        image = self.own_input(image)
        buckets: list[list[Tensor]] = [[] for _ in range(_LEVELS + 3)]
        for level in range(_LEVELS):
            for k, skip in enumerate(self._level(_shrink(image, 2**level), level)):
                buckets[level + k].append(skip)
        *finer, coarsest = (sum(bucket[1:], start=bucket[0]) for bucket in buckets)
        x = coarsest
        for stage, skip in zip(self.upsample_blends, reversed(finer), strict=True):
            x = stage(x, skip)
        return x


def _shrink(image: Tensor, factor: int) -> Tensor:
    """Resize to a fraction of the size, bicubic (a = -0.75, no antialias)."""
    if factor == 1:
        return image
    size = (image.shape[-2] // factor, image.shape[-1] // factor)
    return F.interpolate(image, size=size, mode="bicubic", align_corners=False)


class SwiftNet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        depth: Of the ResNet: 18 or 34.
        pyramid: Read the image at three scales.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 4, W / 4), then resized bilinearly to the image
        (align_corners False). Any height and width, rounded up; multiples of 4 for the pyramid.
    """

    checkpoint_optional = (r"^backbone\.img_(mean|std)$",)

    def __init__(self, num_classes: int = 19, *, depth: int = 18, pyramid: bool = False) -> None:
        super().__init__()
        self.backbone = (Pyramid if pyramid else SingleScale)(depth, 128)
        self.logits = PreConv(128, num_classes, 1, bias=True)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 4; see the class."""
        logits: Tensor = self.logits(self.backbone(image))
        return logits


_SPEC = ModelSpec(
    system="SwiftNet",
    year=2019,
    paper="In Defense of Pre-trained ImageNet Architectures for Real-time Semantic Segmentation of Road-driving Images "
    "(CVPR 2019, arXiv 1903.08469)",
    source="orsic/swiftnet, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=1,
    input=InputSpec("rgb", _MEAN, _STD),
    classes_key="logits.conv.weight",
    params=11_797_071,
    accuracy="Cityscapes val mIoU 75.4, test 75.5, at 1024x2048",
    weights_licence="GPL-3.0",
    notes="The published network normalises inside; a checkpoint's own img_mean and img_std are kept where they differ "
    "from the spec's.",
)


@register(_SPEC)
def swiftnet_rn18(*, num_classes: int = 19) -> SwiftNet:
    """Build SwiftNet on ResNet-18, single scale."""
    return SwiftNet(num_classes)


@register(_SPEC.but(params=21_905_231, accuracy=""))
def swiftnet_rn34(*, num_classes: int = 19) -> SwiftNet:
    """Build SwiftNet on ResNet-34, single scale."""
    return SwiftNet(num_classes, depth=34)


@register(
    _SPEC.but(
        year=2020,
        paper="Efficient semantic segmentation with pyramidal fusion (Pattern Recognition 110, 2021)",
        divisor=4,
        params=12_056_275,
        accuracy="",
    )
)
def swiftnet_rn18_pyramid(*, num_classes: int = 19) -> SwiftNet:
    """Build SwiftNet on ResNet-18 over an image pyramid."""
    return SwiftNet(num_classes, pyramid=True)
