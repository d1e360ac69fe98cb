"""FFNet.

Mehta et al., "Simple and Efficient Architectures for Semantic Segmentation", CVPR 2022 workshops, arXiv 2206.08236.
Equals the authors' own implementation (Qualcomm-AI-research/FFNet) number for number. A plain residual backbone, a
pyramid of 1x1 and 3x3 convolutions on its four maps, and two convolutions. The three letters of a name are backbone
form, pyramid ("up head") and classifier; a leading d means that all four stages stride. Nothing is training-only.

`ffnet40s_bbb_mobile_pre_down` halves the image inside, as published: a fixed Gaussian whose padding leaves a 1024x2048
image at 511x1022. The authors use it to evaluate weights that a deployment feeds half-size images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.backbones.resnet import ResNet, resnet_stage
from edgeseg.models.features import Backbone, FeatureInfo
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.residual import BasicBlock
from edgeseg.models.layers.resize import repeat_like, resize_like
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = [
    "FFNet",
    "ffnet18_daac",
    "ffnet40s_bbb_mobile_pre_down",
    "ffnet40s_dbbb_mobile",
    "ffnet46n_cbb",
    "ffnet46ns_ccc_mobile",
    "ffnet50_daaa",
    "ffnet54s_dbbb_mobile",
    "ffnet78s_dbbb_mobile",
    "ffnet86s_dbbb",
    "ffnet122n_cbb",
    "ffnet122ns_cbb_mobile",
]

_PYRAMID = {
    # widths of the adapted maps, and of the maps put out, both fine to coarse
    "A": ((64, 128, 256, 512), (128, 128, 128, 128)),
    "B": ((64, 128, 128, 256), (96, 96, 64, 32)),
    "C": ((128, 128, 128, 128), (128, 16, 16, 16)),
}
_CLASSIFIER = {"A": (512, 1), "B": (256, 3), "C": (128, 1)}
"""Inner channels, and kernel of the last convolution."""

_LEVELS = ("4", "8", "16", "32")


class SlimBackbone(nn.Module):
    """A stem of plain 3x3 convolutions and stages of basic blocks (the published S, N and NS backbones).

    Args:
        stem: Channels and stride of each stem convolution.
        widths: Channels of the stages.
        blocks: Of the stages.
        strides: Of the stages.
        stem_map: The stem's output is the finest map, and there are three stages in place of four.
    """

    def __init__(
        self,
        stem: tuple[tuple[int, int], ...],
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        strides: tuple[int, ...],
        *,
        stem_map: bool = False,
    ) -> None:
        super().__init__()
        self.stem, self.stages, self.stem_map = len(stem), len(widths), stem_map
        in_channels, reduction = 3, 1
        for k, (out_channels, stride) in enumerate(stem):
            self.add_module(f"conv{k}", nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False))
            self.add_module(f"bn{k}", nn.BatchNorm2d(out_channels))
            in_channels, reduction = out_channels, reduction * stride
        info = [FeatureInfo(in_channels, reduction)] if stem_map else []
        for k, width in enumerate(widths):
            self.add_module(f"layer{k + 1}", resnet_stage(BasicBlock, in_channels, width, blocks[k], stride=strides[k]))
            in_channels, reduction = width, reduction * strides[k]
            info.append(FeatureInfo(in_channels, reduction))
        self.feature_info = tuple(info)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute four maps of an image (N, 3, H, W), as `feature_info` declares."""
        x = image
        for k in range(self.stem):
            x = torch.relu(self.get_submodule(f"bn{k}")(self.get_submodule(f"conv{k}")(x)))
        maps = [x] if self.stem_map else []
        for k in range(self.stages):
            x = self.get_submodule(f"layer{k + 1}")(x)
            maps.append(x)
        return maps

    def fuse(self) -> None:
        """Fold the BNs of the stem."""
        for k in range(self.stem):
            fold_bn_pair(self, f"conv{k}", f"bn{k}")


class Unit(nn.Module):
    """A "same" convolution, BN, ReLU under the key ``layers``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel, 1, kernel // 2, bias=False)
        self.layers = nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        y: Tensor = self.layers(x)
        return y


class Adapter(nn.Module):
    """One 1x1 per map."""

    def __init__(self, channels: tuple[int, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.adapter_conv = nn.ModuleList(
            Unit(in_channels, out_channels, 1) for in_channels, out_channels in zip(channels, widths, strict=True)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Compute maps of any size to maps of the same sizes."""
        return [conv(x) for conv, x in zip(self.adapter_conv, maps, strict=True)]


