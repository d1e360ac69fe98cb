"""Vision transformer (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv 2010.11929), as a backbone.

Equals mmsegmentation 1.2.2's VisionTransformer number for number, with its keys; third-party to the paper. All maps
have the stride of a patch. Dropout and stochastic depth are training-only and not built.

The position embedding belongs to one grid of patches. On another it is resized, from the parameter and the sizes alone,
so that an export at a fixed size holds the result as a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UnknownNameError, UsageError
from edgeseg.models.backbones.registry import register_backbone
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.keys import put_module
from edgeseg.models.layers.transformer import TransformerLayer, map_to_tokens, tokens_to_map

__all__ = ["VIT_SIZES", "ViTOptions", "VisionTransformer", "vit"]

VIT_SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
"""Channels, layers and heads by name."""

_PROJECTION = "patch_embed.projection"


def _pad_to(x: Tensor, multiple: int) -> Tensor:
    """Pad with zeros at the right and at the bottom, up to a multiple; no condition, for exports of free size."""
    return F.pad(x, (0, -x.shape[3] % multiple, 0, -x.shape[2] % multiple))


@dataclass(frozen=True, kw_only=True)
class ViTOptions:
    """Options of a `VisionTransformer`, named as in mmsegmentation.

    Attributes:
        img_size: Height x width that the position embedding is for; one number for both.
        patch_size: Side of a patch, and the stride of all maps.
        in_channels: Of the image.
        embed_dims: Channels of the tokens and of the maps.
        num_layers: Transformer layers.
        num_heads: Heads of their attention.
        mlp_ratio: Width inside their feed-forward networks, relative to `embed_dims`.
        out_indices: Layers whose result is put out, in order of depth; -1 is the last.
        qkv_bias: Bias of the attention's projections.
        with_cls_token: A class token goes through the layers too.
        output_cls_token: Put out the class token of every map as well.
        patch_bias: Bias of the patch embedding.
        final_norm: Layer norm after the last layer.
        interpolate_mode: How the position embedding is resized.
        num_fcs: Linear layers of the feed-forward networks.
        norm_eps: Of the layer norms; mmsegmentation writes it into ``norm_cfg``.

    Raises:
        UsageError: Class tokens are to be put out but not computed, or an index is no layer's.
    """

    img_size: int | Sequence[int] = 224
    patch_size: int = 16
    in_channels: int = 3
    embed_dims: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_ratio: int = 4
    out_indices: int | Sequence[int] = -1
    qkv_bias: bool = True
    with_cls_token: bool = True
    output_cls_token: bool = False
    patch_bias: bool = False
    final_norm: bool = False
    interpolate_mode: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    num_fcs: int = 2
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.output_cls_token and not self.with_cls_token:
            raise UsageError("output_cls_token needs with_cls_token; set both or none")
        layers = self.num_layers
        if any(not -layers <= index < layers for index in self._indices):
            raise UsageError(f"out_indices are {self._indices}; a transformer of {layers} layers has 0 to {layers - 1}")

    @property
    def _indices(self) -> list[int]:
        return [self.out_indices] if isinstance(self.out_indices, int) else list(self.out_indices)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches that the position embedding is for."""
        height, width = (self.img_size, self.img_size) if isinstance(self.img_size, int) else self.img_size
        return height // self.patch_size, width // self.patch_size

    @property
    def layers_out(self) -> tuple[int, ...]:
        """Indices of the layers that are put out, counted from the first."""
        return tuple(sorted(index % self.num_layers for index in self._indices))


class VisionTransformer(nn.Module):
    """The backbone.

    Args:
        options: Its sizes and what it puts out.

    Shape:
        image (N, in_channels, H, W) -> maps (N, embed_dims, ceil(H / patch_size), ceil(W / patch_size)), one per entry
        of `out_indices`; then their class tokens (N, embed_dims, 1, 1) where `output_cls_token`.
    """

    def __init__(self, options: ViTOptions) -> None:
        super().__init__()
        width, patch, eps = options.embed_dims, options.patch_size, options.norm_eps
        self.with_cls_token, self.output_cls_token = options.with_cls_token, options.output_cls_token
        self.patch_size, self.interpolate_mode = patch, options.interpolate_mode
        self.out_indices, self.grid = options.layers_out, options.grid
        put_module(self, _PROJECTION, nn.Conv2d(options.in_channels, width, patch, patch, bias=options.patch_bias))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        layer = partial(TransformerLayer, bias=options.qkv_bias, num_fcs=options.num_fcs, eps=eps)
        inner, heads = options.mlp_ratio * width, options.num_heads
        self.layers = nn.ModuleList(layer(width, heads, inner) for _ in range(options.num_layers))
        self.ln1 = nn.LayerNorm(width, eps=eps) if options.final_norm else nn.Identity()
        self.feature_info = tuple(FeatureInfo(width, patch) for _ in self.out_indices)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Compute the embedding (1, h * w, embed_dims) of a grid of h x w patches.

        As published, a grid with as many patches as the stored one is taken for the same, whatever its shape.
        """
        stored = self.pos_embed[:, 1:]
        if grid[0] * grid[1] == self.grid[0] * self.grid[1]:
            return stored
        align = None if self.interpolate_mode == "nearest" else False
        x = tokens_to_map(stored, self.grid)
        return map_to_tokens(F.interpolate(x, size=grid, mode=self.interpolate_mode, align_corners=align))

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Compute tokens (N, L, embed_dims) with positions, and the grid (h, w) of patches; L is h * w, or 1 more."""
        patches = self.get_submodule(_PROJECTION)(_pad_to(image, self.patch_size))
        grid = (patches.shape[2], patches.shape[3])
        tokens = map_to_tokens(patches) + self.positions(grid)
        if self.with_cls_token:
            first = self.cls_token + self.pos_embed[:, :1]
            tokens = torch.cat((first.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        return tokens, grid

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute maps of an image, then their class tokens where they are put out; see the class."""
        tokens, grid = self.embed(image)
        maps, firsts = [], []
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens)
            if index == len(self.layers) - 1:
                tokens = self.ln1(tokens)
            if index in self.out_indices:
                maps.append(tokens_to_map(tokens[:, 1:] if self.with_cls_token else tokens, grid))
                firsts.append(tokens[:, 0, :, None, None])
        return [*maps, *firsts] if self.output_cls_token else maps

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the same as `features`."""
        return self.features(image)


def vit(size: str, **options: Any) -> VisionTransformer:
    """Build a published size: patches of 16, positions for 512x512, a map after each quarter of the layers.

    Args:
        size: Of `VIT_SIZES`.
        options: Of `ViTOptions`, in place of these.

    Raises:
        UnknownNameError: No such size.
    """
    if size not in VIT_SIZES:
        raise UnknownNameError("vision transformer", size, VIT_SIZES)
    channels, layers, heads = VIT_SIZES[size]
    taps = tuple((k + 1) * layers // 4 - 1 for k in range(4))
    published = {"img_size": 512, "out_indices": taps, "norm_eps": 1e-6, **options}
    return VisionTransformer(ViTOptions(embed_dims=channels, num_layers=layers, num_heads=heads, **published))


for _size in VIT_SIZES:
    register_backbone(f"vit_{_size}")(partial(vit, _size))
