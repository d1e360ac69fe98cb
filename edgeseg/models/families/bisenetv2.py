"""BiSeNet V2.

Yu et al., "BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic Segmentation", IJCV 2021, arXiv
2004.02147. Equals CoinCheung/BiSeNet, ``bisenetv2.py`` (third-party, the usual PyTorch implementation) number for
number. Where the paper draws depthwise convolutions that multiply the channels, a ReLU follows in the stride-1 blocks;
the aggregation repeats pixels where the paper resizes bilinearly. ``aux2`` .. ``aux5_4`` serve training only and are
built with `aux`; their keys follow the published class but no record here holds them. mmsegmentation's form, which
resizes bilinearly, is `edgeseg.models.mmseg.bilateral`.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.families.bisenetv1 import COINCHEUNG
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.folding import fold_backwards
from edgeseg.models.layers.resize import repeat_like, resize_like
from edgeseg.models.layers.sequential import conv_bn, conv_bn_relu
from edgeseg.models.registry import register

__all__ = ["BiSeNetV2", "BiSeNetV2Trunk", "bisenetv2"]

_EXPAND = 6
_SEMANTIC = (16, 32, 64, 128)
_AUX = {"aux2": 4, "aux3": 8, "aux4": 16, "aux5_4": 32}
"""Stride of the map each training head reads."""


def depthwise_bn(in_channels: int, out_channels: int, *, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """Build 3x3 in groups of one input channel, and BN; `out_channels` is a multiple of `in_channels`."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, groups=in_channels, bias=False)
    return conv, nn.BatchNorm2d(out_channels)


def detail_branch() -> nn.Sequential:
    """Build eight 3x3 convolutions: image to (N, 128, H / 8, W / 8)."""
    stages = OrderedDict[str, nn.Module]()
    in_channels = 3
    for k, (out_channels, depth) in enumerate(((64, 2), (64, 3), (128, 3))):
        first = ConvBN(in_channels, out_channels, 3, stride=2)
        stages[f"S{k + 1}"] = nn.Sequential(first, *(ConvBN(out_channels, out_channels, 3) for _ in range(depth - 1)))
        in_channels = out_channels
    return nn.Sequential(stages)


class Stem(nn.Module):
    """A strided convolution, then strided convolutions and a max pool side by side: stride 4, 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvBN(3, 16, 3, stride=2)
        self.left = nn.Sequential(ConvBN(16, 8, 1), ConvBN(8, 16, 3, stride=2))
        self.right = nn.MaxPool2d(3, 2, 1)
        self.fuse = ConvBN(32, 16, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv(image)
        y: Tensor = self.fuse(torch.cat((self.left(x), self.right(x)), dim=1))
        return y


class Gather(nn.Module):
    """GELayerS1: 3x3, multiplying depthwise 3x3, linear 1x1, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = _EXPAND * channels
        self.conv1 = ConvBN(channels, channels, 3)
        self.dwconv = nn.Sequential(*depthwise_bn(channels, inner), nn.ReLU())
        self.conv2 = conv_bn(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(self.dwconv(self.conv1(x))) + x)


