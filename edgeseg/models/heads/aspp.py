"""Atrous spatial pyramid pooling (DeepLabV3, DeepLabV3+).

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, arXiv 1706.05587, and
"Encoder-Decoder with Atrous Separable Convolution", ECCV 2018, arXiv 1802.02611. Equal to mmsegmentation 1.2.2's
ASPPHead and DepthwiseSeparableASPPHead, third-party: the bottleneck is 3x3 where the paper has 1x1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.base import DecodeHead, HeadOptions, Unit, units
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.pooling import GlobalAvgPool
from edgeseg.models.layers.resize import expand_like
from edgeseg.models.layers.separable import separable_conv_bn

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ASPPHead", "ASPPOptions", "DepthwiseSeparableASPPHead"]

_separable = partial(separable_conv_bn, inner_relu=True)


class ASPPOptions(HeadOptions, total=False):
    """Options of `ASPPHead` that its subclass passes on."""

    dilations: Sequence[int]


@register_head("aspp")
class ASPPHead(DecodeHead):
    """The global average and one dilated convolution per rate side by side, joined by a 3x3.

    Args:
        dilations: Rates; 1 is a 1x1 convolution.
        unit: Makes the dilated branches.
        options: As `DecodeHead`.
    """

    def __init__(
        self, *, dilations: Sequence[int] = (1, 6, 12, 18), unit: Unit = ConvBN, **options: Unpack[HeadOptions]
    ) -> None:
        super().__init__(**options)
        in_channels, width = self.in_channels, self.channels
        self.image_pool = nn.Sequential(GlobalAvgPool(), ConvBN(in_channels, width, 1))
        branches = (
            ConvBN(in_channels, width, 1) if rate == 1 else unit(in_channels, width, 3, dilation=rate)
            for rate in dilations
        )
        self.aspp_modules = nn.ModuleList(branches)
        self.bottleneck = ConvBN((len(dilations) + 1) * width, width, 3)

    def pyramid(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, channels, H, W)."""
        branches = (branch(x) for branch in self.aspp_modules)
        y: Tensor = self.bottleneck(torch.cat((expand_like(self.image_pool(x), x), *branches), dim=1))
        return y

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        return self.pyramid(self.select(features))


@register_head("sep_aspp")
class DepthwiseSeparableASPPHead(ASPPHead):
    """`ASPPHead` with separable convolutions, then two more over its result and the backbone's first map.

    Args:
        c1_in_channels: Channels of the backbone's first map; 0 leaves it out.
        c1_channels: What they are reduced to.
        options: As `ASPPHead`.
    """

    def __init__(self, *, c1_in_channels: int, c1_channels: int, **options: Unpack[ASPPOptions]) -> None:
        super().__init__(unit=_separable, **options)
        self.joined = c1_in_channels > 0
        if self.joined:
            self.c1_bottleneck = ConvBN(c1_in_channels, c1_channels, 1)
        width = self.channels + (c1_channels if self.joined else 0)
        self.sep_bottleneck = units(width, self.channels, 3, 2, unit=_separable)

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps."""
        first = info[0].channels
        return {**super().options_for(info), "c1_in_channels": first, "c1_channels": 12 if first <= 64 else 48}

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified; the first map is the backbone's, whatever `in_index` says."""
        y = self.pyramid(self.select(features))
        if self.joined:
            first = self.c1_bottleneck(features[0])
            y = torch.cat((self.resize(y, first), first), dim=1)
        z: Tensor = self.sep_bottleneck(y)
        return z
