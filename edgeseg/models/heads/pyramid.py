"""Heads on pyramid pooling: PSPNet and UPerNet.

Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, arXiv 1612.01105; Xiao et al., "Unified Perceptual Parsing for
Scene Understanding", ECCV 2018, arXiv 1807.10221. Equal to mmsegmentation 1.2.2's PSPHead and UPerHead, third-party.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgeseg.models.heads.base import DecodeHead, HeadOptions, concat_resized
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.pyramid import BINS, pyramid_maps

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["PSPHead", "UPerHead"]


class _PyramidHead(DecodeHead):
    """Averages of the last map over each of `pool_scales` bins per side, reduced, resized back and joined by a 3x3."""

    def __init__(self, *, pool_scales: Sequence[int] = BINS, **options: Unpack[HeadOptions]) -> None:
        super().__init__(**options)
        self.pool_scales = tuple(pool_scales)
        in_channels, width = self.widths[-1], self.channels
        # Index 0 of the published Sequentials is the pool, which has no weights.
        levels = (nn.Sequential(nn.Identity(), ConvBN(in_channels, width, 1)) for _ in self.pool_scales)
        self.psp_modules = nn.ModuleList(levels)
        self.bottleneck = ConvBN(in_channels + len(self.pool_scales) * width, width, 3)

    def pyramid(self, x: Tensor) -> Tensor:
        """Turn maps (N, C, H, W) into (N, channels, H, W)."""
        maps = pyramid_maps(x, self.psp_modules, align_corners=self.align_corners, bins=self.pool_scales)
        y: Tensor = self.bottleneck(torch.cat((x, *maps), dim=1))
        return y


@register_head("psp")
class PSPHead(_PyramidHead):
    """Pyramid pooling.

    Args:
        pool_scales: Bins per side of each level.
        options: As `DecodeHead`.
    """

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        return self.pyramid(self.select(features))


@register_head("uper")
class UPerHead(_PyramidHead):
    """Pyramid pooling on the last map, then a feature pyramid down to the first, whose levels are joined by a 3x3.

    Args:
        pool_scales: Bins per side of each level.
        options: As `DecodeHead`; it reads a list of maps.
    """

    output_stride = 32
    reads_all = True
    default_transform = "multiple_select"

    def __init__(self, *, pool_scales: Sequence[int] = BINS, **options: Unpack[HeadOptions]) -> None:
        super().__init__(pool_scales=pool_scales, **options)
        width = self.channels
        self.lateral_convs = nn.ModuleList(ConvBN(in_channels, width, 1) for in_channels in self.widths[:-1])
        self.fpn_convs = nn.ModuleList(ConvBN(width, width, 3) for _ in self.widths[:-1])
        self.fpn_bottleneck = ConvBN(len(self.widths) * width, width, 3)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        *lower, last = self.select_all(features)
        above = self.pyramid(last)
        levels = [above]
        for k in reversed(range(len(lower))):
            x = self.lateral_convs[k](lower[k])
            above = x + self.resize(above, x)
            levels.insert(0, self.fpn_convs[k](above))
        y: Tensor = self.fpn_bottleneck(concat_resized(levels, align_corners=self.align_corners))
        return y
