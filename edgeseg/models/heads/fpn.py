"""Feature pyramid neck and the Semantic FPN head.

Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, arXiv 1901.02446. Equal to mmsegmentation 1.2.2's FPN
and FPNHead, third-party: BN where the paper has group normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.base import ConvBias, DecodeHead, HeadOptions, Neck
from edgeseg.models.heads.registry import register_head, register_neck
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.resize import Upsample, repeat_like

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FPN", "FPNHead"]


@register_neck("fpn")
class FPN(Neck):
    """1x1 to one width, added from the coarsest level down by nearest resize, then a 3x3 per level; no norm, no ReLU.

    Args:
        in_channels: Of the levels.
        out_channels: Of every level put out.
        num_outs: Levels put out; as many as come in.

    Shape:
        list of maps (N, in_channels[i], H_i, W_i) -> list of maps (N, out_channels, H_i, W_i).
    """

    def __init__(self, *, in_channels: Sequence[int], out_channels: int = 256, num_outs: int | None = None) -> None:
        super().__init__(out_channels)
        if num_outs not in (None, len(in_channels)):
            raise UsageError(f"num_outs is {num_outs} for {len(in_channels)} levels; extra levels are not built")
        self.lateral_convs = nn.ModuleList(ConvBias(width, out_channels, 1) for width in in_channels)
        self.fpn_convs = nn.ModuleList(ConvBias(out_channels, out_channels, 3) for _ in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Compute levels in the order of the input; see the class."""
        levels: list[Tensor] = [lateral(x) for lateral, x in zip(self.lateral_convs, maps, strict=True)]
        for k in reversed(range(len(levels) - 1)):
            levels[k] = levels[k] + repeat_like(levels[k + 1], levels[k])
        return [conv(x) for conv, x in zip(self.fpn_convs, levels, strict=True)]


@register_head("fpn")
class FPNHead(DecodeHead):
    """Every level is convolved and doubled until it has the size of the first; their sum is classified.

    Args:
        feature_strides: Of the levels.
        options: As `DecodeHead`; it reads a list of maps.
    """

    output_stride = 32
    reads_all = True
    default_transform = "multiple_select"

    def __init__(self, *, feature_strides: Sequence[int] = (4, 8, 16, 32), **options: Unpack[HeadOptions]) -> None:
        super().__init__(**options)
        if len(feature_strides) != len(self.widths):
            raise UsageError(f"feature_strides {list(feature_strides)} do not fit {len(self.widths)} levels")
        doublings = [int(log2(stride) - log2(feature_strides[0])) for stride in feature_strides]
        rows = (self._row(in_channels, count) for in_channels, count in zip(self.widths, doublings, strict=True))
        self.scale_heads = nn.ModuleList(rows)

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps."""
        return {**super().options_for(info), "feature_strides": [each.reduction for each in info]}

    def _row(self, in_channels: int, doublings: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for k in range(max(1, doublings)):
            layers.append(ConvBN(self.channels if k else in_channels, self.channels, 3))
            if doublings:
                layers.append(Upsample(2, align_corners=self.align_corners))
        return nn.Sequential(*layers)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified; levels of odd size are resized once more."""
        levels = [row(x) for row, x in zip(self.scale_heads, self.select_all(features), strict=True)]
        total: Tensor = levels[0]
        for level in levels[1:]:
            total = total + (level if level.shape[2:] == total.shape[2:] else self.resize(level, total))
        return total
