"""PointRend: the most uncertain pixels of an upsampled prediction are predicted again, one by one.

Kirillov et al., "PointRend: Image Segmentation as Rendering", CVPR 2020, arXiv 1912.08193. Equal to mmsegmentation
1.2.2's PointHead in a CascadeEncoderDecoder, third-party, but that coordinates of points have the precision of the maps
(the published code has float32: no difference at sizes that are powers of two, 2e-6 of the largest logit elsewhere).

Exact rewrite: TensorRT takes no TopK beyond 3840, so the points are found in portions; each portion's places are struck
out before the next is sought.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UsageError
from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.resize import upsample

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["PointHead", "largest_places", "sample_points"]

_PORTION = 3840
"""Most values that TensorRT's TopK finds at once."""
_STRUCK = -6e4
"""Stands for a place that was found already; within the range of fp16."""


def largest_places(values: Tensor, count: int) -> Tensor:
    """Compute indices (N, count) of the largest of `values` (N, L), in no order; all of them where `count` is L."""
    n, length = values.shape
    if count == length:
        return torch.arange(length, device=values.device).expand(n, length)
    found: list[Tensor] = []
    for start in range(0, count, _PORTION):
        _, places = values.topk(min(_PORTION, count - start), dim=1, sorted=False)
        found.append(places)
        values = values.scatter(1, places, _STRUCK)
    return torch.cat(found, dim=1)


def sample_points(x: Tensor, grid: Tensor) -> Tensor:
    """Sample maps (N, C, H, W) bilinearly at a grid (N, K, 1, 2) in -1..1, x before y, zeros outside: (N, C, K)."""
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[..., 0]


class _PointUnit(nn.Module):
    """Convolution of points with bias, and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


@register_head("point")
class PointHead(DecodeHead):
    """Refines the logits of another head in steps of twice the size.

    Args:
        num_fcs: Layers of the points' network before its classifier.
        coarse_pred_each_layer: The coarse logits join the input of every layer, not of the first alone.
        subdivision_steps: How often the size is doubled.
        subdivision_num_points: Points per step.
        scale_factor: Of a step.
        options: As `DecodeHead`; it reads a list of maps. `channels` are those of the layers.

    Shape:
        list of maps, with logits (N, num_classes, H, W) at its end -> logits of `scale_factor` ** `subdivision_steps`
        times their size.
    """

    refines = True
    output_stride = 32
    default_transform = "multiple_select"

    def __init__(
        self,
        *,
        num_fcs: int = 3,
        coarse_pred_each_layer: bool = True,
        subdivision_steps: int = 2,
        subdivision_num_points: int = 8196,
        scale_factor: int = 2,
        **options: Unpack[HeadOptions],
    ) -> None:
        super().__init__(**options)
        if self.num_classes < 2:
            raise UsageError("PointHead got one class; uncertainty is between the best two, give at least 2")
        del self.conv_seg, self.dropout  # published without dropout
        self.coarse_each = coarse_pred_each_layer
        self.steps, self.points, self.scale_factor = subdivision_steps, subdivision_num_points, scale_factor
        first = sum(self.widths) + self.num_classes
        later = self.channels + (self.num_classes if coarse_pred_each_layer else 0)
        self.fcs = nn.ModuleList(_PointUnit(later if k else first, self.channels) for k in range(num_fcs))
        self.fc_seg = nn.Conv1d(later if num_fcs else first, self.num_classes, 1)

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps: it reads the first."""
        return {"in_channels": [info[0].channels], "in_index": [0], "channels": 256}

    def point_logits(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Compute logits (N, num_classes, K) of points from features (N, C, K) and coarse logits of that shape."""
        x = torch.cat((fine, coarse), dim=1)
        for layer in self.fcs:
            x = layer(x)
            x = torch.cat((x, coarse), dim=1) if self.coarse_each else x
        logits: Tensor = self.fc_seg(x)
        return logits

    def _uncertain(self, logits: Tensor) -> Tensor:
        """Compute indices (N, K) of the pixels whose best two logits are nearest to each other."""
        best = logits.flatten(2).topk(2, dim=1).values
        return largest_places(best[:, 1] - best[:, 0], min(self.points, best.shape[2]))

    def _refined(self, logits: Tensor, coarse: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Replace the logits of the most uncertain pixels."""
        n, classes, h, w = logits.shape
        places = self._uncertain(logits)
        columns = ((places % w).to(logits.dtype) + 0.5) * (2.0 / w) - 1.0
        rows = (torch.div(places, w, rounding_mode="floor").to(logits.dtype) + 0.5) * (2.0 / h) - 1.0
        grid = torch.stack((columns, rows), dim=-1)[:, :, None]
        fine = torch.cat([sample_points(x, grid) for x in maps], dim=1)
        points = self.point_logits(fine, sample_points(coarse, grid))
        indices = places[:, None].expand(n, classes, places.shape[1])
        return logits.flatten(2).scatter(2, indices, points).reshape(n, classes, h, w)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the coarse logits, refined; nothing classifies them again."""
        *maps, coarse = features
        logits, read = coarse, self.select_all(maps)
        for _ in range(self.steps):
            larger = upsample(logits, self.scale_factor, align_corners=self.align_corners)
            logits = self._refined(larger, coarse, read)
        return logits

    def classify(self, x: Tensor) -> Tensor:
        """Compute the refined logits themselves."""
        return x
