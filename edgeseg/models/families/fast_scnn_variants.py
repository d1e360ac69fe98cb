"""Fast-SCNN as mmsegmentation and PaddleSeg have it.

Poudel et al., "Fast-SCNN: Fast Semantic Segmentation Network", BMVC 2019, arXiv 1902.04502. Both are third-party and
equal mmsegmentation 1.2.2 and PaddlePaddle/PaddleSeg number for number. Against `fast_scnn` (Tramac): depthwise
convolutions of separable ones have no activation, the pyramid ends in a 3x3, the first convolution is padded.
mmsegmentation's resizes have align_corners False, PaddleSeg's pyramid True; PaddleSeg's convolutions have bias, and its
pyramid is joined from the finest level to the coarsest.

Training-only: mmsegmentation's two auxiliary heads (``auxiliary_head``), built on request (``aux=True``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.fcn import DepthwiseSeparableFCNHead, FCNHead
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.depthwise import inverted_residual
from edgeseg.models.layers.paddleseg import PaddleConv, PaddleSeparable
from edgeseg.models.layers.pyramid import BINS, pyramid_maps
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.layers.separable import separable_conv_bn
from edgeseg.models.registry import register
from edgeseg.models.segmentor import Segmentor
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["FastSCNNBackbone", "FastSCNNPaddleSeg", "fast_scnn_mmseg", "fast_scnn_paddleseg", "mmseg_fastscnn"]

# Input and output channels and stride of the three stages of three inverted residuals.
_STAGES = ((64, 64, 2), (64, 96, 2), (96, 128, 1))


def row_of(names: tuple[str, ...], modules: tuple[nn.Module, ...]) -> nn.Sequential:
    """Build a Sequential with names."""
    row = nn.Sequential()
    for name, module in zip(names, modules, strict=True):
        row.add_module(name, module)
    return row


class Fusion(nn.Module):
    """ReLU of the detail map's 1x1 and the enlarged context map's depthwise 3x3 and 1x1.

    Args:
        depthwise: The depthwise block.
        low: The context map's 1x1 block.
        high: The detail map's 1x1 block.
        names: Keys of the last two.
    """

    def __init__(self, depthwise: nn.Module, low: nn.Module, high: nn.Module, names: tuple[str, str]) -> None:
        super().__init__()
        self.names = names
        self.dwconv = depthwise
        self.add_module(names[0], low)
        self.add_module(names[1], high)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        reduce_low, reduce_high = (self.get_submodule(name) for name in self.names)
        y: Tensor = reduce_high(high) + reduce_low(self.dwconv(resize_like(low, high)))
        return torch.relu(y)


class Extractor(nn.Module):
    """Three stages of inverted residuals to stride 32.

    Args:
        key: Name of the Sequential in an inverted residual.
        conv: Builds convolution, BN and ReLU; see `inverted_residual`.
    """

    def __init__(self, key: str, conv: Callable[..., nn.Module]) -> None:
        super().__init__()
        for k, (in_channels, out_channels, stride) in enumerate(_STAGES):
            first = inverted_residual(key, conv, in_channels, out_channels, stride=stride)
            rest = (inverted_residual(key, conv, out_channels, out_channels) for _ in range(2))
            self.add_module(f"bottleneck{k + 1}", nn.Sequential(first, *rest))

    def deep(self, x: Tensor) -> Tensor:
        """Turn maps (N, 64, H, W) into (N, 128, H / 4, W / 4)."""
        for k in range(len(_STAGES)):
            x = self.get_submodule(f"bottleneck{k + 1}")(x)
        return x


class MMSegExtractor(Extractor):
    """Extractor and pyramid pooling under mmsegmentation's keys."""

    def __init__(self) -> None:
        super().__init__("conv", ConvBN)
        # Index 0 of the published Sequentials is the pool, which has no weights.
        self.ppm = nn.ModuleList(nn.Sequential(nn.Identity(), ConvBN(128, 32, 1)) for _ in BINS)
        self.out = ConvBN(256, 128, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.deep(x)
        y: Tensor = self.out(torch.cat((x, *pyramid_maps(x, self.ppm, align_corners=False)), dim=1))
        return y


class FastSCNNBackbone(nn.Module):
    """mmsegmentation's backbone: image (N, 3, H, W) to maps of 64, 128 and 128 channels at strides 8, 32 and 8."""

    feature_info = (FeatureInfo(64, 8), FeatureInfo(128, 32), FeatureInfo(128, 8))

    def __init__(self) -> None:
        super().__init__()
        low = (ConvBN(3, 32, 3, stride=2), separable_conv_bn(32, 48, stride=2), separable_conv_bn(48, 64, stride=2))
        self.learning_to_downsample = row_of(("conv", "dsconv1", "dsconv2"), low)
        self.global_feature_extractor = MMSegExtractor()
        parts = ConvBN(128, 128, 3, groups=128), ConvBN(128, 128, 1, relu=False), ConvBN(64, 128, 1, relu=False)
        self.feature_fusion = Fusion(*parts, names=("conv_lower_res", "conv_higher_res"))

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute detail map, context map, fused map."""
        high = self.learning_to_downsample(image)
        low = self.global_feature_extractor(high)
        return [high, low, self.feature_fusion(high, low)]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the same as `features`."""
        return self.features(image)


def paddle_conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    relu: bool = True,
) -> PaddleConv:
    """Build PaddleSeg's convolution, BN, and ReLU where `relu`, with symmetric padding."""
    act: Literal["relu", "none"] = "relu" if relu else "none"
    return PaddleConv(in_channels, out_channels, kernel, stride=stride, groups=groups, bias=bias, act=act, same=False)


