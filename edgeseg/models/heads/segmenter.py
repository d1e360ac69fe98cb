"""Segmenter's mask transformer: class embeddings go through a transformer with the patches and are compared with them.

Strudel et al., "Segmenter: Transformer for Semantic Segmentation", ICCV 2021, arXiv 2105.05633. Equal to mmsegmentation
1.2.2's SegmenterMaskTransformerHead, third-party. The paper's linear head is `FCNHead` without convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.transformer import TransformerLayer, map_to_tokens, tokens_to_map

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SegmenterMaskTransformerHead"]


@register_head("segmenter")
class SegmenterMaskTransformerHead(DecodeHead):
    """Products of unit vectors of patches and classes, normed over the classes.

    Args:
        num_layers: Of the transformer.
        num_heads: Of its attention.
        embed_dims: Channels of its tokens.
        mlp_ratio: Width inside its feed-forward networks, relative to `embed_dims`.
        qkv_bias: Bias of the attention's projections.
        num_fcs: Linear layers of the feed-forward networks.
        norm_eps: Of all layer norms; mmsegmentation writes it into ``norm_cfg``.
        options: As `DecodeHead`; `channels` has no effect.

    Shape:
        list of maps -> logits (N, num_classes, H, W) at the stride of the map read.
    """

    output_stride = 32

    def __init__(
        self,
        *,
        num_layers: int = 2,
        num_heads: int = 3,
        embed_dims: int = 192,
        mlp_ratio: int = 4,
        qkv_bias: bool = True,
        num_fcs: int = 2,
        norm_eps: float = 1e-5,
        **options: Unpack[HeadOptions],
    ) -> None:
        super().__init__(**options)
        del self.conv_seg, self.dropout  # published without
        layer = partial(TransformerLayer, bias=qkv_bias, num_fcs=num_fcs, eps=norm_eps)
        self.layers = nn.ModuleList(layer(embed_dims, num_heads, mlp_ratio * embed_dims) for _ in range(num_layers))
        self.dec_proj = nn.Linear(self.in_channels, embed_dims)
        self.cls_emb = nn.Parameter(torch.randn(1, self.num_classes, embed_dims) * 0.02)
        self.patch_proj = nn.Linear(embed_dims, embed_dims, bias=False)
        self.classes_proj = nn.Linear(embed_dims, embed_dims, bias=False)
        self.decoder_norm = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.mask_norm = nn.LayerNorm(self.num_classes, eps=norm_eps)

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps; it keeps their width, in heads of 64 channels."""
        options = super().options_for(info)
        width = options["in_channels"]
        return {**options, "channels": width, "embed_dims": width, "num_heads": width // 64 if width % 64 == 0 else 1}

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the logits."""
        x = self.select(features)
        tokens = torch.cat((self.dec_proj(map_to_tokens(x)), self.cls_emb.expand(x.shape[0], -1, -1)), dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.decoder_norm(tokens)
        patches = F.normalize(self.patch_proj(tokens[:, : -self.num_classes]), dim=2)
        classes = F.normalize(self.classes_proj(tokens[:, -self.num_classes :]), dim=2)
        masks: Tensor = self.mask_norm(patches @ classes.transpose(1, 2))
        return tokens_to_map(masks, (x.shape[2], x.shape[3]))

    def classify(self, x: Tensor) -> Tensor:
        """Compute the logits themselves."""
        return x
