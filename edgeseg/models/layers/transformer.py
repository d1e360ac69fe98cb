"""A transformer on tokens (N, L, C): attention, feed-forward network, and the layer of both, with mmcv's key names.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762; Dosovitskiy et al., "An Image is Worth
16x16 Words: Transformers for Image Recognition at Scale", ICLR 2021, arXiv 2010.11929. Modules return what the
published ones do before their skip; the owner adds it. Dropout and stochastic depth are training-only and not built.
The products and the softmax are written out, so that an export holds MatMul and Softmax and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UsageError

__all__ = ["FFN", "MultiheadAttention", "TransformerLayer", "map_to_tokens", "tokens_to_map"]


def map_to_tokens(x: Tensor) -> Tensor:
    """Compute maps (N, C, H, W) as tokens (N, H * W, C), row by row."""
    return x.flatten(2).transpose(1, 2)


def tokens_to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute tokens (N, H * W, C) as maps (N, C, H, W); `size` is (H, W)."""
    n, _, channels = tokens.shape
    return tokens.transpose(1, 2).reshape(n, channels, *size)


class _PackedAttention(nn.Module):
    """Multi-head attention whose three input projections are one matrix; keys of ``nn.MultiheadAttention``."""

    def __init__(self, channels: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads, self.scale = heads, (channels // heads) ** -0.5
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        nn.init.xavier_uniform_(self.in_proj_weight)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels)) if bias else None
        self.out_proj = nn.Linear(channels, channels, bias=bias)

    def _project(self, query: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values; of one product where all have one source."""
        if context is None:
            q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
            return q, k, v
        width = query.shape[-1]
        biases = (None, None) if self.in_proj_bias is None else (self.in_proj_bias[:width], self.in_proj_bias[width:])
        k, v = F.linear(context, self.in_proj_weight[width:], biases[1]).chunk(2, dim=-1)
        return F.linear(query, self.in_proj_weight[:width], biases[0]), k, v

    def _split(self, x: Tensor) -> Tensor:
        """Compute (N, L, C) as (N, heads, L, C / heads)."""
        n, length, channels = x.shape
        return x.reshape(n, length, self.heads, channels // self.heads).transpose(1, 2)

    def forward(self, query: Tensor, context: Tensor | None = None) -> Tensor:
        q, k, v = (self._split(x) for x in self._project(query, context))
        weights = ((q * self.scale) @ k.transpose(2, 3)).softmax(dim=-1)
        y: Tensor = self.out_proj((weights @ v).transpose(1, 2).reshape(query.shape))
        return y


class MultiheadAttention(nn.Module):
    """Softmax attention of tokens to tokens; keys ``attn.in_proj_weight``, ``attn.in_proj_bias``, ``attn.out_proj``.

    Args:
        channels: Of the tokens.
        heads: Number of heads, which divides `channels`.
        bias: Of all projections.

    Shape:
        query (N, L, C), context (N, M, C) or None for the query itself -> (N, L, C).

    Raises:
        UsageError: `heads` does not divide `channels`.
    """

    def __init__(self, channels: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        if channels % heads:
            raise UsageError(f"{channels} channels are not divisible by {heads} heads; choose another number of heads")
        self.attn = _PackedAttention(channels, heads, bias=bias)

    def forward(self, query: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute what the tokens gather; without the skip."""
        y: Tensor = self.attn(query, context)
        return y


class FFN(nn.Module):
    """Linear to `inner` and activation, `num_fcs` - 1 times, and Linear back; keys ``layers.0.0`` ... ``layers.1``.

    Args:
        channels: Of the tokens.
        inner: Channels in between.
        num_fcs: Linear layers.
        act: Makes the activation; GELU is the exact one, by erf.
    """

    def __init__(self, channels: int, inner: int, *, num_fcs: int = 2, act: Callable[[], nn.Module] = nn.GELU) -> None:
        super().__init__()
        widths = [channels, *[inner] * (num_fcs - 1)]
        hidden = (nn.Sequential(nn.Linear(widths[k], inner), act()) for k in range(num_fcs - 1))
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn tokens (..., channels) into tokens of the same shape; without the skip."""
        y: Tensor = self.layers(tokens)
        return y


class TransformerLayer(nn.Module):
    """Attention and feed-forward network, each behind a layer norm and added to its input (pre-norm).

    Args:
        channels: Of the tokens.
        heads: Of the attention.
        inner: Channels inside the feed-forward network.
        bias: Of the attention's projections (``qkv_bias``).
        num_fcs: Linear layers of the feed-forward network.
        eps: Of the norms.
    """

    def __init__(
        self, channels: int, heads: int, inner: int, *, bias: bool = True, num_fcs: int = 2, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(channels, eps=eps)
        self.attn = MultiheadAttention(channels, heads, bias=bias)
        self.ln2 = nn.LayerNorm(channels, eps=eps)
        self.ffn = FFN(channels, inner, num_fcs=num_fcs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn tokens (N, L, channels) into tokens of the same shape."""
        tokens = tokens + self.attn(self.ln1(tokens))
        y: Tensor = tokens + self.ffn(self.ln2(tokens))
        return y