class PaddlePyramid(nn.Module):
    """Pyramid pooling, joined from 6 bins to 1."""

    def __init__(self) -> None:
        super().__init__()
        # Index 0 of the published Sequentials is the pool, which has no weights.
        stages = (nn.Sequential(nn.Identity(), paddle_conv(128, 32, 1, bias=True)) for _ in BINS)
        self.stages = nn.ModuleList(stages)
        self.conv_bn_relu2 = paddle_conv(256, 128, 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        maps = pyramid_maps(x, self.stages, align_corners=True)
        y: Tensor = self.conv_bn_relu2(torch.cat((x, *reversed(maps)), dim=1))
        return y


class PaddleExtractor(Extractor):
    """Extractor and pyramid pooling under PaddleSeg's keys."""

    def __init__(self) -> None:
        super().__init__("block", paddle_conv)
        self.ppm = PaddlePyramid()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.ppm(self.deep(x))
        return y


class FastSCNNPaddleSeg(nn.Module):
    """PaddleSeg's network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8); any H and W. The published code then
        resizes bilinearly to the input size.
    """

    checkpoint_ignores = (r"^auxlayer\.",)

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        separable = partial(PaddleSeparable, same=False)
        low = (PaddleConv(3, 32, 3, stride=2, act="relu"), separable(32, 48, stride=2), separable(48, 64, stride=2))
        self.learning_to_downsample = row_of(("conv_bn_relu", "dsconv_bn_relu1", "dsconv_bn_relu2"), low)
        self.global_feature_extractor = PaddleExtractor()
        self.feature_fusion = Fusion(
            paddle_conv(128, 128, 3, groups=128),
            paddle_conv(128, 128, 1, bias=True, relu=False),
            paddle_conv(64, 128, 1, bias=True, relu=False),
            names=("conv_low_res", "conv_high_res"),
        )
        head = (separable(128, 128), separable(128, 128), nn.Conv2d(128, num_classes, 1))
        self.classifier = row_of(("dsconv1", "dsconv2", "conv"), head)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        high = self.learning_to_downsample(image)
        logits: Tensor = self.classifier(self.feature_fusion(high, self.global_feature_extractor(high)))
        return logits


_SPEC = ModelSpec(
    system="Fast-SCNN",
    year=2019,
    paper="Fast-SCNN: Fast Semantic Segmentation Network (BMVC 2019, arXiv 1902.04502)",
    source="open-mmlab/mmsegmentation 1.2.2, third-party",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=1,
    input=InputSpec.imagenet(),
    classes_key="decode_head.conv_seg.weight",
    params=1_399_939,
    params_note="The record counts the auxiliary heads: 1,456,617.",
    accuracy="Cityscapes val mIoU 70.96 (mmsegmentation's README)",
    weights_licence="Apache-2.0",
    notes="No official code. Not the network of fast_scnn.",
)


def _mmseg(num_classes: int, *, aux: bool) -> Segmentor:
    """Build the network of mmsegmentation: image (N, 3, H, W) to logits at stride 8; any H and W."""
    head = DepthwiseSeparableFCNHead(in_channels=128, channels=128, concat_input=False, num_classes=num_classes)
    auxiliary = (
        FCNHead(
            in_channels=in_channels,
            channels=32,
            num_convs=1,
            concat_input=False,
            num_classes=num_classes,
            in_index=index,
        )
        for in_channels, index in ((128, -2), (64, -3))
    )
    return Segmentor(FastSCNNBackbone(), head, auxiliary_head=list(auxiliary) if aux else None)


@register(_SPEC)
def fast_scnn_mmseg(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build Fast-SCNN of mmsegmentation."""
    return _mmseg(num_classes, aux=aux)


@register(_SPEC.but(input_size=(512, 1024), params_note="", notes="The same network as fast_scnn_mmseg."))
def mmseg_fastscnn(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build Fast-SCNN of mmsegmentation, by the name of its configuration."""
    return _mmseg(num_classes, aux=aux)


@register(
    _SPEC.but(
        source="PaddlePaddle/PaddleSeg, third-party",
        input=InputSpec.unit_scale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        classes_key="classifier.conv.weight",
        params=1_401_187,
        params_note="",
        accuracy="Cityscapes val mIoU 69.31 (PaddleSeg's README)",
    )
)
def fast_scnn_paddleseg(*, num_classes: int = 19) -> FastSCNNPaddleSeg:
    """Build PaddleSeg's Fast-SCNN."""
    return FastSCNNPaddleSeg(num_classes)