class Pyramid(nn.Module):
    """From coarse to fine: each map through a 3x3 to the output, and through a 1x1, resized, onto the next.

    Args:
        widths: Channels of the maps, fine to coarse.
        outs: Channels of the outputs, fine to coarse.
        resize: Brings its first argument to the size of the second.
    """

    def __init__(
        self, widths: tuple[int, ...], outs: tuple[int, ...], resize: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.resize = resize
        self.fam_4 = Unit(widths[0], outs[0], 3)
        for k in (1, 2, 3):
            self.add_module(f"fam_{_LEVELS[k]}_sm", Unit(widths[k], outs[k], 3))
            self.add_module(f"fam_{_LEVELS[k]}_up", Unit(widths[k], widths[k - 1], 1))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Turn four maps into four maps of the same sizes, fine to coarse."""
        x, outs = maps[3], []
        for k in (3, 2, 1):
            outs.append(self.get_submodule(f"fam_{_LEVELS[k]}_sm")(x))
            x = self.resize(self.get_submodule(f"fam_{_LEVELS[k]}_up")(x), maps[k - 1]) + maps[k - 1]
        return [self.fam_4(x), *reversed(outs)]


class Join(nn.Module):
    """Resizes all maps to the finest and concatenates them."""

    def __init__(self, resize: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.resize = resize

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Turn maps, fine to coarse, into one map of the size of the first."""
        return torch.cat((maps[0], *(self.resize(x, maps[0]) for x in maps[1:])), dim=1)


class Classifier(nn.Module):
    """3x3 with bias, BN, ReLU, and a convolution to the classes."""

    def __init__(self, in_channels: int, inner: int, num_classes: int, kernel: int) -> None:
        super().__init__()
        last = nn.Conv2d(inner, num_classes, kernel, 1, kernel // 2)
        self.last_layer = nn.Sequential(nn.Conv2d(in_channels, inner, 3, 1, 1), nn.BatchNorm2d(inner), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into logits (N, num_classes, H, W)."""
        logits: Tensor = self.last_layer(x)
        return logits


class Head(nn.Module):
    """Everything behind the backbone, as a row under the key ``layers``."""

    def __init__(self, channels: tuple[int, ...], num_classes: int, *, up: str, seg: str, nearest: bool) -> None:
        super().__init__()
        widths, outs = _PYRAMID[up]
        inner, kernel = _CLASSIFIER[seg]
        resize = repeat_like if nearest else _bilinear
        classify = Classifier(sum(outs), inner, num_classes, kernel)
        self.layers = nn.Sequential(Adapter(channels, widths), Pyramid(widths, outs, resize), Join(resize), classify)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Compute logits (N, num_classes, H, W) at the size of the finest map."""
        logits: Tensor = self.layers(maps)
        return logits


def _bilinear(x: Tensor, other: Tensor) -> Tensor:
    return resize_like(x, other, align_corners=True)


class Halving(nn.Module):
    """Halves an image with a fixed 5x5 Gaussian of sigma 0.7, a row mirrored above and below and no columns."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        tail = [math.exp(-(k**2) / (2 * 0.7**2)) for k in range(4)]  # the fourth folds back onto the third
        row = torch.tensor([tail[2] + tail[3], tail[1], tail[0], tail[1], tail[2] + tail[3]], dtype=torch.float64)
        row = row / row.sum()
        kernel = torch.outer(row, row).to(torch.get_default_dtype())
        self.register_buffer("weight", kernel.expand(3, 1, 5, 5).clone())

    def forward(self, image: Tensor) -> Tensor:
        """Turn maps (N, 3, H, W) into (N, 3, (H - 3) // 2 + 1, (W - 5) // 2 + 1)."""
        mirrored = torch.cat((image[:, :, 1:2], image, image[:, :, -2:-1]), dim=2)
        return F.conv2d(mirrored, self.weight, stride=2, groups=3)


class FFNet(nn.Module):
    """The network.

    Args:
        backbone: With four maps, fine to coarse.
        num_classes: Output channels.
        up: Letter of the pyramid.
        seg: Letter of the classifier.
        nearest: Resize by the nearest pixel (the "mobile" networks), else bilinearly (align_corners True).
        pre_down: Halve the image first.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, h, w) at the stride of the backbone's finest map, 4 or 8, sizes
        rounded up; any height and width.
    """

    checkpoint_ignores: tuple[str, ...] = (r"^smoothing\.",)

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 19,
        *,
        up: Literal["A", "B", "C"] = "B",
        seg: Literal["A", "B", "C"] = "B",
        nearest: bool = False,
        pre_down: bool = False,
    ) -> None:
        super().__init__()
        channels = tuple(info.channels for info in backbone.feature_info)
        self.backbone_model = backbone
        self.head = Head(channels, num_classes, up=up, seg=seg, nearest=nearest)
        self.smoothing = Halving() if pre_down else None
        if pre_down:
            self.checkpoint_ignores, self.checkpoint_optional = (), (r"^smoothing\.",)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits; see the class."""
        if self.smoothing is not None:
            image = self.smoothing(image)
        logits: Tensor = self.head(self.backbone_model.features(image))
        return logits


def _small(blocks: tuple[int, int, int, int], *, strided: bool = True) -> SlimBackbone:
    """Build backbone S; with `strided` its form d."""
    strides = (2 if strided else 1, 2, 2, 2)
    return SlimBackbone(((32, 2), (64, 2)), (64, 128, 192, 320), blocks, strides)


def _narrow(widths: tuple[int, int, int], blocks: tuple[int, int, int]) -> SlimBackbone:
    """Build backbones N and NS."""
    return SlimBackbone(((64, 2), (64, 2), (64, 1)), widths, blocks, (2, 2, 2), stem_map=True)


_N, _NS = (96, 160, 320), (64, 128, 256)
_STRIDE_8 = (2, 2, 2, 2)

_SPEC = ModelSpec(
    system="FFNet",
    year=2022,
    paper="Simple and Efficient Architectures for Semantic Segmentation (CVPR 2022 workshops, arXiv 2206.08236)",
    source="Qualcomm-AI-research/FFNet, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=1,
    input=InputSpec.imagenet(),
    classes_key="head.layers.3.last_layer.3.weight",
    params=13_911_283,
    weights_licence="BSD-3-Clause-Clear",
)
_MIOU = "Cityscapes val mIoU {} at {}"
_FULL, _HALF = "1024x2048", "512x1024"


@register(_SPEC.but(accuracy=_MIOU.format(79.2, _FULL)))
def ffnet40s_dbbb_mobile(*, num_classes: int = 19) -> FFNet:
    """Build FFNet-40S dBBB mobile."""
    return FFNet(_small((4, 5, 6, 4)), num_classes, nearest=True)


@register(_SPEC.but(params=18_044_659))
def ffnet54s_dbbb_mobile(*, num_classes: int = 19) -> FFNet:
    """Build FFNet-54S dBBB mobile."""
    return FFNet(_small((5, 8, 8, 5)), num_classes, nearest=True)


@register(_SPEC.but(params=27_491_059, accuracy=_MIOU.format(81.3, _FULL)))
def ffnet78s_dbbb_mobile(*, num_classes: int = 19) -> FFNet:
    """Build FFNet-78S dBBB mobile."""
    return FFNet(_small((6, 12, 12, 8)), num_classes, nearest=True)


@register(_SPEC.but(params=26_607_347))
def ffnet86s_dbbb(*, num_classes: int = 19) -> FFNet:
    """Build FFNet-86S dBBB."""
    return FFNet(_small((8, 12, 16, 6)), num_classes)


@register(
    _SPEC.but(
        params=13_907_059,
        accuracy=_MIOU.format(79.7, _FULL),
        notes="Halves the image inside, with the published padding: 1024x2048 becomes 511x1022.",
    )
)
def ffnet40s_bbb_mobile_pre_down(*, num_classes: int = 19) -> FFNet:
    """Build FFNet-40S BBB mobile on an image halved inside."""
    return FFNet(_small((4, 5, 6, 4), strided=False), num_classes, nearest=True, pre_down=True)


@register(_SPEC.but(params=12_530_995, input_size=(512, 1024), accuracy=_MIOU.format(76.7, _HALF)))
def ffnet46ns_ccc_mobile(*, num_classes: int = 19) -> FFNet:
    """Build FFNet-46NS CCC mobile."""
    return FFNet(_narrow(_NS, (6, 8, 8)), num_classes, up="C", seg="C", nearest=True)


@register(_SPEC.but(params=32_815_891, input_size=(512, 1024), accuracy=_MIOU.format(79.3, _HALF)))
def ffnet122ns_cbb_mobile(*, num_classes: int = 19) -> FFNet:
    """Build FFNet-122NS CBB mobile."""
    return FFNet(_narrow(_NS, (16, 24, 20)), num_classes, nearest=True)


@register(_SPEC.but(params=20_214_035, accuracy=_MIOU.format(81.9, _FULL)))
def ffnet46n_cbb(*, num_classes: int = 19) -> FFNet:
    """Build FFNet-46N CBB."""
    return FFNet(_narrow(_N, (6, 8, 8)), num_classes)


@register(_SPEC.but(params=51_393_555))
def ffnet122n_cbb(*, num_classes: int = 19) -> FFNet:
    """Build FFNet-122N CBB."""
    return FFNet(_narrow(_N, (16, 24, 20)), num_classes)


@register(_SPEC.but(params=13_403_347, accuracy=_MIOU.format(76.4, _FULL)))
def ffnet18_daac(*, num_classes: int = 19) -> FFNet:
    """Build FFNet-18 dAAC."""
    return FFNet(ResNet(18, strides=_STRIDE_8), num_classes, up="A", seg="C")


@register(_SPEC.but(params=28_553_043))
def ffnet50_daaa(*, num_classes: int = 19) -> FFNet:
    """Build FFNet-50 dAAA."""
    return FFNet(ResNet(50, strides=_STRIDE_8), num_classes, up="A", seg="A")
