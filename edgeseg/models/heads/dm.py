"""Dynamic multi-scale filter head: depthwise filters computed from the image.

He et al., "Dynamic Multi-scale Filters for Semantic Segmentation", ICCV 2019. Equal to mmsegmentation 1.2.2's DMHead,
third-party.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.pooling import adaptive_avg_pool

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DMHead", "DynamicFilter", "dynamic_depthwise"]


def dynamic_depthwise(x: Tensor, filters: Tensor) -> Tensor:
    """Compute a depthwise correlation with filters that differ from image to image, as a sum over their taps.

    Engines take run-time weights of convolutions unevenly; shifts, products and sums all of them take.

    Args:
        x: Maps (N, C, H, W).
        filters: (N, C, k, k).

    Returns:
        (N, C, H, W); zeros outside the map, one more above and to the left for even k.
    """
    h, w, size = x.shape[2], x.shape[3], filters.shape[2]
    before, after = size // 2, (size - 1) // 2
    padded = F.pad(x, (before, after, before, after)) if size > 1 else x
    total = padded[..., :h, :w] * filters[..., 0:1, 0:1]
    for tap in range(1, size * size):
        i, j = tap // size, tap % size
        total = total + padded[..., i : i + h, j : j + w] * filters[..., i : i + 1, j : j + 1]
    return total


class DynamicFilter(nn.Module):
    """The reduced map, filtered by what the averages over `size` x `size` regions say.

    Args:
        size: Of the filters.
        in_channels: Input channels.
        channels: Output channels.
        fusion: A 1x1 block at the end.
    """

    def __init__(self, size: int, in_channels: int, channels: int, *, fusion: bool) -> None:
        super().__init__()
        self.size = size
        self.filter_gen_conv = nn.Conv2d(in_channels, channels, 1)
        self.input_redu_conv = ConvBN(in_channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.fusion_conv = ConvBN(channels, channels, 1) if fusion else None

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, channels, H, W)."""
        filters = self.filter_gen_conv(adaptive_avg_pool(x, (self.size, self.size)))
        y = torch.relu(self.norm(dynamic_depthwise(self.input_redu_conv(x), filters)))
        return y if self.fusion_conv is None else self.fusion_conv(y)


@register_head("dm")
class DMHead(DecodeHead):
    """The map and its dynamically filtered forms, joined by a 3x3.

    Args:
        filter_sizes: Of the filters.
        fusion: As `DynamicFilter`.
        options: As `DecodeHead`.
    """

    def __init__(
        self, *, filter_sizes: Sequence[int] = (1, 3, 5, 7), fusion: bool = False, **options: Unpack[HeadOptions]
    ) -> None:
        super().__init__(**options)
        in_channels, width = self.in_channels, self.channels
        self.dcm_modules = nn.ModuleList(
            DynamicFilter(size, in_channels, width, fusion=fusion) for size in filter_sizes
        )
        self.bottleneck = ConvBN(in_channels + len(filter_sizes) * width, width, 3)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        x = self.select(features)
        y: Tensor = self.bottleneck(torch.cat((x, *(module(x) for module in self.dcm_modules)), dim=1))
        return y
