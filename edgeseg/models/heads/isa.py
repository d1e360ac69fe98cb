"""Interlaced sparse self-attention head: far places first, then near ones.

Huang et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", 2019, arXiv 1907.12273. Equal to
mmsegmentation 1.2.2's ISAHead, third-party. No tensor has more than five axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.attention import Projection, SelfAttentionBlock
from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ISAHead"]


class _Relation(SelfAttentionBlock):
    """Self-attention with a 1x1 block ``output_project`` after it."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__(
            channels,
            channels,
            inner,
            key_query=Projection(convs=2),
            value_out=Projection(norm=False),
            with_out=False,
        )
        self.output_project = ConvBN(channels, channels, 1)

    def relate(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        y: Tensor = self.output_project(self(x, x))
        return y


@register_head("isa")
class ISAHead(DecodeHead):
    """The map is cut into cells; places attend to those of equal offset in other cells, then to those of their cell.

    Args:
        isa_channels: Of queries and keys.
        down_factor: Height and width of a cell. The map is padded to whole cells with zeros, which take part.
        options: As `DecodeHead`.
    """

    def __init__(
        self, *, isa_channels: int, down_factor: Sequence[int] = (8, 8), **options: Unpack[HeadOptions]
    ) -> None:
        super().__init__(**options)
        self.cell = (down_factor[0], down_factor[1])
        self.in_conv = ConvBN(self.in_channels, self.channels, 3)
        self.global_relation = _Relation(self.channels, isa_channels)
        self.local_relation = _Relation(self.channels, isa_channels)
        self.out_conv = ConvBN(2 * self.channels, self.channels, 1)

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps."""
        options = super().options_for(info)
        return {**options, "isa_channels": max(options["channels"] // 2, 1)}

    def _related(self, x: Tensor) -> Tensor:
        """Compute both attentions on a map of whole cells."""
        n, c, h, w = x.shape
        down, across = self.cell
        rows, columns = h // down, w // across
        far = x.reshape(n * c, rows, down, columns, across).permute(2, 4, 0, 1, 3)
        far = self.global_relation.relate(far.reshape(down * across * n, c, rows, columns))
        near = far.reshape(down, across, n * c, rows, columns).permute(3, 4, 2, 0, 1)
        near = self.local_relation.relate(near.reshape(rows * columns * n, c, down, across))
        return near.reshape(rows, columns, n * c, down, across).permute(2, 0, 3, 1, 4).reshape(n, c, h, w)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        x = self.in_conv(self.select(features))
        h, w = x.shape[2:]
        below, right = -h % self.cell[0], -w % self.cell[1]
        top, left = below // 2, right // 2
        padded = F.pad(x, (left, right - left, top, below - top)) if below or right else x
        y = self._related(padded)[..., top : top + h, left : left + w]
        z: Tensor = self.out_conv(torch.cat((y, x), dim=1))
        return z
