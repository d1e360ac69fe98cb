"""BiSeNet.

Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", ECCV 2018, arXiv 1808.00897.
Equals CoinCheung/BiSeNet, ``bisenetv1.py`` (third-party, the usual PyTorch implementation) number for number: a
ResNet-18 for context beside a shallow path for detail. Its head is much thinner than the paper's Res18 model, maps grow
by repetition, and the fusion's attention has one 1x1 with BN where the paper has two. ``conv_out16`` and
``conv_out32`` serve training only and are built with `aux`. mmsegmentation's form, with one ReLU more in the
attention, is `edgeseg.models.mmseg.bilateral`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from edgeseg.models.backbones.resnet import ResNet
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.bisenet import ContextRefinement, OutputHead
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["COINCHEUNG", "BiSeNetV1", "BiSeNetV1Trunk", "bisenetv1"]


class ContextPath(ContextRefinement):
    """ResNet-18, and its two deepest maps refined by attention and brought to stride 8."""

    def __init__(self) -> None:
        super().__init__(256, 512)
        self.resnet = ResNet(18)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute context at strides 8 and 16."""
        return self.refine(*self.resnet(image)[1:])


class SpatialPath(nn.Module):
    """Three strided convolutions and a 1x1: image to (N, 128, H / 8, W / 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBN(3, 64, 7, stride=2)
        self.conv2 = ConvBN(64, 64, 3, stride=2)
        self.conv3 = ConvBN(64, 64, 3, stride=2)
        self.conv_out = ConvBN(64, 128, 1)

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.conv_out(self.conv3(self.conv2(self.conv1(image))))
        return y


class FeatureFusion(nn.Module):
    """Joins two maps by a 1x1 and raises each channel by a weight from its average.

    Args:
        in_channels: Channels of both maps.
        out_channels: Output channels.
        relu: Activate before the weight's sigmoid.
    """

    def __init__(self, in_channels: int, out_channels: int, *, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.convblk = ConvBN(in_channels, out_channels, 1)
        self.conv = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x: Tensor = self.convblk(torch.cat((detail, context), dim=1))
        weights = self.bn(self.conv(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(torch.relu(weights) if self.relu else weights) + x

    def fuse(self) -> None:
        """Fold the attention's BN."""
        fold_bn_pair(self, "conv", "bn")


class BiSeNetV1Trunk(nn.Module):
    """Both paths and their fusion.

    Args:
        relu: Of the fusion; see `FeatureFusion`.

    Shape:
        image (N, 3, H, W) -> the fused map (256 channels, stride 8) and the context at strides 8 and 16; any H and W,
        sizes rounded up.
    """

    feature_info: tuple[FeatureInfo, ...] = (FeatureInfo(256, 8, main=True), FeatureInfo(128, 8), FeatureInfo(128, 16))

    def __init__(self, *, relu: bool = False) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.sp = SpatialPath()
        self.ffm = FeatureFusion(256, 256, relu=relu)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute three maps of an image; see the class."""
        fine, coarse = self.cp(image)
        return [self.ffm(self.sp(image), fine), fine, coarse]


class BiSeNetV1(BiSeNetV1Trunk):
    """The network.

    Args:
        num_classes: Output channels.
        aux: Build the two heads that serve training only.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 8), ceil(W / 8)); the published code takes multiples of
        32 and then resizes bilinearly to the input size (align_corners False).
    """

    def __init__(self, num_classes: int = 19, *, aux: bool = False) -> None:
        super().__init__()
        self.conv_out = OutputHead(256, 256, num_classes, bias=True)
        if aux:
            self.conv_out16 = OutputHead(128, 64, num_classes, bias=True)
            self.conv_out32 = OutputHead(128, 64, num_classes, bias=True)
        self.checkpoint_ignores = () if aux else (r"^conv_out(16|32)\.",)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.conv_out(self.features(image)[0])
        return logits

    def forward_train(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute logits at stride 8, and those of the training heads at strides 8 and 16; needs `aux`."""
        fused, fine, coarse = self.features(image)
        return self.conv_out(fused), self.conv_out16(fine), self.conv_out32(coarse)


COINCHEUNG = partial(
    ModelSpec,
    source="CoinCheung/BiSeNet, third-party",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=32,
    input=InputSpec.unit_scale((0.3257, 0.3690, 0.3223), (0.2112, 0.2148, 0.2115)),
    weights_licence="MIT",
    notes="Mean and std are those of the Cityscapes weights; the ADE20K and COCO-Stuff weights have others.",
)
"""What the specs of both versions have in common."""


@register(
    COINCHEUNG(
        system="BiSeNet",
        year=2018,
        paper="BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation (ECCV 2018, arXiv "
        "1808.00897)",
        classes_key="conv_out.conv_out.weight",
        params=13_275_539,
        accuracy="Cityscapes val mIoU 75.44 at 1024x2048 (CoinCheung's README, retrained)",
    )
)
def bisenetv1(*, num_classes: int = 19, aux: bool = False) -> BiSeNetV1:
    """Build BiSeNet on ResNet-18."""
    return BiSeNetV1(num_classes, aux=aux)
