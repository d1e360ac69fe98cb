"""The self-attention block that several heads share (DANet, ANN, OCRNet, ISANet), as mmsegmentation has it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.heads.base import units
from edgeseg.models.layers.attention import attend
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.pooling import adaptive_avg_pool

__all__ = ["Scale", "SelfAttentionBlock", "pooled_places"]


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


def _project(in_channels: int, out_channels: int, count: int, norm: bool) -> nn.Module:
    """`count` 1x1 convolutions with BN and ReLU, or one with bias; a single one has no index in its key."""
    if not norm:
        return nn.Conv2d(in_channels, out_channels, 1)
    return ConvBN(in_channels, out_channels, 1) if count == 1 else units(in_channels, out_channels, 1, count)


class SelfAttentionBlock(nn.Module):
    """Softmax attention of every place of one map to every place of another.

    Args:
        key_in_channels: Channels of the map that keys and values come from.
        query_in_channels: Channels of the map that queries come from.
        channels: Of queries and keys, and of the values where `with_out`.
        out_channels: Output channels.
        share_key_query: One projection makes both; its published keys are those of both.
        key_pool_scales: Keys and values are averaged over these numbers of bins per side; empty keeps all places.
        key_query_num_convs: Convolutions of the projection of keys, and of queries.
        value_out_num_convs: Of the projection of values, and of the last one.
        key_query_norm: Those of keys and queries have BN and ReLU, else a bias.
        value_out_norm: The same for values and the last one.
        matmul_norm: Divide the products by the root of `channels`.
        with_out: Project what was attended.

    Shape:
        (N, query_in_channels, H, W), (N, key_in_channels, h, w) -> (N, out_channels, H, W).
    """

    def __init__(
        self,
        *,
        key_in_channels: int,
        query_in_channels: int,
        channels: int,
        out_channels: int,
        share_key_query: bool = False,
        key_pool_scales: Sequence[int] = (),
        key_query_num_convs: int = 1,
        value_out_num_convs: int = 1,
        key_query_norm: bool = True,
        value_out_norm: bool = True,
        matmul_norm: bool = True,
        with_out: bool = True,
    ) -> None:
        super().__init__()
        self.key_pool_scales = tuple(key_pool_scales)
        self.scale = channels**-0.5 if matmul_norm else 1.0
        inner = channels if with_out else out_channels
        self.key_project = _project(key_in_channels, channels, key_query_num_convs, key_query_norm)
        if share_key_query:
            self.query_project = self.key_project
        else:
            self.query_project = _project(query_in_channels, channels, key_query_num_convs, key_query_norm)
        self.value_project = _project(key_in_channels, inner, value_out_num_convs, value_out_norm)
        self.out_project = _project(inner, out_channels, value_out_num_convs, value_out_norm) if with_out else None

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
