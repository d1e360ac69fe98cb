"""DPT: a vision transformer's maps reassembled at four strides and fused from the deepest on.

Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021, arXiv 2103.13413. Equal to mmsegmentation 1.2.2's
DPTHead, third-party. Upsamplings by two have align_corners, whatever the head's own. On a grid of patches with an odd
side the deepest map rounds up, and the finer maps are resized to what grows from it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.base import ConvBias, DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.resize import resize_like, upsample
from edgeseg.models.layers.transformer import map_to_tokens, tokens_to_map

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DPTHead"]

Readout = Literal["ignore", "add", "project"]
_READOUTS = ("ignore", "add", "project")


class _Reassemble(nn.Module):
    """Class tokens joined with their maps, 1x1 to one width per map, and resizing by 4, 2, 1 and 1/2."""

    def __init__(self, embed_dims: int, widths: Sequence[int], readout: Readout) -> None:
        super().__init__()
        self.readout = readout
        self.projects = nn.ModuleList(ConvBias(embed_dims, width, 1) for width in widths)
        a, b, _, d = widths
        layers = (
            nn.ConvTranspose2d(a, a, 4, 4),
            nn.ConvTranspose2d(b, b, 2, 2),
            nn.Identity(),
            nn.Conv2d(d, d, 3, 2, 1),
        )
        self.resize_layers = nn.ModuleList(layers)
        if readout == "project":
            self.readout_projects = nn.ModuleList(
                nn.Sequential(nn.Linear(2 * embed_dims, embed_dims), nn.GELU()) for _ in widths
            )

    def _join(self, index: int, x: Tensor, token: Tensor) -> Tensor:
        """Compute a map (N, C, H, W) with its class token (N, C, 1, 1)."""
        if self.readout == "add":
            return x + token
        tokens = map_to_tokens(x)
        both = torch.cat((tokens, map_to_tokens(token).expand_as(tokens)), dim=-1)
        return tokens_to_map(self.readout_projects[index](both), (x.shape[2], x.shape[3]))

    def forward(self, maps: Sequence[Tensor], tokens: Sequence[Tensor]) -> list[Tensor]:
        joined = (
            maps
            if self.readout == "ignore"
            else [self._join(k, *pair) for k, pair in enumerate(zip(maps, tokens, strict=True))]
        )
        rows = zip(self.projects, self.resize_layers, joined, strict=True)
        return [resize(project(x)) for project, resize, x in rows]


class _ResidualUnit(nn.Module):
    """ReLU, 3x3 and BN, twice, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(channels, channels, 3, relu=False)
        self.conv2 = ConvBN(channels, channels, 3, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv2(torch.relu(self.conv1(torch.relu(x))))
        return y


class _Fusion(nn.Module):
    """What comes from deeper maps, plus a unit of this one where `both`; a unit, twice the size, a 1x1 with bias."""

    def __init__(self, channels: int, *, both: bool) -> None:
        super().__init__()
        self.project = ConvBias(channels, channels, 1)
        if both:
            self.res_conv_unit1 = _ResidualUnit(channels)
        self.res_conv_unit2 = _ResidualUnit(channels)

    def forward(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        if level is not None:
            same = x.shape[2:] == level.shape[2:]
            x = x + self.res_conv_unit1(level if same else resize_like(level, x))
        y: Tensor = self.project(upsample(self.res_conv_unit2(x), 2, align_corners=True))
        return y


@register_head("dpt")
class DPTHead(DecodeHead):
    """Four maps of one stride become a pyramid, which is fused to half that stride times four.

    Args:
        embed_dims: Channels of the maps.
        post_process_channels: Channels of the reassembled maps, the finest first.
        readout_type: What becomes of the class tokens: ``"ignore"``, ``"add"`` to every place, or ``"project"``, a
            linear layer and GELU of both.
        patch_size: Stride of the maps; says nothing about the computation.
        expand_channels: Multiply `post_process_channels` by 1, 2, 4 and 8.
        options: As `DecodeHead`; it reads a list of four maps.

    Shape:
        list of maps (N, embed_dims, H, W), then one class token (N, embed_dims, 1, 1) per map unless they are ignored
        -> logits (N, num_classes, 8 H, 8 W); for odd H or W, 8 (H + 1) or 8 (W + 1).

    Raises:
        UsageError: Not four maps, an unknown `readout_type`, or no class tokens where they are read.
    """

    output_stride = 32
    reads_all = True
    default_transform = "multiple_select"

    def __init__(
        self,
        *,
        embed_dims: int = 768,
        post_process_channels: Sequence[int] = (96, 192, 384, 768),
        readout_type: Readout = "ignore",
        patch_size: int = 16,
        expand_channels: bool = False,
        **options: Unpack[HeadOptions],
    ) -> None:
        super().__init__(**options)
        if readout_type not in _READOUTS:
            raise UsageError(f"readout_type is '{readout_type}'; choose {', '.join(_READOUTS)}")
        if len(self.widths) != 4 or len(post_process_channels) != 4:
            raise UsageError(
                f"DPTHead got {len(self.widths)} maps and {len(post_process_channels)} post_process_channels; give 4"
            )
        self.patch_size = patch_size
        widths = [width * 2**k if expand_channels else width for k, width in enumerate(post_process_channels)]
        self.reassemble_blocks = _Reassemble(embed_dims, widths, readout_type)
        self.convs = nn.ModuleList(self._plain_conv(width) for width in widths)
        self.fusion_blocks = nn.ModuleList(_Fusion(self.channels, both=k > 0) for k in range(4))
        self.project = ConvBN(self.channels, self.channels, 3)

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps; they keep their width, class tokens are not read."""
        width = info[-1].channels
        return {**super().options_for(info), "embed_dims": width, "patch_size": info[-1].reduction}

    def _plain_conv(self, in_channels: int) -> nn.Sequential:
        return nn.Sequential(OrderedDict(conv=nn.Conv2d(in_channels, self.channels, 3, 1, 1, bias=False)))

    def _tokens(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Compute the class tokens that belong to the maps read: the second half of what the backbone puts out."""
        half = len(features) // 2
        if self.reassemble_blocks.readout == "ignore":
            return []
        if len(features) % 2 or tuple(features[-1].shape[2:]) != (1, 1):
            raise UsageError(
                f"DPTHead got {len(features)} maps without class tokens for readout_type "
                f"'{self.reassemble_blocks.readout}'; build the transformer with output_cls_token=True"
            )
        return self.select_all(features[half:])

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        levels = self.reassemble_blocks(self.select_all(features), self._tokens(features))
        deepest, *finer = reversed([conv(x) for conv, x in zip(self.convs, levels, strict=True)])
        first, *blocks = self.fusion_blocks
        x = first(deepest)
        for block, level in zip(blocks, finer, strict=True):
            x = block(x, level)
        y: Tensor = self.project(x)
        return y
