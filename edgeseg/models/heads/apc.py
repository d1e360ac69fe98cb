"""Adaptive pyramid context head.

He et al., "Adaptive Pyramid Context Network for Semantic Segmentation", CVPR 2019. Equal to mmsegmentation 1.2.2's
APCHead, third-party.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.pooling import adaptive_avg_pool
from edgeseg.models.layers.pyramid import BINS

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["APCHead", "AdaptiveContext"]


class AdaptiveContext(nn.Module):
    """Every place takes from the averages of `bins` x `bins` regions what its affinity to each says.

    Args:
        bins: Regions per side.
        in_channels: Input channels.
        channels: Output channels.
        fusion: A 1x1 block at the end.
    """

    def __init__(self, bins: int, in_channels: int, channels: int, *, fusion: bool) -> None:
        super().__init__()
        self.bins = bins
        self.pooled_redu_conv = ConvBN(in_channels, channels, 1)
        self.input_redu_conv = ConvBN(in_channels, channels, 1)
        self.global_info = ConvBN(channels, channels, 1)
        self.gla = nn.Conv2d(channels, bins**2, 1)
        self.residual_conv = ConvBN(channels, channels, 1)
        self.fusion_conv = ConvBN(channels, channels, 1) if fusion else None

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, channels, H, W)."""
        regions = self.pooled_redu_conv(adaptive_avg_pool(x, (self.bins, self.bins)))
        z = self.input_redu_conv(x)
        affinity = torch.sigmoid(self.gla(z + self.global_info(z.mean((2, 3), keepdim=True))))
        taken = (regions.flatten(2) @ affinity.flatten(2)).reshape(z.shape)
        y = torch.relu(self.residual_conv(taken) + z)
        return y if self.fusion_conv is None else self.fusion_conv(y)


@register_head("apc")
class APCHead(DecodeHead):
    """The map and its adaptive contexts at several scales, joined by a 3x3.

    Args:
        pool_scales: Regions per side of each context.
        fusion: As `AdaptiveContext`.
        options: As `DecodeHead`.
    """

    def __init__(
        self, *, pool_scales: Sequence[int] = BINS, fusion: bool = True, **options: Unpack[HeadOptions]
    ) -> None:
        super().__init__(**options)
        in_channels, width = self.in_channels, self.channels
        self.acm_modules = nn.ModuleList(
            AdaptiveContext(bins, in_channels, width, fusion=fusion) for bins in pool_scales
        )
        self.bottleneck = ConvBN(in_channels + len(pool_scales) * width, width, 3)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        x = self.select(features)
        y: Tensor = self.bottleneck(torch.cat((x, *(module(x) for module in self.acm_modules)), dim=1))
        return y
