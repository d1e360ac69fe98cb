"""The self-attention block that several heads share (DANet, ANN, OCRNet, ISANet), as mmsegmentation has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgeseg.models.heads.base import units
from edgeseg.models.layers.attention import attend
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.pooling import adaptive_avg_pool

__all__ = ["Projection", "Scale", "SelfAttentionBlock", "pooled_places"]


class Scale(nn.Module):
    """Multiply by one learnt number, 0 at first (``gamma`` of attention blocks)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Scale a tensor of any shape."""
        return x * self.scale


def pooled_places(x: Tensor, scales: Sequence[int]) -> Tensor:
    """Average maps (N, C, H, W) over each number of bins per side and put all bins in a row (N, C, L, 1)."""
    pooled = [adaptive_avg_pool(x, (n, n)).flatten(2) for n in scales]
    return torch.cat(pooled, dim=2)[..., None]


class Projection(NamedTuple):
    """1x1 convolutions from a map to queries, keys or values.

    Attributes:
        convs: How many in a row, where they have BN and ReLU.
        norm: BN and ReLU after each; without, one convolution with bias.
    """

    convs: int = 1
    norm: bool = True

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """Build it; a single convolution has no index in its key."""
        if not self.norm:
            return nn.Conv2d(in_channels, out_channels, 1)
        if self.convs == 1:
            return ConvBN(in_channels, out_channels, 1)
        return units(in_channels, out_channels, 1, self.convs)


_NORMED = Projection()


class SelfAttentionBlock(nn.Module):
    """Softmax attention of every place of one map to every place of another.

    Args:
        in_channels: Channels of the map that queries come from, and of the result.
        key_channels: Channels of the map that keys and values come from. None: it is the first map, and one projection
            makes queries and keys, under the published keys of both.
        inner: Channels of queries and keys, and of the values where `with_out`.
        key_pool_scales: Keys and values are averaged over these numbers of bins per side; empty keeps all places.
        key_query: Projections of keys and of queries.
        value_out: Projection of values, and the last one.
        matmul_norm: Divide the products by the root of `inner`.
        with_out: Project what was attended.

    Shape:
        (N, in_channels, H, W), (N, key_channels, h, w) -> (N, in_channels, H, W).
    """

    def __init__(
        self,
        in_channels: int,
        key_channels: int | None,
        inner: int,
        *,
        key_pool_scales: Sequence[int] = (),
        key_query: Projection = _NORMED,
        value_out: Projection = _NORMED,
        matmul_norm: bool = True,
        with_out: bool = True,
    ) -> None:
        super().__init__()
        self.key_pool_scales = tuple(key_pool_scales)
        self.scale = inner**-0.5 if matmul_norm else 1.0
        source = in_channels if key_channels is None else key_channels
        self.key_project = key_query.build(source, inner)
        self.query_project = self.key_project if key_channels is None else key_query.build(in_channels, inner)
        self.value_project = value_out.build(source, inner if with_out else in_channels)
        self.out_project = value_out.build(inner, in_channels) if with_out else None

    def forward(self, query_map: Tensor, key_map: Tensor) -> Tensor:
        """Attend; see the class."""
        query = self.query_project(query_map)
        shared = self.key_project is self.query_project and key_map is query_map
        key, value = query if shared else self.key_project(key_map), self.value_project(key_map)
        if self.key_pool_scales:
            key, value = (pooled_places(x, self.key_pool_scales) for x in (key, value))
        y = attend(query.flatten(2), key.flatten(2), value.flatten(2), heads=1, scale=self.scale)
        y = y.reshape(y.shape[0], y.shape[1], query.shape[2], query.shape[3])
        out: Tensor = y if self.out_project is None else self.out_project(y)
        return out
