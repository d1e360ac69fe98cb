"""PIDNet.

Xu et al., "PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers", CVPR 2023, arXiv 2206.02066.
Equals the authors' own implementation (XuJiacong/PIDNet, ``models/pidnet.py``) number for number. Three branches:
P keeps detail, I gathers context, D finds boundaries. The heads ``seghead_p`` and ``seghead_d`` serve training only and
are not built; published checkpoints hold them. The code's PIDNet-M is smaller than the paper's table says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.context import DAPPM, PAPPM, bn_relu_conv
from edgeseg.models.layers.dual_resolution import SegmentHead, stem
from edgeseg.models.layers.residual import BasicBlock, Bottleneck, residual_layer
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.layers.sequential import conv_bn
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["PIDNet", "PIDNetTrunk", "pidnet_l", "pidnet_m", "pidnet_s"]


class PixelAttention(nn.Module):
    """Pag: mixes the detail map with the context map pixel by pixel, by the similarity of both."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.f_x = conv_bn(channels, inner, 1)
        self.f_y = conv_bn(channels, inner, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        key = resize_like(self.f_y(y), x)
        share = torch.sigmoid((self.f_x(x) * key).sum(dim=1, keepdim=True))
        return (1.0 - share) * x + share * resize_like(y, x)


class LightBag(nn.Module):
    """Fusion of the three branches under the boundary's guidance, with 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_p = conv_bn(channels, channels, 1)
        self.conv_i = conv_bn(channels, channels, 1)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        edge = torch.sigmoid(d)
        y: Tensor = self.conv_p((1.0 - edge) * i + p) + self.conv_i(i + edge * p)
        return y


class Bag(nn.Module):
    """Fusion of the three branches under the boundary's guidance, with a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*bn_relu_conv(channels, channels, 3))

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        edge = torch.sigmoid(d)
        y: Tensor = self.conv(edge * p + (1.0 - edge) * i)
        return y


class PIDNetOptions(TypedDict, total=False):
    """Options of `PIDNetTrunk`."""

    m: int
    n: int
    planes: int
    ppm_planes: int
    large: bool


class PIDNetTrunk(nn.Module):
    """The three branches and their fusion.

    Args:
        m: Basic blocks of the shallow layers.
        n: Basic blocks of the deep layers.
        planes: Channels of the first layer.
        ppm_planes: Channels per scale of the pyramid pooling.
        large: DAPPM, a 3x3 fusion and a wide boundary branch (PIDNet-L) in place of the light ones.
        stem_bias: Of the first two convolutions.

    Shape:
        image (N, 3, H, W) -> maps at stride 8: the detail branch after the first fusion (2 planes), the boundary branch
        after the second (2 planes), and the fusion of all three (4 planes); H and W are multiples of 8.
    """

    def __init__(
        self,
        *,
        m: int = 2,
        n: int = 3,
        planes: int = 32,
        ppm_planes: int = 96,
        large: bool = False,
        stem_bias: bool = True,
    ) -> None:
        super().__init__()
        c = planes
        self.feature_info = tuple(FeatureInfo(width, 8) for width in (2 * c, 2 * c, 4 * c))
        self.conv1 = stem(c, bias=stem_bias)
        self.layer1 = residual_layer(BasicBlock, c, c, m)
        self.layer2 = residual_layer(BasicBlock, c, 2 * c, m, stride=2)
        self.layer3 = residual_layer(BasicBlock, 2 * c, 4 * c, n, stride=2)
        self.layer4 = residual_layer(BasicBlock, 4 * c, 8 * c, n, stride=2)
        self.layer5 = residual_layer(Bottleneck, 8 * c, 8 * c, 2, stride=2)
        self.compression3 = conv_bn(4 * c, 2 * c, 1)
        self.compression4 = conv_bn(8 * c, 2 * c, 1)
        self.pag3 = PixelAttention(2 * c, c)
        self.pag4 = PixelAttention(2 * c, c)
        self.layer3_ = residual_layer(BasicBlock, 2 * c, 2 * c, m)
        self.layer4_ = residual_layer(BasicBlock, 2 * c, 2 * c, m)
        self.layer5_ = residual_layer(Bottleneck, 2 * c, 2 * c, 1)
        edge = 2 * c if large else c
        self.layer3_d = BasicBlock(2 * c, edge, relu=False)
        self.layer4_d = BasicBlock(edge, edge, relu=False) if large else residual_layer(Bottleneck, c, c, 1)
        self.diff3 = conv_bn(4 * c, edge, 3)
        self.diff4 = conv_bn(8 * c, 2 * c, 3)
        self.spp = (DAPPM if large else PAPPM)(16 * c, ppm_planes, 4 * c)
        self.dfm = (Bag if large else LightBag)(4 * c)
        self.layer5_d = residual_layer(Bottleneck, 2 * c, 2 * c, 1)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute three maps of an image; see the class."""
        x = torch.relu(self.layer2(torch.relu(self.layer1(self.conv1(image)))))
        p, d = self.layer3_(x), self.layer3_d(x)
        x = torch.relu(self.layer3(x))
        p = self.pag3(p, self.compression3(x))
        d, early = d + resize_like(self.diff3(x), p), p
        x = torch.relu(self.layer4(x))
        p, d = self.layer4_(torch.relu(p)), self.layer4_d(torch.relu(d))
        p = self.pag4(p, self.compression4(x))
        d = d + resize_like(self.diff4(x), p)
        i = resize_like(self.spp(self.layer5(x)), p)
        fused = self.dfm(self.layer5_(torch.relu(p)), i, self.layer5_d(torch.relu(d)))
        return [early, d, fused]


class PIDNet(PIDNetTrunk):
    """The network.

    Args:
        num_classes: Output channels.
        head_planes: Inner channels of the head.
        options: As `PIDNetTrunk`.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8); H and W are multiples of 8. The published
        evaluation then resizes bilinearly to the label size (align_corners True).
    """

    checkpoint_ignores = (r"^seghead_[pd]\.",)

    def __init__(self, num_classes: int = 19, *, head_planes: int = 128, **options: Unpack[PIDNetOptions]) -> None:
        super().__init__(**options)
        self.final_layer = SegmentHead(self.feature_info[-1].channels, head_planes, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.final_layer(self.features(image)[-1])
        return logits


_SPEC = ModelSpec(
    system="PIDNet",
    year=2023,
    paper="PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers (CVPR 2023, arXiv 2206.02066)",
    source="XuJiacong/PIDNet, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=8,
    input=InputSpec.imagenet(),
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="final_layer.conv2.weight",
    params=7_625_715,
    accuracy="Cityscapes val mIoU 78.8 at 1024x2048",
    weights_licence="MIT",
    notes="Published checkpoints also hold seghead_p and seghead_d, which serve training and are not built.",
)


@register(_SPEC)
def pidnet_s(*, num_classes: int = 19) -> PIDNet:
    """Build PIDNet-S."""
    return PIDNet(num_classes)


@register(_SPEC.but(params=28_538_515, accuracy=""))
def pidnet_m(*, num_classes: int = 19) -> PIDNet:
    """Build PIDNet-M."""
    return PIDNet(num_classes, planes=64)


@register(_SPEC.but(params=36_939_571, accuracy="Cityscapes val mIoU 80.9 at 1024x2048"))
def pidnet_l(*, num_classes: int = 19) -> PIDNet:
    """Build PIDNet-L."""
    return PIDNet(num_classes, m=3, n=4, planes=64, ppm_planes=112, head_planes=256, large=True)
