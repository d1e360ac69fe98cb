"""Mix Transformer (MiT), the backbone of SegFormer.

Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", NeurIPS 2021,
arXiv 2105.15203. Equal to mmsegmentation 1.2.2's MixVisionTransformer, third-party; unlike in the authors' code, every
layer norm has an eps of 1e-6. There is no position embedding: the depthwise convolutions tell positions apart.
Stochastic depth is training-only and not built.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from edgeseg.errors import UnknownNameError
from edgeseg.models.backbones.registry import register_backbone
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.transformer import MultiheadAttention, map_to_tokens, tokens_to_map

__all__ = ["MIT_DEPTHS", "MixVisionTransformer", "mit"]

MIT_DEPTHS: dict[str, tuple[int, int, int, int]] = {
    "b0": (2, 2, 2, 2),
    "b1": (2, 2, 2, 2),
    "b2": (3, 4, 6, 3),
    "b3": (3, 4, 18, 3),
    "b4": (3, 8, 27, 3),
    "b5": (3, 6, 40, 3),
}
"""Blocks per stage by variant; B0 has 32 channels per head, the others 64."""

_norm = partial(nn.LayerNorm, eps=1e-6)


class PatchEmbed(nn.Module):
    """A strided convolution with overlapping windows, and a norm of every token."""

    def __init__(self, in_channels: int, out_channels: int, *, patch: int, stride: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, out_channels, patch, stride, patch // 2)
        self.norm = _norm(out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Compute tokens (N, L, out_channels) of a map (N, in_channels, H, W), and their grid's height and width."""
        y = self.projection(x)
        return self.norm(map_to_tokens(y)), (y.shape[2], y.shape[3])


class ReducedAttention(nn.Module):
    """Attention of all tokens to those of a map that a convolution shrank by `ratio`; what is left over is dropped.

    Args:
        channels: Of the tokens.
        heads: Number of heads.
        ratio: Kernel size and stride of the convolution; with 1 there is none.
        bias: Of the attention's projections.
    """

    def __init__(self, channels: int, heads: int, *, ratio: int, bias: bool = True) -> None:
        super().__init__()
        self.attn = MultiheadAttention(channels, heads, bias=bias).attn  # keys attn.in_proj_weight and so on
        self.ratio = ratio
        if ratio > 1:
            self.sr = nn.Conv2d(channels, channels, ratio, ratio)
            self.norm = _norm(channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Turn tokens (N, H * W, channels) of a grid `size` into tokens of the same shape; without the skip."""
        context = self.norm(map_to_tokens(self.sr(tokens_to_map(tokens, size)))) if self.ratio > 1 else None
        y: Tensor = self.attn(tokens, context)
        return y


class MixFFN(nn.Module):
    """1x1 to `inner` channels, depthwise 3x3, GELU, 1x1 back, on the map of the tokens."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.Conv2d(inner, inner, 3, 1, 1, groups=inner),
            nn.GELU(),
            nn.Identity(),  # published dropout
            nn.Conv2d(inner, channels, 1),
        )

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Turn tokens (N, H * W, channels) of a grid `size` into tokens of the same shape; without the skip."""
        return map_to_tokens(self.layers(tokens_to_map(tokens, size)))


class MixBlock(nn.Module):
    """Attention and `MixFFN`, each behind a norm and added to its input."""

    def __init__(self, channels: int, heads: int, *, ratio: int, expand: int, bias: bool) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.attn = ReducedAttention(channels, heads, ratio=ratio, bias=bias)
        self.norm2 = _norm(channels)
        self.ffn = MixFFN(channels, expand * channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Turn tokens (N, H * W, channels) of a grid `size` into tokens of the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens), size)
        y: Tensor = tokens + self.ffn(self.norm2(tokens), size)
        return y


class MixVisionTransformer(nn.Module):
    """The backbone.

    Args:
        embed_dims: Channels per head.
        num_layers: Blocks of the stages.
        num_heads: Of the stages; a stage is `embed_dims` times as wide.
        patch_sizes: Kernel sizes of the convolutions before the stages.
        strides: Of these convolutions.
        sr_ratios: By how much the stages shrink the map that is attended to.
        mlp_ratio: Width inside the feed-forward networks, relative to the stage's.
        qkv_bias: Of the attention's projections.

    Shape:
        image (N, 3, H, W) -> one map per stage, as `feature_info` declares; any height and width from 29, sizes
        rounded up.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        num_layers: tuple[int, ...],
        num_heads: tuple[int, ...] = (1, 2, 5, 8),
        patch_sizes: tuple[int, ...] = (7, 3, 3, 3),
        strides: tuple[int, ...] = (4, 2, 2, 2),
        sr_ratios: tuple[int, ...] = (8, 4, 2, 1),
        mlp_ratio: int = 4,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        in_channels, reduction, info = 3, 1, []
        stages = zip(num_layers, num_heads, patch_sizes, strides, sr_ratios, strict=True)
        for depth, heads, patch, stride, ratio in stages:
            width = embed_dims * heads
            blocks = (MixBlock(width, heads, ratio=ratio, expand=mlp_ratio, bias=qkv_bias) for _ in range(depth))
            embed = PatchEmbed(in_channels, width, patch=patch, stride=stride)
            self.layers.append(nn.ModuleList((embed, nn.ModuleList(blocks), _norm(width))))
            in_channels, reduction = width, reduction * stride
            info.append(FeatureInfo(width, reduction))
        self.feature_info = tuple(info)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute one map per stage of an image (N, 3, H, W); see the class."""
        x, maps = image, []
        for stage in self.layers:
            embed, blocks, norm = stage.children()
            tokens, size = embed(x)
            for block in blocks.children():
                tokens = block(tokens, size)
            x = tokens_to_map(norm(tokens), size)
            maps.append(x)
        return maps


def mit(variant: str) -> MixVisionTransformer:
    """Build MiT of a variant of `MIT_DEPTHS`.

    Raises:
        UnknownNameError: No such variant.
    """
    if variant not in MIT_DEPTHS:
        raise UnknownNameError("MiT variant", variant, MIT_DEPTHS)
    return MixVisionTransformer(embed_dims=32 if variant == "b0" else 64, num_layers=MIT_DEPTHS[variant])


for _variant in MIT_DEPTHS:
    register_backbone(f"mit_{_variant}")(partial(mit, _variant))
