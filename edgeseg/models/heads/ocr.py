"""Object-contextual representation head: places attend to the regions of the classes, which another head found.

Yuan et al., "Object-Contextual Representations for Semantic Segmentation", ECCV 2020, arXiv 1909.11065. Equal to
mmsegmentation 1.2.2's OCRHead, third-party.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edgeseg.errors import UsageError
from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.attention import Projection, SelfAttentionBlock
from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["OCRHead", "ObjectAttentionBlock", "region_features"]


def region_features(x: Tensor, logits: Tensor) -> Tensor:
    """Average a map over the regions of the classes, weighted by the softmax of the logits over the places.

    Args:
        x: Maps (N, C, H, W).
        logits: (N, K, H, W).

    Returns:
        (N, C, K, 1).
    """
    weights = logits.flatten(2).softmax(dim=2)
    return (x.flatten(2) @ weights.transpose(1, 2))[..., None]


class ObjectAttentionBlock(SelfAttentionBlock):
    """Attention of places to regions; what they took and the map are joined by a 1x1.

    Args:
        width: Channels of the map, of the regions and of the result.
        inner: Of queries, keys and values.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(width, width, inner, key_query=Projection(convs=2))
        self.bottleneck = ConvBN(2 * width, width, 1)

    def forward(self, query_map: Tensor, key_map: Tensor) -> Tensor:
        """Turn places (N, width, H, W) and regions (N, width, K, 1) into (N, width, H, W)."""
        context = super().forward(query_map, key_map)
        y: Tensor = self.bottleneck(torch.cat((context, query_map), dim=1))
        return y


@register_head("ocr")
class OCRHead(DecodeHead):
    """Refines another head's logits, of the size of the map that it reads itself.

    Args:
        ocr_channels: Of queries, keys and values.
        scale: Only 1: published code ends in an error for any other.
        options: As `DecodeHead`.

    Shape:
        list of maps, with logits (N, num_classes, H, W) at its end -> logits of the same shape.
    """

    refines = True

    def __init__(self, *, ocr_channels: int, scale: int = 1, **options: Unpack[HeadOptions]) -> None:
        super().__init__(**options)
        if scale != 1:
            raise UsageError(f"OCRHead got scale {scale}; only 1 is defined")
        self.object_context_block = ObjectAttentionBlock(self.channels, ocr_channels)
        self.bottleneck = ConvBN(self.in_channels, self.channels, 3)

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps."""
        options = super().options_for(info)
        return {**options, "ocr_channels": max(options["channels"] // 2, 1)}

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        *maps, coarse = features
        x = self.bottleneck(self.select(maps))
        y: Tensor = self.object_context_block(x, region_features(x, coarse))
        return y
