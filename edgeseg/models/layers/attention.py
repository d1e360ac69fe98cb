"""Attention on maps, and what goes with it in the mobile transformers (TopFormer, SeaFormer).

Everything stays (N, C, H, W) or (N, C, L): no token is ever transposed to the last axis.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.folding import merge_convs

__all__ = ["ConvMLP", "QueryKeyValue", "attend", "conv_bn"]


def conv_bn(in_channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> ConvBN:
    """Build a convolution without bias, and BN, under the keys ``c`` and ``bn``."""
    return ConvBN(in_channels, out_channels, kernel, stride=stride, groups=groups, relu=False, names=("c", "bn"))


def attend(q: Tensor, k: Tensor, v: Tensor, *, heads: int, scale: float = 1.0) -> Tensor:
    """Compute softmax attention of every place to every place; Vaswani et al., NeurIPS 2017, arXiv 1706.03762.

    Args:
        q: Queries (N, heads * d, L); the channels of a head lie together.
        k: Keys (N, heads * d, M).
        v: Values (N, heads * e, M).
        heads: Number of heads.
        scale: Factor of the products.

    Returns:
        (N, heads * e, L).
    """
    n, _, length = q.shape
    queries, keys, values = (x.reshape(n, heads, x.shape[1] // heads, x.shape[2]) for x in (q, k, v))
    weights = (queries.transpose(2, 3) @ keys * scale).softmax(dim=-1)
    return (values @ weights.transpose(2, 3)).reshape(n, v.shape[1], length)


class QueryKeyValue(nn.Module):
    """Base of an attention with ``to_q``, ``to_k``, ``to_v``: 1x1 convolutions with BN, one convolution once fused.

    Args:
        channels: Of the map.
        keys: Channels of the queries and of the keys.
        values: Channels of the values.
    """

    def __init__(self, channels: int, keys: int, values: int) -> None:
        super().__init__()
        self.widths = [keys, keys, values]
        self.to_q = conv_bn(channels, keys)
        self.to_k = conv_bn(channels, keys)
        self.to_v = conv_bn(channels, values)
        self.merged: nn.Module | None = None

    def project(self, x: Tensor) -> Tensor:
        """Compute queries, keys and values of a map (N, C, H, W), concatenated along the channels."""
        if self.merged is not None:
            y: Tensor = self.merged(x)
            return y
        return torch.cat((self.to_q(x), self.to_k(x), self.to_v(x)), dim=1)

    def fuse(self) -> None:
        """Make one convolution of the three, whose BNs are folded by now."""
        if self.merged is not None:
            return
        parts = [module.get_submodule("c") for module in (self.to_q, self.to_k, self.to_v)]
        convs = [conv for conv in parts if isinstance(conv, nn.Conv2d) and conv.bias is not None]
        if len(convs) == 3:
            self.merged = merge_convs(convs)
            del self.to_q, self.to_k, self.to_v


class ConvMLP(nn.Module):
    """1x1 with BN, depthwise 3x3 with bias, ReLU6, 1x1 with BN.

    Args:
        channels: Input and output channels.
        inner: Channels in between.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.fc1 = conv_bn(channels, inner)
        self.dwconv = nn.Conv2d(inner, inner, 3, 1, 1, groups=inner)
        self.fc2 = conv_bn(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        y: Tensor = self.fc2(F.relu6(self.dwconv(self.fc1(x))))
        return y
