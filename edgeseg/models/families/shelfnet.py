"""ShelfNet, light-weight and original.

Zhuang et al., "ShelfNet for Fast Semantic Segmentation", ICCV 2019 workshops, arXiv 1811.11254. Equals the authors' own
implementation (juntang-zhuang/ShelfNet) number for number: the light-weight networks of its branch ``citys_lw``, the
original ones on ResNet-50 and 101 of its PASCAL branch (commit 81e883b). Columns of an encoder-decoder stand side by
side like a shelf. The S-block uses one convolution twice, with two BNs.

Light-weight: every BN is followed by a leaky ReLU of 0.01 and, but for the second of an S-block, scales by
abs(weight) + eps, as the published CUDA kernel does, in the backbone too. Training-only: ``conv_out16``,
``conv_out32``; ``auxlayer``, ``head.selayer`` and the ImageNet classifier ``pretrained.fc``. ``decoder.inconv`` is
published and never used.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UsageError
from edgeseg.models.backbones.resnet import ResNet
from edgeseg.models.layers.bisenet import AttentionRefinement, OutputHead
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.norm import AbsBatchNorm
from edgeseg.models.layers.residual import activate
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec

__all__ = ["ShelfNet", "ShelfNetLight", "shelfnet18_lw", "shelfnet34_lw", "shelfnet50", "shelfnet101"]

_SLOPE = 0.01
"""Of the leaky ReLUs; also the default of ``F.leaky_relu``."""


def _conv(in_channels: int, out_channels: int, kernel: int) -> ConvBN:
    """Build a convolution, normalisation and activation of the light-weight form."""
    return ConvBN(in_channels, out_channels, kernel, norm=AbsBatchNorm, act=F.leaky_relu)


class SBlock(nn.Module):
    """One 3x3 with bias, run twice with a BN of its own each time, and the input added.

    Args:
        width: Channels.
        light: The first BN and the activation of the light-weight form.
    """

    def __init__(self, width: int, *, light: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1)
        self.bn1 = AbsBatchNorm(width) if light else nn.BatchNorm2d(width)
        self.bn2 = nn.BatchNorm2d(width)
        self.second: nn.Conv2d | None = None
        self.slope = _SLOPE if light else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, width, H, W) into maps of the same shape."""
        y = activate(self.bn1(self.conv1(x)), self.slope)
        again = self.conv1 if self.second is None else self.second
        return torch.relu(self.bn2(again(y)) + x)

    def fuse(self) -> None:
        """Make two convolutions of the shared one, each with its BN folded in."""
        if self.second is None:
            self.second = copy.deepcopy(self.conv1)
        fold_bn_pair(self, "conv1", "bn1")
        fold_bn_pair(self, "second", "bn2")


class Column(nn.Module):
    """The way up: the coarsest map through an S-block, then to finer levels one by one.

    Args:
        planes: Channels of the finest level; they double from level to level.
        levels: Number of levels.
        light: Attention and nearest upsampling in place of transposed convolutions.
    """

    def __init__(self, planes: int, levels: int, *, light: bool) -> None:
        super().__init__()
        self.light = light
        widths = [planes * 2**k for k in range(levels)]
        self.inconv = SBlock(planes, light=light)
        self.bottom = SBlock(widths[-1], light=light)
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up_conv_list = nn.ModuleList(
            _widen(in_channels, out_channels, light) for in_channels, out_channels in steps
        )
        self.up_dense_list = nn.ModuleList(
            _conv(out_channels, out_channels, 3) if light else SBlock(out_channels, light=False)
            for _, out_channels in steps
        )

    def up(self, x: Tensor, laterals: list[Tensor]) -> list[Tensor]:
        """Compute maps from coarse to fine, the coarsest first.

        Args:
            x: The coarsest map.
            laterals: The maps of the other levels, fine to coarse.
        """
        maps = [self.bottom(x)]
        for widen, dense, lateral in zip(self.up_conv_list, self.up_dense_list, reversed(laterals), strict=True):
            finer = widen(maps[-1])
            if self.light:
                finer = F.interpolate(finer, scale_factor=2.0, mode="nearest")
            maps.append(dense(finer + lateral))
        return maps

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Compute maps of all levels, fine to coarse, to maps of all levels, coarse to fine."""
        return self.up(maps[-1], maps[:-1])


def _widen(in_channels: int, out_channels: int, light: bool) -> nn.Module:
    if light:
        return AttentionRefinement(in_channels, out_channels, norm=AbsBatchNorm, act=F.leaky_relu)
    return nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, output_padding=1)


class Ladder(Column):
    """The way down and up again, fed by the column before at every level but the coarsest."""

    def __init__(self, planes: int, levels: int, *, light: bool) -> None:
        super().__init__(planes, levels, light=light)
        widths = [planes * 2**k for k in range(levels)]
        self.down_module_list = nn.ModuleList(SBlock(width, light=light) for width in widths[:-1])
        self.down_conv_list = nn.ModuleList(nn.Conv2d(width, 2 * width, 3, 2, 1) for width in widths[:-1])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Compute maps of all levels to maps of all levels, both coarse to fine."""
        x, laterals = self.inconv(maps[-1]), []
        for block, down, lateral in zip(self.down_module_list, self.down_conv_list, maps[:0:-1], strict=True):
            laterals.append(block(x + lateral))
            x = torch.relu(down(laterals[-1]))
        return self.up(x, laterals)


