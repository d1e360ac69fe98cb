"""Asymmetric non-local head: places attend to pooled places.

Zhu et al., "Asymmetric Non-local Neural Networks for Semantic Segmentation", ICCV 2019, arXiv 1908.07678. Equal to
mmsegmentation 1.2.2's ANNHead, third-party.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.attention import Projection, SelfAttentionBlock
from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ANNHead", "AsymmetricBlock"]


class AsymmetricBlock(nn.Module):
    """A map joined with what its places take from pooled places of another (or the same) map.

    Args:
        low: Channels of the map that is attended to; None attends to the map itself, with shared projections.
        high: Channels of the map whose places attend, and of the result.
        inner: Of queries, keys and values.
        stages: Attention blocks whose results are summed.
        scales: Bins per side that keys and values are averaged over.
    """

    def __init__(self, low: int | None, high: int, *, inner: int, stages: int, scales: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            SelfAttentionBlock(high, low, inner, key_pool_scales=scales, value_out=Projection(norm=False))
            for _ in range(stages)
        )
        self.bottleneck = ConvBN(2 * high, high, 1, relu=low is None)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Turn maps (N, high, H, W) and (N, low, h, w) into (N, high, H, W)."""
        first, *rest = self.stages
        context = first(high, low)
        for stage in rest:
            context = context + stage(high, low)
        y: Tensor = self.bottleneck(torch.cat((context, high), dim=1))
        return y


@register_head("ann")
class ANNHead(DecodeHead):
    """The high map attends to the low one, is convolved by 3x3, and attends to itself.

    Args:
        project_channels: Of queries, keys and values.
        query_scales: One attention block each; only 1 is published.
        key_pool_scales: Bins per side that keys and values are averaged over.
        options: As `DecodeHead`; it reads two maps, the lower first.
    """

    default_transform = "multiple_select"

    def __init__(
        self,
        *,
        project_channels: int,
        query_scales: Sequence[int] = (1,),
        key_pool_scales: Sequence[int] = (1, 3, 6, 8),
        **options: Unpack[HeadOptions],
    ) -> None:
        super().__init__(**options)
        if len(self.widths) != 2 or set(query_scales) != {1}:
            raise UsageError(
                f"ANNHead got {len(self.widths)} maps and query_scales {list(query_scales)}; it reads two maps, and "
                "query scales are 1"
            )
        low, high = self.widths
        widths = {"inner": project_channels, "stages": len(query_scales)}
        self.fusion = AsymmetricBlock(low, high, scales=key_pool_scales, **widths)
        self.bottleneck = ConvBN(high, self.channels, 3)
        self.context = AsymmetricBlock(None, self.channels, scales=key_pool_scales, **widths)

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps: it reads the last two."""
        widths = [each.channels for each in info[-2:]]
        last = len(info) - 1
        width = widths[-1] // 4
        return {
            "in_channels": widths,
            "in_index": [last - 1, last],
            "channels": width,
            "project_channels": max(width // 2, 1),
        }

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        low, high = self.select_all(features)
        y = self.bottleneck(self.fusion(high, low))
        z: Tensor = self.context(y, y)
        return z
