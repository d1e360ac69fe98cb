"""Dual attention head: between places, and between channels.

Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv 1809.02983. Equal to mmsegmentation 1.2.2's
DAHead, third-party. Its two further classifiers (``pam_conv_seg``, ``cam_conv_seg``) serve training only; they are
built because published checkpoints hold them. softmax(max - x) is computed as softmax(-x), which is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from edgeseg.models.heads.attention import Projection, Scale, SelfAttentionBlock
from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ChannelAttention", "DAHead", "PositionAttention"]


class PositionAttention(SelfAttentionBlock):
    """A map plus what its places attended to, times a learnt number.

    Args:
        channels: Of the map.
        inner: Of queries and keys.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__(
            channels,
            channels,
            inner,
            key_query=Projection(norm=False),
            value_out=Projection(norm=False),
            matmul_norm=False,
            with_out=False,
        )
        self.gamma = Scale()

    def refine(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        y: Tensor = self.gamma(self(x, x)) + x
        return y


class ChannelAttention(nn.Module):
    """A map plus what its channels took from each other, times a learnt number."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = Scale()

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, C, H, W) into maps of the same shape."""
        rows = x.flatten(2)
        weights = (-(rows @ rows.transpose(1, 2))).softmax(dim=-1)
        y: Tensor = self.gamma((weights @ rows).reshape(x.shape)) + x
        return y


@register_head("da")
class DAHead(DecodeHead):
    """Position attention and channel attention, each between two 3x3 blocks; their sum is classified.

    Args:
        pam_channels: Of queries and keys of the position attention.
        options: As `DecodeHead`.
    """

    def __init__(self, *, pam_channels: int = 64, **options: Unpack[HeadOptions]) -> None:
        super().__init__(**options)
        width = self.channels
        self.pam_in_conv = ConvBN(self.in_channels, width, 3)
        self.pam = PositionAttention(width, pam_channels)
        self.pam_out_conv = ConvBN(width, width, 3)
        self.pam_conv_seg = nn.Conv2d(width, self.num_classes, 1)
        self.cam_in_conv = ConvBN(self.in_channels, width, 3)
        self.cam = ChannelAttention()
        self.cam_out_conv = ConvBN(width, width, 3)
        self.cam_conv_seg = nn.Conv2d(width, self.num_classes, 1)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        x = self.select(features)
        places = self.pam_out_conv(self.pam.refine(self.pam_in_conv(x)))
        y: Tensor = places + self.cam_out_conv(self.cam(self.cam_in_conv(x)))
        return y