class ShelfNetLight(nn.Module):
    """The light-weight network.

    Args:
        num_classes: Output channels.
        depth: Of the ResNet: 18 (its maps are reduced) or 34.
        aux: Build the training heads.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8), then resized bilinearly to the image
        (align_corners True). H and W are multiples of 32.
    """

    def __init__(self, num_classes: int = 19, *, depth: int = 18, aux: bool = False) -> None:
        super().__init__()
        self.backbone = ResNet(depth, norm=AbsBatchNorm, slope=_SLOPE)
        planes = 64 if depth == 18 else 128
        self.decoder = Column(planes, 3, light=True)
        self.ladder = Ladder(planes, 3, light=True)
        self.conv_out = _head(planes, planes, num_classes)
        self.conv_out16 = _head(2 * planes, 64, num_classes) if aux else None
        self.conv_out32 = _head(4 * planes, 64, num_classes) if aux else None
        self.reduces = depth == 18
        for k in range(3 if self.reduces else 0):
            self.add_module(f"trans{k + 1}", _conv(128 * 2**k, planes * 2**k, 1))
        self.checkpoint_ignores = () if aux else (r"^conv_out(16|32)\.",)

    def decode(self, image: Tensor) -> list[Tensor]:
        """Compute maps at strides 32, 16 and 8 of an image (N, 3, H, W)."""
        maps = self.backbone.features(image)[1:]
        if self.reduces:
            maps = [self.get_submodule(f"trans{k + 1}")(x) for k, x in enumerate(maps)]
        ladder: list[Tensor] = self.ladder(self.decoder(maps))
        return ladder

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.conv_out(self.decode(image)[-1])
        return logits

    def forward_train(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute logits at strides 8, 16 and 32.

        Raises:
            UsageError: Built without `aux`.
        """
        if self.conv_out16 is None or self.conv_out32 is None:
            raise UsageError("ShelfNet was built without its training heads; build it with aux=True to train")
        coarse, middle, fine = self.decode(image)
        return self.conv_out(fine), self.conv_out16(middle), self.conv_out32(coarse)


def _head(in_channels: int, inner: int, num_classes: int) -> OutputHead:
    return OutputHead(in_channels, inner, num_classes, kernel=3, norm=AbsBatchNorm, act=F.leaky_relu)


class Shelf(nn.Module):
    """The original network's head: reduces the four maps, then column, ladder and classifier."""

    def __init__(self, num_classes: int, *, aux: bool) -> None:
        super().__init__()
        for k in range(4):
            self.add_module(f"conv{k + 1}", nn.Conv2d(256 * 2**k, 64 * 2**k, 1, bias=False))
            self.add_module(f"bn{k + 1}", nn.BatchNorm2d(64 * 2**k))
        self.decoder = Column(64, 4, light=False)
        self.ladder = Ladder(64, 4, light=False)
        self.final = nn.Conv2d(64, num_classes, 1)
        self.selayer = nn.Linear(512, num_classes) if aux else None

    def decode(self, maps: list[Tensor]) -> list[Tensor]:
        """Compute maps at strides 32, 16, 8, 4 from the backbone's four, fine to coarse."""
        reduced = [
            torch.relu(self.get_submodule(f"bn{k + 1}")(self.get_submodule(f"conv{k + 1}")(x)))
            for k, x in enumerate(maps)
        ]
        ladder: list[Tensor] = self.ladder(self.decoder(reduced))
        return ladder

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Compute logits at the stride of the finest map."""
        logits: Tensor = self.final(self.decode(maps)[-1])
        return logits

    def fuse(self) -> None:
        """Fold the BNs of the reductions."""
        for k in "1234":
            fold_bn_pair(self, f"conv{k}", f"bn{k}")


class ShelfNet(nn.Module):
    """The original network.

    Args:
        num_classes: Output channels.
        depth: Of the ResNet: 50 or 101.
        aux: Build what only training uses.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 4, W / 4), then resized bilinearly to the image
        (align_corners True). H and W are multiples of 32.
    """

    def __init__(self, num_classes: int = 19, *, depth: int = 50, aux: bool = False) -> None:
        super().__init__()
        self.pretrained = ResNet(depth)
        self.head = Shelf(num_classes, aux=aux)
        self.auxlayer = _fcn_head(1024, num_classes) if aux else None
        if aux:
            self.pretrained.add_module("fc", nn.Linear(2048, 1000))
        self.checkpoint_ignores = () if aux else (r"^auxlayer\.", r"^head\.selayer\.", r"^pretrained\.fc\.")

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 4; see the class."""
        logits: Tensor = self.head(self.pretrained.features(image))
        return logits

    def forward_train(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits at strides 4 and 16, without the published loss on image-level classes (``head.selayer``).

        Raises:
            UsageError: Built without `aux`.
        """
        if self.auxlayer is None:
            raise UsageError("ShelfNet was built without its training heads; build it with aux=True to train")
        maps = self.pretrained.features(image)
        return self.head(maps), self.auxlayer["conv5"](maps[2])


def _fcn_head(in_channels: int, num_classes: int) -> nn.ModuleDict:
    inner = in_channels // 4
    conv, classify = nn.Conv2d(in_channels, inner, 3, 1, 1, bias=False), nn.Conv2d(inner, num_classes, 1)
    row = nn.Sequential(conv, nn.BatchNorm2d(inner), nn.ReLU(), nn.Dropout2d(0.1), classify)
    return nn.ModuleDict({"conv5": row})


_SPEC = ModelSpec(
    system="ShelfNet",
    year=2018,
    paper="ShelfNet for Fast Semantic Segmentation (ICCV 2019 workshops, arXiv 1811.11254)",
    source="juntang-zhuang/ShelfNet, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=32,
    input=InputSpec.imagenet(),
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="conv_out.conv_out.weight",
    params=14_357_440,
    accuracy="Cityscapes test mIoU 74.8 at 1024x2048",
)


@register(_SPEC.but(params_note="The published count, 14,600,768, includes conv_out16 and conv_out32, built with aux."))
def shelfnet18_lw(*, num_classes: int = 19, aux: bool = False) -> ShelfNetLight:
    """Build ShelfNet18, light-weight."""
    return ShelfNetLight(num_classes, aux=aux)


@register(
    _SPEC.but(
        params=33_280_832,
        params_note="The published count, 33,745,344, includes conv_out16 and conv_out32, built with aux.",
        accuracy="",
    )
)
def shelfnet34_lw(*, num_classes: int = 19, aux: bool = False) -> ShelfNetLight:
    """Build ShelfNet34, light-weight."""
    return ShelfNetLight(num_classes, depth=34, aux=aux)


_ORIGINAL = _SPEC.but(
    input_size=(512, 512),
    classes_key="head.final.weight",
    params=36_677_715,
    params_note="The published count, 41,101,153, includes auxlayer, head.selayer and pretrained.fc, built with aux.",
    accuracy="PASCAL VOC 2012 test mIoU 82.8; Cityscapes 75.8",
    weights_licence="MIT",
    notes="Published weights are for PASCAL VOC (21 classes) or PASCAL Context.",
)


@register(_ORIGINAL)
def shelfnet50(*, num_classes: int = 19, aux: bool = False) -> ShelfNet:
    """Build ShelfNet on ResNet-50."""
    return ShelfNet(num_classes, aux=aux)


@register(
    _ORIGINAL.but(
        params=55_669_843,
        params_note="The published count, 60,093,281, includes auxlayer, head.selayer and pretrained.fc, built with "
        "aux.",
        accuracy="",
    )
)
def shelfnet101(*, num_classes: int = 19, aux: bool = False) -> ShelfNet:
    """Build ShelfNet on ResNet-101."""
    return ShelfNet(num_classes, depth=101, aux=aux)
