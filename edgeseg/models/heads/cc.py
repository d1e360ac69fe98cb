"""Criss-cross attention head: every place attends to its row and its column, twice, and so hears of the whole map.

Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation", ICCV 2019, arXiv 1811.11721. Equal to
mmsegmentation 1.2.2's CCHead, third-party; its operator is batched matrix products here, and no tensor has the square
of the number of places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgeseg.models.heads.attention import Scale
from edgeseg.models.heads.fcn import FCNHead, FCNOptions
from edgeseg.models.heads.registry import register_head

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CCHead", "CrissCrossAttention"]

_NEVER = -1e4
"""Added to an energy so that its weight is exactly 0; within the range of half precision."""


class CrissCrossAttention(nn.Module):
    """A map plus what its places took from their rows and columns, times a learnt number.

    One softmax runs over the column and the row; the place itself counts once, with the row.

    Args:
        channels: Of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 8, 1)
        self.query_conv = nn.Conv2d(channels, inner, 1)
        self.key_conv = nn.Conv2d(channels, inner, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = Scale()

    def _weights(self, query: Tensor, key: Tensor) -> Tensor:
        """Compute (N, H, W, H + W): per place, of its column and then its row."""
        rows = query.permute(0, 2, 3, 1) @ key.permute(0, 2, 1, 3)
        columns = query.permute(0, 3, 2, 1) @ key.permute(0, 3, 1, 2)
        columns = columns + _NEVER * torch.eye(query.shape[2], dtype=query.dtype, device=query.device)
        return torch.cat((columns.transpose(1, 2), rows), dim=-1).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        weights, value, h = self._weights(self.query_conv(x), self.key_conv(x)), self.value_conv(x), x.shape[2]
        columns = weights[..., :h].transpose(1, 2) @ value.permute(0, 3, 2, 1)  # N, W, H, C
        rows = weights[..., h:] @ value.permute(0, 2, 3, 1)  # N, H, W, C
        y: Tensor = self.gamma((columns.transpose(1, 2) + rows).permute(0, 3, 1, 2)) + x
        return y


@register_head("cc")
class CCHead(FCNHead):
    """An FCN head with criss-cross attention after its first convolution block.

    Args:
        recurrence: How often it is applied, with the same weights.
        options: As `FCNHead`.
    """

    def __init__(self, *, recurrence: int = 2, **options: Unpack[FCNOptions]) -> None:
        super().__init__(**options)
        self.recurrence = recurrence
        self.cca = CrissCrossAttention(self.channels)

    def between(self, x: Tensor) -> Tensor:
        """Attend between the convolution blocks."""
        for _ in range(self.recurrence):
            x = self.cca(x)
        return x
