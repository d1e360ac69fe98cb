"""SETR: a vision transformer's maps upsampled to logits, naively, progressively (PUP), or from several layers (MLA).

Zheng et al., "Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers", CVPR 2021,
arXiv 2012.15840. Equal to mmsegmentation 1.2.2's SETRUPHead (naive and PUP differ in options only), SETRMLAHead and
MLANeck.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.base import DecodeHead, HeadOptions, Neck, units
from edgeseg.models.heads.registry import register_head, register_neck
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.pixelwise import ChannelNorm
from edgeseg.models.layers.resize import Upsample

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MLANeck", "SETRMLAHead", "SETRUPHead"]


@register_head("setr_up")
class SETRUPHead(DecodeHead):
    """Layer norm of every pixel, then convolution blocks, each followed by an upsampling.

    Args:
        num_convs: Blocks: 1 naive, 4 progressive.
        up_scale: Factor of each upsampling: 4 naive, 2 progressive.
        kernel_size: Of the blocks: 1 naive, 3 progressive.
        norm_eps: Of the layer norm (``norm_layer`` in mmsegmentation).
        options: As `DecodeHead`.
    """

    output_stride = 32

    def __init__(
        self,
        *,
        num_convs: int = 1,
        up_scale: int = 4,
        kernel_size: int = 3,
        norm_eps: float = 1e-6,
        **options: Unpack[HeadOptions],
    ) -> None:
        super().__init__(**options)
        if kernel_size not in (1, 3):
            raise UsageError(f"kernel_size is {kernel_size}; SETR's blocks have 1 or 3")
        self.norm = ChannelNorm(self.in_channels, eps=norm_eps)
        widths = [self.in_channels, *[self.channels] * num_convs]
        rows = (
            (ConvBN(widths[k], self.channels, kernel_size), Upsample(up_scale, align_corners=self.align_corners))
            for k in range(num_convs)
        )
        self.up_convs = nn.ModuleList(nn.Sequential(*row) for row in rows)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map (N, channels, H, W) times `up_scale` per block."""
        x = self.norm(self.select(features))
        for block in self.up_convs:
            x = block(x)
        result: Tensor = x
        return result


@register_head("setr_mla")
class SETRMLAHead(DecodeHead):
    """Two convolution blocks and an upsampling per map, concatenated.

    Args:
        mla_channels: Of every map; `channels` must be theirs together.
        up_scale: Factor of the upsampling.
        options: As `DecodeHead`; it reads a list of maps.
    """

    output_stride = 32
    reads_all = True
    default_transform = "multiple_select"

    def __init__(self, *, mla_channels: int = 128, up_scale: int = 4, **options: Unpack[HeadOptions]) -> None:
        super().__init__(**options)
        if mla_channels * len(self.widths) != self.channels:
            raise UsageError(
                f"channels is {self.channels}; {len(self.widths)} maps of mla_channels {mla_channels} have "
                f"{mla_channels * len(self.widths)}"
            )
        rows = (units(in_channels, mla_channels, 3, 2) for in_channels in self.widths)
        self.up_convs = nn.ModuleList(
            nn.Sequential(*row, Upsample(up_scale, align_corners=self.align_corners)) for row in rows
        )

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps; half their width is kept."""
        each = info[-1].channels // 2
        return {**super().options_for(info), "mla_channels": each, "channels": each * len(info)}

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map (N, channels, up_scale * H, up_scale * W)."""
        maps = self.select_all(features)
        return torch.cat([row(x) for row, x in zip(self.up_convs, maps, strict=True)], dim=1)


class _Aggregation(nn.Module):
    """1x1 blocks to one width, sums from the deepest map on, and a 3x3 block per sum."""

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.channel_proj = nn.ModuleList(ConvBN(width, out_channels, 1) for width in in_channels)
        self.feat_extract = nn.ModuleList(ConvBN(out_channels, out_channels, 3) for _ in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        levels = [project(x) for project, x in zip(self.channel_proj, maps, strict=True)]
        sums = accumulate(reversed(levels), add)
        return [extract(x) for extract, x in zip(self.feat_extract, sums, strict=True)]


@register_neck("mla")
class MLANeck(Neck):
    """Multi-level aggregation: maps of one size, normed, and each added to the sum of the deeper ones.

    Args:
        in_channels: Of the maps.
        out_channels: Of every map put out.
        norm_eps: Of the layer norms of the maps (``norm_layer`` in mmsegmentation).

    Shape:
        list of maps (N, in_channels[i], H, W) -> list of as many maps (N, out_channels, H, W), the deepest first.
    """

    def __init__(self, *, in_channels: Sequence[int], out_channels: int = 256, norm_eps: float = 1e-6) -> None:
        super().__init__(out_channels)
        self.norm = nn.ModuleList(ChannelNorm(width, eps=norm_eps) for width in in_channels)
        self.mla = _Aggregation(in_channels, out_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Compute maps from the deepest on; see the class."""
        levels: list[Tensor] = self.mla([norm(x) for norm, x in zip(self.norm, maps, strict=True)])
        return levels
