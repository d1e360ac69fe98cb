"""SFNet.

Li et al., "Semantic Flow for Fast and Accurate Scene Parsing", ECCV 2020, arXiv 2002.10120. Equals the authors' own
implementation (lxtGH/SFSegNets) number for number, but for its base grid, which is rounded to float32 there (1e-7 of
the largest logit). Going from coarse to fine, every map is warped along a learned flow field before it is added.

The ResNet-18 has a deep stem of 64, 64 and 128 channels, and its "variant D" dilates the second convolution of the
blocks in layers 3 and 4 while the strides stay. Training-only: the heads ``head.dsn`` of checkpoints trained with deep
supervision, which are not built. DF1 and DF2 here are the code's networks: the paper's parameter counts differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.backbones.dfnet import DF1, DF2, DFNet
from edgeseg.models.backbones.resnet import RESNET_BLOCKS, deep_stem, resnet_stage
from edgeseg.models.features import Backbone, FeatureInfo
from edgeseg.models.layers.folding import fold_distant
from edgeseg.models.layers.pyramid import BINS, pyramid_maps
from edgeseg.models.layers.residual import BasicBlock
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.layers.sequential import conv_bn_relu
from edgeseg.models.layers.warp import flow_warp
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec

__all__ = [
    "FlowField",
    "PyramidPooling",
    "SFNet",
    "SFNetR18",
    "classifier",
    "sfnet_df1",
    "sfnet_df2",
    "sfnet_r18",
]


def classifier(in_channels: int, width: int, num_classes: int) -> nn.Sequential:
    """Build 3x3, BN, ReLU, then 1x1 to the classes."""
    return nn.Sequential(conv_bn_relu(in_channels, width, 3), nn.Conv2d(width, num_classes, 1))


class PyramidPooling(nn.Module):
    """Averages over 1, 2, 3 and 6 bins a side, each through a linear 1x1; joined with the map by a 1x1."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        # published keys count the pool, which has no weights and runs in `pyramid_maps`
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Identity(), nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width))
            for _ in BINS
        )
        self.bottleneck = nn.Sequential(*conv_bn_relu(in_channels + len(BINS) * width, width, 1), nn.Dropout2d(0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, width, H, W)."""
        maps = pyramid_maps(x, self.stages, align_corners=True)
        y: Tensor = self.bottleneck(torch.cat((*maps, x), dim=1))
        return y


class FlowField(nn.Module):
    """Flow fields between two levels, from both at half the width.

    Args:
        width: Channels of both levels.
        fields: How many fields.
    """

    def __init__(self, width: int, *, fields: int = 1) -> None:
        super().__init__()
        self.down_h = nn.Conv2d(width, width // 2, 1, bias=False)
        self.down_l = nn.Conv2d(width, width // 2, 1, bias=False)
        self.flow_make = nn.Conv2d(width, 2 * fields, 3, 1, 1, bias=False)

    def narrow(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both levels at half the width and the size of `low`, the coarse one first."""
        fine = self.down_l(low)
        return resize_like(self.down_h(high), fine, align_corners=True), fine

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Warp the coarse level (N, width, h, w) to the size of the fine one (N, width, H, W)."""
        return flow_warp(high, self.flow_make(torch.cat(self.narrow(low, high), dim=1)))


class AlignHead(nn.Module):
    """Pyramid pooling on the last map, then level by level to the finest, all levels joined there.

    Args:
        channels: Of the maps, fine to coarse.
        width: Inner channels.
        num_classes: Output channels.
    """

    def __init__(self, channels: Sequence[int], width: int, num_classes: int) -> None:
        super().__init__()
        *finer, last = channels
        self.ppm = PyramidPooling(last, width)
        self.fpn_in = nn.ModuleList(conv_bn_relu(in_channels, width, 1, bias=True) for in_channels in finer)
        self.fpn_out = nn.ModuleList(nn.Sequential(conv_bn_relu(width, width, 3)) for _ in finer)
        self.fpn_out_align = nn.ModuleList(FlowField(width) for _ in finer)
        self.conv_last = classifier(len(channels) * width, width, num_classes)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Compute logits (N, num_classes, H, W) at the size of the finest map."""
        x = self.ppm(maps[-1])
        levels = [x]
        for k in reversed(range(len(maps) - 1)):
            lateral = self.fpn_in[k](maps[k])
            x = lateral + self.fpn_out_align[k](lateral, x)
            levels.insert(0, self.fpn_out[k](x))
        finest = levels[0]
        joined = (finest, *(resize_like(level, finest, align_corners=True) for level in levels[1:]))
        logits: Tensor = self.conv_last(torch.cat(joined, dim=1))
        return logits


class SFNetR18(nn.Module):
    """A head on the deep-stem ResNet-18, whose keys have no prefix.

    Args:
        head: Takes the four maps, as `feature_info` declares, fine to coarse.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 4, W / 4), sizes rounded up, then resized bilinearly to the
        image (align_corners True).
    """

    feature_info = (FeatureInfo(64, 4), FeatureInfo(128, 8), FeatureInfo(256, 16), FeatureInfo(512, 32))
    checkpoint_ignores: tuple[str, ...] = (r"^head\.dsn\.",)

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        *stem, norm, relu = deep_stem(64, 128)
        self.layer0 = nn.Sequential(nn.Sequential(*stem), norm, relu, nn.MaxPool2d(3, 2, 1))
        in_channels = 128
        for k, blocks in enumerate(RESNET_BLOCKS[18]):
            stage = resnet_stage(BasicBlock, in_channels, 64 * 2**k, blocks, stride=1 if k == 0 else 2)
            _dilate_second(stage, (1, 1, 2, 4)[k])
            self.add_module(f"layer{k + 1}", stage)
            in_channels = 64 * 2**k
        self.head = head

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute four maps of an image (N, 3, H, W)."""
        x, maps = self.layer0(image), []
        for k in range(1, 5):
            x = self.get_submodule(f"layer{k}")(x)
            maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 4; see the class."""
        logits: Tensor = self.head(self.features(image))
        return logits

    def fuse(self) -> None:
        """Fold the stem's last BN, which stands outside the Sequential of its convolution."""
        fold_distant(self, "layer0.0.6", "layer0.1")


def _dilate_second(stage: nn.Sequential, dilation: int) -> None:
    """Dilate the second convolution of every block."""
    for block in stage:
        conv = block.get_submodule("conv2")
        if isinstance(conv, nn.Conv2d):
            conv.dilation = conv.padding = (dilation, dilation)


class SFNet(nn.Module):
    """A head on a backbone.

    Args:
        backbone: Under the key ``backbone``.
        head: Takes the backbone's maps, fine to coarse.

    Shape:
        image (N, 3, H, W) -> logits at the stride of the finest map, sizes rounded up, then resized bilinearly to the
        image (align_corners True).
    """

    checkpoint_ignores: tuple[str, ...] = (r"^head\.dsn\.",)

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits; see the class."""
        logits: Tensor = self.head(self.backbone.features(image))
        return logits


_SPEC = ModelSpec(
    system="SFNet",
    year=2020,
    paper="Semantic Flow for Fast and Accurate Scene Parsing (ECCV 2020, arXiv 2002.10120)",
    source="lxtGH/SFSegNets, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=1,
    input=InputSpec.imagenet(),
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="head.conv_last.1.weight",
    params=12_869_715,
    accuracy="Cityscapes val mIoU 79.0 at 1024x2048, flipped images averaged in",
    weights_licence="MIT",
)


@register(_SPEC)
def sfnet_r18(*, num_classes: int = 19) -> SFNetR18:
    """Build SFNet on ResNet-18."""
    return SFNetR18(AlignHead((64, 128, 256, 512), 128, num_classes))


@register(
    _SPEC.but(
        params=8_422_387,
        accuracy="Cityscapes val mIoU 72.2 at 1024x2048, flipped images averaged in",
        notes="Logits at stride 16.",
    )
)
def sfnet_df1(*, num_classes: int = 19) -> SFNet:
    """Build SFNet on DF1."""
    return SFNet(DFNet(DF1), AlignHead((128, 256, 512), 64, num_classes))


@register(
    _SPEC.but(
        params=17_876_467,
        accuracy="Cityscapes val mIoU 75.8 at 1024x2048, flipped images averaged in",
        notes="Logits at stride 8.",
    )
)
def sfnet_df2(*, num_classes: int = 19) -> SFNet:
    """Build SFNet on DF2."""
    return SFNet(DFNet(DF2), AlignHead((128, 256, 512), 64, num_classes))
