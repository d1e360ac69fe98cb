"""STDC1 and STDC2 (short-term dense concatenation), as backbones.

Fan et al., "Rethinking BiSeNet For Real-time Semantic Segmentation", CVPR 2021, arXiv 2104.13188. One graph serves
every published form of it; an `STDCStyle` holds what differs: the key names, and whether the average pool beside a
strided block counts the zero padding (PyTorch) or not (Paddle).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.conv_bn import ConvBN

__all__ = [
    "MMSEG",
    "OFFICIAL",
    "PADDLE",
    "STDC",
    "STDC1_BLOCKS",
    "STDC2_BLOCKS",
    "STDC_INFO",
    "SUPER_GRADIENTS",
    "STDCBlock",
    "STDCStyle",
    "seq_conv",
]

STDC1_BLOCKS = (2, 2, 2)
"""Blocks per stage (strides 8, 16, 32) of STDC1, STDCNet813."""

STDC2_BLOCKS = (4, 5, 3)
"""Blocks per stage of STDC2, STDCNet1446."""

_WIDTHS = (32, 64, 256, 512, 1024)

STDC_INFO = tuple(FeatureInfo(width, 2 << k) for k, width in enumerate(_WIDTHS))
"""The maps of the backbone: strides 2 to 32."""


@dataclass(frozen=True)
class STDCStyle:
    """How a repository lays the network out.

    Attributes:
        layout: All layers in a row under ``features``; or five stages under ``stages``, by number or as ``block_s8``.
        convs: Key of a block's convolutions.
        down: Key of the strided depthwise convolution; "" puts it before the second convolution, inside it.
        count_pad: The average pool of a strided block counts the padding.
    """

    layout: Literal["features", "stages", "blocks"] = "features"
    convs: str = "conv_list"
    down: str = "avd_layer"
    count_pad: bool = True

    def conv(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> nn.Module:
        """Build a convolution, BN, ReLU."""
        if self.layout == "blocks":
            return seq_conv(in_channels, out_channels, kernel, stride=stride)
        return ConvBN(in_channels, out_channels, kernel, stride=stride)

    def strided(self, channels: int) -> nn.Module:
        """Build a depthwise 3x3 with stride 2, BN."""
        if self.layout == "features":
            conv = nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(channels))
        if self.layout == "blocks":
            return seq_conv(channels, channels, 3, stride=2, groups=channels, relu=False)
        return ConvBN(channels, channels, 3, stride=2, groups=channels, relu=False)


OFFICIAL = STDCStyle()
"""MichaelFan01/STDC-Seg."""

PADDLE = STDCStyle(count_pad=False)
"""PaddlePaddle/PaddleSeg; the keys are the official ones."""

SUPER_GRADIENTS = STDCStyle(layout="blocks", down="")
"""Deci-AI/super-gradients."""

MMSEG = STDCStyle(layout="stages", convs="layers", down="downsample")
"""open-mmlab/mmsegmentation."""


def seq_conv(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """Build a convolution, BN, and ReLU where `relu`, under the key ``seq`` as in super-gradients."""
    return nn.Sequential(
        OrderedDict(seq=ConvBN(in_channels, out_channels, kernel, stride=stride, groups=groups, relu=relu))
    )


class STDCBlock(nn.Module):
    """A 1x1 and three 3x3s in a row, each with BN and ReLU; the outputs of all four are joined.

    They have a half, a quarter, an eighth and an eighth of the output's channels. Where the block strides, a depthwise
    convolution halves the first output on its way to the second, and an average pool on its way to the output.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: 1 or 2.
        style: Keys and pool.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, style: STDCStyle = OFFICIAL) -> None:
        super().__init__()
        widths = (out_channels // 2, out_channels // 4, out_channels // 8, out_channels // 8)
        convs = [style.conv(in_channels, widths[0], 1), *(style.conv(a, b, 3) for a, b in pairwise(widths))]
        self.names, self.halves = (style.convs, style.down), stride == 2
        if self.halves and style.down:
            self.add_module(style.down, style.strided(widths[0]))
        elif self.halves:
            convs[1] = nn.Sequential(style.strided(widths[0]), convs[1])
        self.add_module(style.convs, nn.ModuleList(convs))
        self.skip = nn.AvgPool2d(3, 2, 1, count_include_pad=style.count_pad) if self.halves else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        first, *rest = self.get_submodule(self.names[0]).children()
        x = first(x)
        maps = [self.skip(x)]
        if self.halves and self.names[1]:
            x = self.get_submodule(self.names[1])(x)
        for conv in rest:
            x = conv(x)
            maps.append(x)
        return torch.cat(maps, dim=1)


def _stages(blocks: tuple[int, int, int], style: STDCStyle) -> list[list[nn.Module]]:
    """Build the layers of each of the five stages; every stage halves the map."""
    stages: list[list[nn.Module]] = [[style.conv(a, b, 3, stride=2)] for a, b in ((3, 32), (32, 64))]
    for (in_channels, out_channels), count in zip(pairwise(_WIDTHS[1:]), blocks, strict=True):
        rest = (STDCBlock(out_channels, out_channels, style=style) for _ in range(count - 1))
        stages.append([STDCBlock(in_channels, out_channels, stride=2, style=style), *rest])
    return stages


def _stage_key(k: int, style: STDCStyle) -> str:
    return str(k) if style.layout == "stages" else f"block_s{2 << k}"


class STDC(nn.Module):
    """The backbone; its maps come from `feature_maps`, since published keys take the name ``features``.

    Args:
        blocks: Blocks of the last three stages: `STDC1_BLOCKS` or `STDC2_BLOCKS`.
        style: Keys and pool.
        aliases: Hold every tensor under a second key too (``x2`` .. ``x32``), as the official state dicts do; the
            second counts where a checkpoint's two differ. For the layout ``features``.
        imagenet_classes: Classes of the ImageNet classifier's layers (``conv_last``, ``fc``, ``bn``, ``linear``);
            None leaves them out. The maps do not use them.

    Shape:
        image (N, 3, H, W) -> five maps of 32, 64, 256, 512 and 1024 channels at strides 2, 4, 8, 16 and 32, any size
        (odd sizes round up).
    """

    def __init__(
        self,
        blocks: tuple[int, int, int] = STDC1_BLOCKS,
        *,
        style: STDCStyle = OFFICIAL,
        aliases: bool = False,
        imagenet_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.feature_info = STDC_INFO
        stages = _stages(blocks, style)
        self._paths = self._lay_out(stages, style)
        if imagenet_classes is not None:
            self._add_classifier(imagenet_classes)
        if aliases:
            self._add_aliases(stages)

    def _lay_out(self, stages: list[list[nn.Module]], style: STDCStyle) -> list[list[str]]:
        """Register the layers; returns the paths of each stage's."""
        if style.layout == "features":
            self.features = nn.Sequential(*(layer for stage in stages for layer in stage))
            ends = [sum(map(len, stages[: k + 1])) for k in range(len(stages))]
            return [[f"features.{i}" for i in range(a, b)] for a, b in pairwise((0, *ends))]
        bare = style.layout == "stages"  # a stage of one convolution is that convolution itself
        rows = [(stage[0] if bare and len(stage) == 1 else nn.Sequential(*stage)) for stage in stages]
        keys = [_stage_key(k, style) for k in range(len(rows))]
        self.stages = nn.Sequential(OrderedDict(zip(keys, rows, strict=True)))
        return [[f"stages.{key}"] for key in keys]

    def _add_classifier(self, num_classes: int) -> None:
        width = _WIDTHS[-1]
        self.conv_last = ConvBN(width, width, 1)
        self.fc = nn.Linear(width, width, bias=False)
        self.bn = nn.BatchNorm1d(width)
        self.linear = nn.Linear(width, num_classes, bias=False)

    def _add_aliases(self, stages: list[list[nn.Module]]) -> None:
        start = 0
        for info, stage in zip(STDC_INFO, stages, strict=True):
            named = OrderedDict((str(start + i), layer) for i, layer in enumerate(stage))
            self.add_module(f"x{info.reduction}", nn.Sequential(nn.Sequential(named)))
            start += len(stage)

    def feature_maps(self, image: Tensor) -> list[Tensor]:
        """Compute five maps of an image (N, 3, H, W); see the class."""
        maps, x = [], image
        for paths in self._paths:
            for path in paths:
                x = self.get_submodule(path)(x)
            maps.append(x)
        return maps
