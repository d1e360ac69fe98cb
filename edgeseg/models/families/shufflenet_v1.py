"""ShuffleNet v1 (groups 3), a classification network and backbone.

Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices", CVPR 2018,
arXiv 1707.01083. Equals the authors' own implementation (megvii-model/ShuffleNet-Series, ``ShuffleNetV1/network.py``)
number for number. Its weights depend on two departures from the usual description: the shuffle stands after the
depthwise convolution, and it is the inverse of the usual one. The published average over 7x7 takes 224x224 images only;
here the average is over the whole map, which is the same there and takes any size. Nothing is training-only.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.shuffle import channel_shuffle
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = [
    "ShuffleNetV1",
    "shufflenet_v1_g3_0_5x",
    "shufflenet_v1_g3_1_0x",
    "shufflenet_v1_g3_1_5x",
    "shufflenet_v1_g3_2_0x",
]

_BLOCKS = (4, 8, 4)
_STAGE_ENDS = tuple(accumulate(_BLOCKS))


class ShuffleUnit(nn.Module):
    """Grouped 1x1, depthwise 3x3, shuffle, grouped 1x1, and a shortcut.

    At stride 2 the shortcut is an average pool, joined by concatenation; the ReLU is then on the main part only.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: 1 or 2.
        groups: Of the 1x1 convolutions and the shuffle.
        first_groups: Of the first 1x1.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        inner, made = out_channels // 4, out_channels if stride == 1 else out_channels - in_channels
        self.stride, self.groups = stride, groups
        self.branch_main_1 = nn.Sequential(
            nn.Conv2d(in_channels, inner, 1, groups=first_groups, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
        )
        self.branch_main_2 = nn.Sequential(
            nn.Conv2d(inner, made, 1, groups=groups, bias=False),
            nn.BatchNorm2d(made),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / stride, W / stride)."""
        y: Tensor = self.branch_main_1(x)
        y = self.branch_main_2(channel_shuffle(y, y.shape[1] // self.groups))  # by C / g: the inverse shuffle
        if self.stride == 1:
            return torch.relu(x + y)
        return torch.cat((F.avg_pool2d(x, 3, 2, 1), torch.relu(y)), dim=1)


class StagedNetwork(nn.Module):
    """What v1 and v2 share: the stem (3x3 at stride 2, max pool) and three stages of units under the key ``features``.

    Args:
        channels: Of the stem and the three stages.
        unit: Builds one unit from input channels, output channels and stride.
    """

    def __init__(self, channels: tuple[int, int, int, int], unit: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__()
        stem = channels[0]
        self.first_conv = nn.Sequential(nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        units: list[nn.Module] = []
        for (in_channels, out_channels), blocks in zip(pairwise(channels), _BLOCKS, strict=True):
            units += [
                unit(in_channels, out_channels, 2),
                *(unit(out_channels, out_channels, 1) for _ in range(blocks - 1)),
            ]
        self.features = nn.Sequential(*units)
        self.feature_info = tuple(FeatureInfo(c, 4 * 2**k) for k, c in enumerate(channels))

    def feature_maps(self, image: Tensor) -> list[Tensor]:
        """Compute maps at strides 4, 8, 16, 32 of an image (N, 3, H, W)."""
        x = self.maxpool(self.first_conv(image))
        maps = [x]
        for k, unit in enumerate(self.features, start=1):
            x = unit(x)
            if k in _STAGE_ENDS:
                maps.append(x)
        return maps


class ShuffleNetV1(StagedNetwork):
    """The network.

    Args:
        num_classes: Output channels.
        stem: Channels of the first convolution.
        width: Channels of stage 2; they double per stage.
        groups: Of the 1x1 convolutions.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes), any height and width. `feature_maps`: the stem at stride 4
        and the ends of the stages at 8, 16 and 32.
    """

    def __init__(self, num_classes: int = 1000, *, stem: int = 24, width: int = 240, groups: int = 3) -> None:
        def unit(in_channels: int, out_channels: int, stride: int) -> ShuffleUnit:
            return ShuffleUnit(
                in_channels,
                out_channels,
                stride=stride,
                groups=groups,
                first_groups=1 if in_channels == stem else groups,
            )

        super().__init__((stem, width, 2 * width, 4 * width), unit)
        self.classifier = nn.Sequential(nn.Linear(4 * width, num_classes, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, num_classes); see the class."""
        logits: Tensor = self.classifier(self.feature_maps(image)[-1].mean((2, 3)))
        return logits


def megvii_spec(system: str, paper: str, *, year: int, source: str, params: int, accuracy: str) -> ModelSpec:
    """Return the conventions of the classification networks of megvii-model/ShuffleNet-Series."""
    return ModelSpec(
        system=system,
        year=year,
        paper=paper,
        source=f"megvii-model/ShuffleNet-Series ({source}), official",
        num_classes=1000,
        labels="generic",
        input_size=(224, 224),
        divisor=1,
        input=InputSpec("bgr"),
        classes_key="classifier.0.weight",
        params=params,
        accuracy=accuracy,
        weights_licence="MIT",
        notes="Classifier: one label per image. Published input: short side to 256 (OpenCV linear), centre crop "
        "224x224, BGR 0..255 without mean or std.",
    )


def _spec(params: int, top1: float) -> ModelSpec:
    return megvii_spec(
        "ShuffleNet v1",
        "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices (CVPR 2018, "
        "arXiv 1707.01083)",
        year=2018,
        source="ShuffleNetV1/network.py",
        params=params,
        accuracy=f"ImageNet top-1 {top1:.1f} % at 224x224" if top1 else "",
    )


@register(_spec(717_324, 57.3))
def shufflenet_v1_g3_0_5x(*, num_classes: int = 1000) -> ShuffleNetV1:
    """Build ShuffleNet v1 0.5x."""
    return ShuffleNetV1(num_classes, stem=12, width=120)


@register(_spec(1_864_728, 67.8))
def shufflenet_v1_g3_1_0x(*, num_classes: int = 1000) -> ShuffleNetV1:
    """Build ShuffleNet v1 1.0x."""
    return ShuffleNetV1(num_classes)


@register(_spec(3_441_168, 0.0))
def shufflenet_v1_g3_1_5x(*, num_classes: int = 1000) -> ShuffleNetV1:
    """Build ShuffleNet v1 1.5x."""
    return ShuffleNetV1(num_classes, width=360)


@register(_spec(5_449_776, 74.1))
def shufflenet_v1_g3_2_0x(*, num_classes: int = 1000) -> ShuffleNetV1:
    """Build ShuffleNet v1 2.0x."""
    return ShuffleNetV1(num_classes, stem=48, width=480)
