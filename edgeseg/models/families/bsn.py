"""BSN, the boundary-sensitive network for portraits: its base network, DeepLab v2 on ResNet-101 with three classes.

Du et al., "Boundary-sensitive Network for Portrait Segmentation", FG 2019, arXiv 1712.08675; base: Chen et al.,
"DeepLab", TPAMI 2018, arXiv 1606.00915. No implementation of BSN was ever published. The base equals
kazuto1011/deeplab-pytorch (third party, a port of the DeepLab authors' Caffe network, single scale) number for number.

What BSN adds serves training only and is not built: a third class for boundary pixels with soft labels, a weight per
place from the mean mask of the training set, and a hair-length classifier on the same trunk. Uncertain: the width of
the boundary band, the loss weights, where the classifier branches off, whether several scales were used, and how
boundary pixels are resolved at inference. The plain choice is the larger of background and foreground there.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from edgeseg.models.backbones.resnet import RESNET_BLOCKS
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["DeepLabV2", "bsn_base_deeplabv2_resnet101"]


class CaffeBottleneck(nn.Module):
    """ResNet's bottleneck as Caffe has it: the first 1x1 strides. The blocks stand under the published keys.

    Args:
        in_channels: Input channels.
        out_channels: Output channels; a quarter of them inside.
        stride: Of the first 1x1 and the shortcut.
        dilation: Of the 3x3.
        shortcut: Convolve the shortcut.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, shortcut: bool = False
    ) -> None:
        super().__init__()
        inner = out_channels // 4
        self.reduce = ConvBN(in_channels, inner, 1, stride=stride)
        self.conv3x3 = ConvBN(inner, inner, 3, dilation=dilation)
        self.increase = ConvBN(inner, out_channels, 1, relu=False)
        self.shortcut = ConvBN(in_channels, out_channels, 1, stride=stride, relu=False) if shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / stride, W / stride)."""
        return torch.relu(self.increase(self.conv3x3(self.reduce(x))) + self.shortcut(x))


def _stage(in_channels: int, out_channels: int, blocks: int, *, stride: int, dilation: int) -> nn.Sequential:
    """Build bottlenecks ``block1``, ``block2``, ...; the first strides and convolves its shortcut."""
    first = CaffeBottleneck(in_channels, out_channels, stride=stride, dilation=dilation, shortcut=True)
    units = OrderedDict[str, nn.Module](block1=first)
    for k in range(2, blocks + 1):
        units[f"block{k}"] = CaffeBottleneck(out_channels, out_channels, dilation=dilation)
    return nn.Sequential(units)


class AtrousSum(nn.Module):
    """Classifiers of several dilations, summed (DeepLab v2's ASPP).

    Args:
        in_channels: Input channels.
        num_classes: Output channels.
        rates: Dilation, and padding, of each 3x3.
    """

    def __init__(self, in_channels: int, num_classes: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        for k, rate in enumerate(rates):
            self.add_module(f"c{k}", nn.Conv2d(in_channels, num_classes, 3, 1, rate, rate))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, num_classes, H, W)."""
        scores = [branch(x) for branch in self.children()]
        y: Tensor = scores[0]
        for score in scores[1:]:
            y = y + score
        return y


class DeepLabV2(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        depth: Of the ResNet: 50 or 101.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, h, w) at stride 8, any height and width. The max pool rounds up,
        so a side of 128 gives 17 rows. The published code then resizes bilinearly to the input size (align_corners
        False; Caffe's original aligns corners). `features`: the four stages at strides 4, 8, 8, 8.
    """

    feature_info = (FeatureInfo(256, 4), FeatureInfo(512, 8), FeatureInfo(1024, 8), FeatureInfo(2048, 8))

    def __init__(self, num_classes: int = 3, *, depth: int = 101) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.layer1 = nn.Sequential(OrderedDict[str, nn.Module](conv1=ConvBN(3, 64, 7, stride=2), pool=pool))
        in_channels = 64
        for k, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4))):
            out_channels = 256 * 2**k
            stage = _stage(in_channels, out_channels, RESNET_BLOCKS[depth][k], stride=stride, dilation=dilation)
            self.add_module(f"layer{k + 2}", stage)
            in_channels = out_channels
        self.aspp = AtrousSum(in_channels, num_classes, (6, 12, 18, 24))

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute maps of the four stages of an image (N, 3, H, W)."""
        x, maps = self.layer1(image), []
        for k in (2, 3, 4, 5):
            x = self.get_submodule(f"layer{k}")(x)
            maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.aspp(self.features(image)[-1])
        return logits


@register(
    ModelSpec(
        system="BSN",
        year=2019,
        paper="Boundary-sensitive Network for Portrait Segmentation (FG 2019, arXiv 1712.08675); base: DeepLab v2 "
        "(arXiv 1606.00915)",
        source="kazuto1011/deeplab-pytorch, third-party: the base network only; BSN itself was never published",
        num_classes=3,
        labels="generic",
        input_size=(512, 512),
        divisor=1,
        input=InputSpec("bgr", (104.008, 116.669, 122.675)),
        classes_key="aspp.c0.bias",
        params=42_721_356,
        weights_licence="MIT",
        notes="Base network of BSN: 0 background, 1 foreground, 2 boundary. Uncertain: the input convention (that of "
        "Caffe's ResNet-101 is assumed), the published input size, and how boundary pixels are resolved.",
    )
)
def bsn_base_deeplabv2_resnet101(*, num_classes: int = 3) -> DeepLabV2:
    """Build DeepLab v2 on ResNet-101, the base of BSN."""
    return DeepLabV2(num_classes)