class GatherDown(nn.Module):
    """GELayerS2: the same with two depthwise convolutions, the first strided, and a separable shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = _EXPAND * in_channels
        self.conv1 = ConvBN(in_channels, in_channels, 3)
        self.dwconv1 = nn.Sequential(*depthwise_bn(in_channels, inner, stride=2))
        self.dwconv2 = nn.Sequential(*depthwise_bn(inner, inner), nn.ReLU())
        self.conv2 = conv_bn(inner, out_channels, 1)
        self.shortcut = nn.Sequential(
            *depthwise_bn(in_channels, in_channels, stride=2), *conv_bn(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.dwconv2(self.dwconv1(self.conv1(x))))
        return torch.relu(y + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """Adds the global average, normalised and convolved, to every pixel; then a 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv_gap = ConvBN(channels, channels, 1)
        self.conv_last = ConvBN(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_last(self.conv_gap(self.bn(x.mean((2, 3), keepdim=True))) + x)
        return y

    def fuse(self) -> None:
        """Fold the BN of the average into the 1x1 behind it, whose own BN is folded by now."""
        fold_backwards(self, "bn", "conv_gap.conv")


class SemanticBranch(nn.Module):
    """Maps at strides 4, 8, 16, 32, and the last one with its global context."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = _SEMANTIC
        self.S1S2 = Stem()
        self.S3 = nn.Sequential(GatherDown(a, b), Gather(b))
        self.S4 = nn.Sequential(GatherDown(b, c), Gather(c))
        self.S5_4 = nn.Sequential(GatherDown(c, d), *(Gather(d) for _ in range(3)))
        self.S5_5 = ContextEmbedding(d)

    def forward(self, image: Tensor) -> list[Tensor]:
        x, maps = image, []
        for name in ("S1S2", "S3", "S4", "S5_4", "S5_5"):
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps


class Aggregation(nn.Module):
    """Bilateral guided aggregation: each branch gates the other, at stride 8 and at stride 32.

    Args:
        channels: Of both maps.
        bilinear: Enlarge bilinearly, the gate before its sigmoid, and give the 1x1s a bias, as mmsegmentation does.
    """

    def __init__(self, channels: int = 128, *, bilinear: bool = False) -> None:
        super().__init__()
        self.bilinear = bilinear
        pointwise = [nn.Conv2d(channels, channels, 1, bias=bilinear) for _ in range(2)]
        self.left1 = nn.Sequential(*depthwise_bn(channels, channels), pointwise[0])
        self.left2 = nn.Sequential(*conv_bn(channels, channels, 3, stride=2), nn.AvgPool2d(3, 2, 1))
        self.right1 = conv_bn(channels, channels, 3)
        self.right2 = nn.Sequential(*depthwise_bn(channels, channels), pointwise[1])
        self.conv = conv_bn_relu(channels, channels, 3)

    def _gate(self, semantic: Tensor, detail: Tensor) -> Tensor:
        gate: Tensor = self.right1(semantic)
        if self.bilinear:
            return torch.sigmoid(resize_like(gate, detail))
        return repeat_like(torch.sigmoid(gate), detail)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        enlarge = resize_like if self.bilinear else repeat_like
        gate = self._gate(semantic, detail)
        deep = self.left2(detail) * torch.sigmoid(self.right2(semantic))
        y: Tensor = self.conv(self.left1(detail) * gate + enlarge(deep, detail))
        return y


class Head(nn.Module):
    """3x3 to `inner` channels, dropout, 1x1 to the classes.

    Args:
        in_channels: Input channels.
        inner: Channels of the 3x3.
        num_classes: Output channels.
        wide: Channels of one more 3x3 at twice the size (training heads); 0 is none.
    """

    def __init__(self, in_channels: int, inner: int, num_classes: int, *, wide: int = 0) -> None:
        super().__init__()
        self.conv = ConvBN(in_channels, inner, 3)
        self.drop = nn.Dropout(0.1)
        # published keys count a resize before the second 3x3, and that one as entry 0
        grow = nn.Sequential(nn.Identity(), ConvBN(inner, wide, 3)) if wide else nn.Identity()
        self.wide = wide > 0
        self.conv_out = nn.Sequential(grow, nn.Conv2d(wide or inner, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into logits (N, num_classes, H, W), of twice the size where `wide`."""
        x = self.drop(self.conv(x))
        if self.wide:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        logits: Tensor = self.conv_out(x)
        return logits


class BiSeNetV2Trunk(nn.Module):
    """Both branches and their aggregation.

    Args:
        bilinear: Of the aggregation; see `Aggregation`.

    Shape:
        image (N, 3, H, W) -> the aggregated map (128 channels, stride 8) and the semantic branch's at strides 4, 8, 16
        and 32; any H and W, sizes rounded up.
    """

    feature_info: tuple[FeatureInfo, ...] = (
        FeatureInfo(128, 8, main=True),
        *(FeatureInfo(channels, 4 << k) for k, channels in enumerate(_SEMANTIC)),
    )

    def __init__(self, *, bilinear: bool = False) -> None:
        super().__init__()
        self.detail = detail_branch()
        self.segment = SemanticBranch()
        self.bga = Aggregation(bilinear=bilinear)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute five maps of an image; see the class."""
        maps = self.segment(image)
        return [self.bga(self.detail(image), maps[-1]), *maps[:-1]]


class BiSeNetV2(BiSeNetV2Trunk):
    """The network.

    Args:
        num_classes: Output channels.
        aux: Build the four heads that serve training only.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8); H and W are multiples of 32. The published code
        then resizes bilinearly to the input size (align_corners False).
    """

    def __init__(self, num_classes: int = 19, *, aux: bool = False) -> None:
        super().__init__()
        self.head = Head(128, 1024, num_classes)
        if aux:
            for (name, stride), in_channels in zip(_AUX.items(), _SEMANTIC, strict=True):
                self.add_module(name, Head(in_channels, 128, num_classes, wide=stride**2))
        self.checkpoint_ignores = () if aux else (r"^aux[2-5]",)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.head(self.features(image)[0])
        return logits

    def forward_train(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute logits at stride 8, and those of the training heads at strides 2, 4, 8, 16; needs `aux`."""
        fused, *maps = self.features(image)
        return self.head(fused), *(self.get_submodule(name)(x) for name, x in zip(_AUX, maps, strict=True))


@register(
    COINCHEUNG(
        system="BiSeNet V2",
        year=2021,
        paper="BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic Segmentation (IJCV 2021, "
        "arXiv 2004.02147)",
        classes_key="head.conv_out.1.weight",
        params=3_358_627,
        accuracy="Cityscapes val mIoU 74.95 at 1024x2048 (CoinCheung's README, retrained)",
    )
)
def bisenetv2(*, num_classes: int = 19, aux: bool = False) -> BiSeNetV2:
    """Build BiSeNet V2."""
    return BiSeNetV2(num_classes, aux=aux)
