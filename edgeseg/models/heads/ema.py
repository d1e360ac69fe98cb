"""Expectation-maximisation attention head.

Li et al., "Expectation-Maximization Attention Networks for Semantic Segmentation", ICCV 2019, arXiv 1907.13426. Equal
to mmsegmentation 1.2.2's EMAHead, third-party. Training moves the bases by their running mean; inference starts from
them as stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.base import ConvBias, DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["EMAHead", "EMAModule"]


class EMAModule(nn.Module):
    """A map rebuilt from `bases` vectors, which a few rounds of expectation and maximisation fit to it.

    Args:
        channels: Of the map.
        bases: How many.
        stages: Rounds.
    """

    bases: Tensor

    def __init__(self, channels: int, *, bases: int, stages: int) -> None:
        super().__init__()
        self.stages = stages
        self.register_buffer("bases", F.normalize(torch.randn(1, channels, bases), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        rows = x.flatten(2)
        bases = self.bases
        weights = rows
        for _ in range(self.stages):
            weights = (rows.transpose(1, 2) @ bases).softmax(dim=2)
            bases = F.normalize(rows @ (weights / weights.sum(dim=1, keepdim=True)), dim=1)
        return (bases @ weights.transpose(1, 2)).reshape(x.shape)


@register_head("ema")
class EMAHead(DecodeHead):
    """A 3x3 block, plus what the attention rebuilt of it, convolved and joined with the input.

    Args:
        ema_channels: Width of the attention.
        num_bases: Of the attention.
        num_stages: Of the attention.
        concat_input: Join the input with the result.
        options: As `DecodeHead`.
    """

    def __init__(
        self,
        *,
        ema_channels: int,
        num_bases: int = 64,
        num_stages: int = 3,
        concat_input: bool = True,
        **options: Unpack[HeadOptions],
    ) -> None:
        super().__init__(**options)
        self.ema_module = EMAModule(ema_channels, bases=num_bases, stages=num_stages)
        self.ema_in_conv = ConvBN(self.in_channels, ema_channels, 3)
        self.ema_mid_conv = ConvBias(ema_channels, ema_channels, 1)
        self.ema_out_conv = ConvBN(ema_channels, ema_channels, 1, relu=False)
        self.bottleneck = ConvBN(ema_channels, self.channels, 3)
        self.conv_cat = ConvBN(self.in_channels + self.channels, self.channels, 3) if concat_input else None

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps; the attention is as wide as the head."""
        options = super().options_for(info)
        return {**options, "ema_channels": options["channels"]}

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        x = self.select(features)
        first = self.ema_in_conv(x)
        rebuilt = torch.relu(self.ema_module(self.ema_mid_conv(first)))
        y: Tensor = self.bottleneck(torch.relu(first + self.ema_out_conv(rebuilt)))
        return y if self.conv_cat is None else self.conv_cat(torch.cat((x, y), dim=1))
