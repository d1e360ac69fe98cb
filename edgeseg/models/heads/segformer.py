"""SegFormer's head: every level reduced by a 1x1, resized to the first, joined by one more 1x1.

Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", NeurIPS 2021,
arXiv 2105.15203. Equal to mmsegmentation 1.2.2's SegformerHead, third-party; it differs from the authors' code, whose
1x1 per level has a bias and neither BN nor ReLU, and which concatenates the levels in the reverse order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.base import DecodeHead, HeadOptions, concat_resized
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SegformerHead"]


@register_head("segformer")
class SegformerHead(DecodeHead):
    """A 1x1 block per level, and one over all of them at the size of the first.

    Args:
        options: As `DecodeHead`; it reads a list of maps.
    """

    output_stride = 32
    reads_all = True
    default_transform = "multiple_select"

    def __init__(self, **options: Unpack[HeadOptions]) -> None:
        super().__init__(**options)
        self.convs = nn.ModuleList(ConvBN(in_channels, self.channels, 1) for in_channels in self.widths)
        self.fusion_conv = ConvBN(len(self.widths) * self.channels, self.channels, 1)

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps; published 256 wide on every backbone."""
        return {**super().options_for(info), "channels": 256}

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        levels = [conv(x) for conv, x in zip(self.convs, self.select_all(features), strict=True)]
        y: Tensor = self.fusion_conv(concat_resized(levels, align_corners=self.align_corners))
        return y
