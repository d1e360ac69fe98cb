"""Global context head.

Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCV workshops 2019,
arXiv 1904.11492. Equal to mmsegmentation 1.2.2's GCHead, third-party.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UsageError
from edgeseg.models.heads.fcn import FCNHead, FCNOptions
from edgeseg.models.heads.registry import register_head

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ContextBlock", "GCHead"]


class _VectorNorm(nn.LayerNorm):
    """Layer normalisation of (N, C, 1, 1); its weights have the shape (C, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__([channels, 1, 1])

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight.flatten(), self.bias.flatten()
        return F.layer_norm(input.flatten(1), (input.shape[1],), weight, bias, self.eps)[..., None, None]


def _transform(channels: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, inner, 1), _VectorNorm(inner), nn.ReLU(), nn.Conv2d(inner, channels, 1))


class ContextBlock(nn.Module):
    """One context vector of the whole map, transformed, and added to every place or multiplied with it.

    Args:
        channels: Of the map.
        ratio: Width inside the transforms, relative to `channels`.
        pooling_type: The vector is a softmax-weighted sum (``"att"``) or the average (``"avg"``).
        fusion_types: ``"channel_add"``, ``"channel_mul"`` (its sigmoid multiplies, before the addition), or both.
    """

    def __init__(
        self, channels: int, *, ratio: float, pooling_type: Literal["att", "avg"], fusion_types: Sequence[str]
    ) -> None:
        super().__init__()
        if not fusion_types or not {"channel_add", "channel_mul"}.issuperset(fusion_types):
            raise UsageError(f"fusion_types is {fusion_types}; channel_add and channel_mul are known, at least one")
        if pooling_type not in ("att", "avg"):
            raise UsageError(f"pooling_type is '{pooling_type}'; att and avg are known")
        inner = int(channels * ratio)
        self.conv_mask = nn.Conv2d(channels, 1, 1) if pooling_type == "att" else None
        self.channel_add_conv = _transform(channels, inner) if "channel_add" in fusion_types else None
        self.channel_mul_conv = _transform(channels, inner) if "channel_mul" in fusion_types else None

    def context(self, x: Tensor) -> Tensor:
        """Compute the context vector (N, channels, 1, 1) of a map."""
        if self.conv_mask is None:
            return x.mean((2, 3), keepdim=True)
        weights = self.conv_mask(x).flatten(2).softmax(dim=2)
        vector: Tensor = x.flatten(2) @ weights.transpose(1, 2)
        return vector[..., None]

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        context = self.context(x)
        y = x if self.channel_mul_conv is None else x * torch.sigmoid(self.channel_mul_conv(context))
        return y if self.channel_add_conv is None else y + self.channel_add_conv(context)


@register_head("gc")
class GCHead(FCNHead):
    """An FCN head with a context block after its first convolution block.

    Args:
        ratio: As `ContextBlock`.
        pooling_type: As `ContextBlock`.
        fusion_types: As `ContextBlock`.
        options: As `FCNHead`.
    """

    def __init__(
        self,
        *,
        ratio: float = 0.25,
        pooling_type: Literal["att", "avg"] = "att",
        fusion_types: Sequence[str] = ("channel_add",),
        **options: Unpack[FCNOptions],
    ) -> None:
        super().__init__(**options)
        self.gc_block = ContextBlock(self.channels, ratio=ratio, pooling_type=pooling_type, fusion_types=fusion_types)

    def between(self, x: Tensor) -> Tensor:
        """Add the context between the convolution blocks."""
        y: Tensor = self.gc_block(x)
        return y
