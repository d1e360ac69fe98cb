"""ContextNet, in two third-party readings.

Poudel et al., "ContextNet: Exploring Context and Detail for Semantic Segmentation in Real-time", BMVC 2018,
arXiv 1805.04554. There is no official code. `contextnet14` equals xiaoyufenfei/Efficient-Segmentation-Networks number
for number (full resolution and a quarter); its first convolutions have no padding. Against the paper (as far as known)
it lacks the dilation of the fusion and the last 3x3 of the deep branch. Its auxiliary head (``auxlayer``) serves
training only and is not built.

`contextnet14_zh320` equals zh320/realtime-semantic-segmentation-pytorch number for number: it has both, but its detail
branch strides once only and stays at stride 2, so it costs seven times as much, and its logits end in BN and ReLU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.layers.depthwise import (
    ConvBNReLU,
    FeatureFusion,
    ResidualRow,
    SeparableClassifier,
    SeparableConvReLU,
    inverted_residual,
    inverted_residuals,
)
from edgeseg.models.layers.resize import resize_bilinear, resize_like
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule

__all__ = ["ContextNet", "ContextNetZh320", "contextnet14", "contextnet14_zh320"]

# Expansion, channels, blocks, stride of the deep branch's stages.
_STAGES = ((1, 32, 1, 1), (6, 32, 1, 1), (6, 48, 3, 2), (6, 64, 3, 2), (6, 96, 2, 1), (6, 128, 2, 1))


def quarter_of(image: Tensor) -> Tensor:
    """Compute the image at a quarter of its height and width, rounded down."""
    return resize_bilinear(image, (image.shape[-2] // 4, image.shape[-1] // 4), align_corners=True)


class SpatialDetail(nn.Module):
    """(N, 3, H, W) to (N, 128, H / 8, W / 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvBNReLU(3, 32, 3, stride=2)
        self.dsconv1 = SeparableConvReLU(32, 64, stride=2)
        self.dsconv2 = SeparableConvReLU(64, 128, stride=2)
        self.dsconv3 = SeparableConvReLU(128, 128)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dsconv3(self.dsconv2(self.dsconv1(self.conv(x))))
        return y


class ContextExtractor(nn.Module):
    """(N, 3, h, w) to (N, 128, h / 8, w / 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_ = ConvBNReLU(3, 32, 3, stride=2)
        in_channels = 32
        self.stages = [f"bottleneck{k + 1}" for k in range(len(_STAGES))]
        for name, (expand, out_channels, blocks, stride) in zip(self.stages, _STAGES, strict=True):
            self.add_module(name, inverted_residuals(in_channels, out_channels, blocks, stride=stride, expand=expand))
            in_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_(x)
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return x


class ContextNet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8), rounded up after one unpadded convolution; any H
        and W from 12 on. The published code then resizes bilinearly to the input size (align_corners True).
    """

    checkpoint_ignores = (r"^auxlayer\.",)

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        self.spatial_detail = SpatialDetail()
        self.context_feature_extractor = ContextExtractor()
        self.feature_fusion = FeatureFusion(128)
        self.classifier = SeparableClassifier(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        low = self.context_feature_extractor(quarter_of(image))
        logits: Tensor = self.classifier(self.feature_fusion(self.spatial_detail(image), low))
        return logits


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    relu: bool = True,
) -> nn.Sequential:
    """Build a convolution, BN, and ReLU where `relu`."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, dilation * (kernel // 2), dilation, groups, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), *([nn.ReLU()] if relu else []))


def unit(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """Build part of an inverted residual: the expanding 1x1 has bias."""
    return conv_bn(
        in_channels, out_channels, kernel, stride=stride, groups=groups, bias=kernel == 1 and relu, relu=relu
    )


def detail_branch() -> nn.Sequential:
    """Build a strided 3x3, then three times depthwise 3x3 and 1x1: (N, 3, H, W) to (N, 128, H / 2, W / 2)."""
    layers = [conv_bn(3, 32, 3, stride=2)]
    for in_channels, out_channels in ((32, 64), (64, 128), (128, 128)):
        layers += [
            conv_bn(in_channels, in_channels, 3, groups=in_channels, relu=False),
            conv_bn(in_channels, out_channels, 1, bias=True),
        ]
    return nn.Sequential(*layers)


class DeepBranch(nn.Module):
    """The deep branch with a 3x3 at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_init = conv_bn(3, 32, 3, stride=2)
        blocks: list[ResidualRow] = []
        in_channels = 32
        for expand, out_channels, count, stride in _STAGES:
            for k in range(count):
                block = inverted_residual(
                    "conv", unit, in_channels, out_channels, stride=1 if k else stride, expand=expand
                )
                blocks.append(block)
                in_channels = out_channels
        self.bottlenecks = nn.Sequential(*blocks)
        self.conv_last = conv_bn(128, 128, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_last(self.bottlenecks(self.conv_init(x)))
        return y


class DilatedFusion(nn.Module):
    """ReLU of the detail map's 1x1 and the enlarged deep map's dilated separable convolution and 1x1."""

    def __init__(self) -> None:
        super().__init__()
        deepen = conv_bn(128, 128, 3, dilation=4, groups=128, relu=False)
        widen = conv_bn(128, 128, 1, bias=True, relu=False)
        self.branch_1_conv = nn.Conv2d(128, 128, 1, bias=False)
        self.branch_4_conv = nn.Sequential(nn.Sequential(deepen, widen), nn.Conv2d(128, 128, 1, bias=False))

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        low = self.branch_4_conv(resize_like(low, high, align_corners=True))
        return torch.relu(self.branch_1_conv(high) + low)


class ContextNetZh320(nn.Module):
    """zh320's network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 2, W / 2), not negative; any H and W from 8 on. The published
        code then resizes bilinearly to the input size (align_corners True).
    """

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        self.full_res_branch = detail_branch()
        self.lower_res_branch = DeepBranch()
        self.feature_fusion = DilatedFusion()
        self.classifier = conv_bn(128, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 2; see the class."""
        low = self.lower_res_branch(quarter_of(image))
        logits: Tensor = self.classifier(self.feature_fusion(self.full_res_branch(image), low))
        return logits


_SPEC = ModelSpec(
    system="ContextNet",
    year=2018,
    paper="ContextNet: Exploring Context and Detail for Semantic Segmentation in Real-time (BMVC 2018, "
    "arXiv 1805.04554)",
    source="xiaoyufenfei/Efficient-Segmentation-Networks, third-party",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=1,
    input=InputSpec("rgb", (73.1583, 82.909, 72.3924), (1.0, 1.0, 1.0)),
    resize=ResizeRule("stretch", "linear"),
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="classifier.conv.1.weight",
    params=876_563,
    accuracy="Cityscapes test mIoU 66.1 at 1024x2048 (paper)",
    weights_licence="MIT",
    notes="No official code and no published weights.",
)


@register(_SPEC)
def contextnet14(*, num_classes: int = 19) -> ContextNet:
    """Build ContextNet cn14: full resolution and a quarter."""
    return ContextNet(num_classes)


@register(
    _SPEC.but(
        source="zh320/realtime-semantic-segmentation-pytorch, third-party",
        input=InputSpec.imagenet(),
        classes_key="classifier.0.weight",
        params=1_008_870,
        accuracy="Cityscapes val mIoU 66.61 (zh320's README, retrained)",
        weights_licence="Apache-2.0",
        notes="No official code. The detail branch lacks two strides, so it costs seven times contextnet14.",
    )
)
def contextnet14_zh320(*, num_classes: int = 19) -> ContextNetZh320:
    """Build zh320's ContextNet."""
    return ContextNetZh320(num_classes)
