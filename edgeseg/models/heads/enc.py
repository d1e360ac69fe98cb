"""Context encoding head.

Zhang et al., "Context Encoding for Semantic Segmentation", CVPR 2018, arXiv 1803.08904. Equal to mmsegmentation 1.2.2's
EncHead, third-party. ``se_layer`` serves a training loss only; it is built because published checkpoints hold it.
The residuals of every place to every codeword are never formed: their squares and sums are matrix products, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["EncHead", "EncModule", "Encoding"]


class Encoding(nn.Module):
    """Residuals of all places to each codeword, weighed by a softmax over the codewords of the scaled distances.

    Args:
        channels: Of the map.
        num_codes: Codewords.
    """

    def __init__(self, channels: int, num_codes: int) -> None:
        super().__init__()
        self.codewords = nn.Parameter(torch.randn(num_codes, channels) / (num_codes * channels) ** 0.5)
        self.scale = nn.Parameter(-torch.rand(num_codes))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into (N, num_codes, channels)."""
        rows = x.flatten(2)
        squares = (rows * rows).sum(dim=1, keepdim=True)
        lengths = (self.codewords * self.codewords).sum(dim=1)[:, None]
        distances = squares - 2.0 * (self.codewords @ rows) + lengths
        weights = (distances * self.scale[:, None]).softmax(dim=1)
        return weights @ rows.transpose(1, 2) - weights.sum(dim=2, keepdim=True) * self.codewords


class EncModule(nn.Module):
    """Channels weighed by a gate from the encoded residuals.

    Args:
        channels: Of the map.
        num_codes: Codewords.
    """

    def __init__(self, channels: int, num_codes: int) -> None:
        super().__init__()
        self.encoding_project = ConvBN(channels, channels, 1)
        self.encoding = nn.Sequential(Encoding(channels, num_codes), nn.BatchNorm1d(num_codes), nn.ReLU())
        self.fc = nn.Sequential(nn.Linear(channels, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        gate = self.fc(self.encoding(self.encoding_project(x)).mean(dim=1))
        return torch.relu(x + x * gate[..., None, None])


@register_head("enc")
class EncHead(DecodeHead):
    """The last map convolved, joined with the earlier ones where `add_lateral`, and encoded.

    Args:
        num_codes: Codewords.
        use_se_loss: Build ``se_layer``.
        add_lateral: Join the earlier maps, resized to the size of the last.
        options: As `DecodeHead`; it reads a list of maps.
    """

    reads_all = True
    default_transform = "multiple_select"

    def __init__(
        self,
        *,
        num_codes: int = 32,
        use_se_loss: bool = True,
        add_lateral: bool = False,
        **options: Unpack[HeadOptions],
    ) -> None:
        super().__init__(**options)
        width = self.channels
        self.add_lateral = add_lateral
        self.bottleneck = ConvBN(self.widths[-1], width, 3)
        if add_lateral:
            self.lateral_convs = nn.ModuleList(ConvBN(in_channels, width, 1) for in_channels in self.widths[:-1])
            self.fusion = ConvBN(len(self.widths) * width, width, 3)
        self.enc_module = EncModule(width, num_codes)
        if use_se_loss:
            self.se_layer = nn.Linear(width, self.num_classes)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified, at the size of the last map."""
        *lower, last = self.select_all(features)
        x = self.bottleneck(last)
        if self.add_lateral:
            sides = [self.resize(conv(each), x) for conv, each in zip(self.lateral_convs, lower, strict=True)]
            x = self.fusion(torch.cat((x, *sides), dim=1))
        y: Tensor = self.enc_module(x)
        return y
