"""Deformable convolution, v1 and v2, written so that every engine has the operators.

Dai et al., "Deformable Convolutional Networks", ICCV 2017, arXiv 1703.06211 (v1); Zhu et al., "Deformable ConvNets v2",
CVPR 2019, arXiv 1811.11168 (v2, with a mask). Layout and keys are those of torchvision, mmcv and ONNX ``DeformConv``,
which only ONNX Runtime runs. Here every tap of a deform group is sampled by one ``grid_sample`` per group (ONNX
``GridSample``, opset 16), and the kernel becomes a grouped 1x1 convolution over the sampled taps: the same numbers, at
the cost of a map nine times the size for a 3x3 kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UsageError
from edgeseg.models.layers.conv_bn import Geometry, PaddedGeometry, same_padded

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DeformConv", "deform_conv2d"]


def _tap_rows(count: int, kernel: int, geometry: PaddedGeometry, like: Tensor) -> Tensor:
    """Compute the undisplaced sampling places of one axis in input pixels, (kernel, count)."""
    taps = torch.arange(kernel, device=like.device, dtype=like.dtype) * geometry["dilation"] - geometry["padding"]
    return taps[:, None] + torch.arange(count, device=like.device, dtype=like.dtype) * geometry["stride"]


def _grid(offset: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute the sampling grid of one deform group: without aligned corners, pixel p of n lies at (2 p + 1) / n - 1.

    Args:
        offset: (N, 2 k k, h, w), dy before dx for every tap.
        rows: Undisplaced rows, (k, h).
        columns: Undisplaced columns, (k, w).
        size: Height and width of the map that is sampled.

    Returns:
        (N, k k h, w, 2), x before y.
    """
    n, doubled, h, w = offset.shape
    k = rows.shape[0]
    moved = offset.reshape(n, k, k, 2, h, w)
    y = (moved[:, :, :, 0] + rows[:, None, :, None]) * (2.0 / size[0]) + (1.0 / size[0] - 1.0)
    x = (moved[:, :, :, 1] + columns[None, :, None, :]) * (2.0 / size[1]) + (1.0 / size[1] - 1.0)
    return torch.stack((x, y), dim=-1).reshape(n, doubled // 2 * h, w, 2)


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    deform_groups: int = 1,
    **geometry: Unpack[Geometry],
) -> Tensor:
    """Convolve with a square kernel whose taps are displaced pixel by pixel; bilinear, zero outside the map.

    Args:
        x: Map (N, in_channels, H, W).
        offset: (N, 2 * deform_groups * k * k, h, w) in pixels; channel 2 (d k k + t) is dy of tap t, the next one dx.
        weight: (out_channels, in_channels / groups, k, k).
        mask: (N, deform_groups * k * k, h, w), a factor per tap (v2); None is v1.
        bias: (out_channels,).
        deform_groups: Groups of input channels with offsets of their own.
        geometry: Stride, padding, dilation and groups of the convolution.

    Returns:
        (N, out_channels, h, w).
    """
    n, in_channels, height, width = x.shape
    out_channels, _, k, _ = weight.shape
    h, w = offset.shape[-2], offset.shape[-1]
    taps, per_group = k * k, in_channels // deform_groups
    full = same_padded(k, geometry)
    rows, columns = _tap_rows(h, k, full, x), _tap_rows(w, k, full, x)
    sampled = []
    for d in range(deform_groups):
        grid = _grid(offset[:, 2 * d * taps : 2 * (d + 1) * taps], rows, columns, (height, width))
        part = x if deform_groups == 1 else x[:, d * per_group : (d + 1) * per_group]
        part = F.grid_sample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        part = part.reshape(n, per_group, taps, h, w)
        sampled.append(part if mask is None else part * mask[:, d * taps : (d + 1) * taps].unsqueeze(1))
    joined = sampled[0] if deform_groups == 1 else torch.cat(sampled, dim=1)
    columns_of_taps = joined.reshape(n, in_channels * taps, h, w)
    kernel = weight.reshape(out_channels, in_channels // full["groups"] * taps, 1, 1)
    return F.conv2d(columns_of_taps, kernel, bias, groups=full["groups"])


class DeformConv(nn.Conv2d):
    """A deformable convolution with the plain convolution that predicts its offsets (and mask).

    Being a ``nn.Conv2d``, a BN after it folds into it. The offsets start at zero, so v2 starts as half a convolution.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Odd kernel size.
        deform_groups: Groups of input channels with offsets of their own.
        modulated: v2: a sigmoid mask per tap, and a bias.
        geometry: Stride, padding, dilation and groups; the convolution that predicts has one group.

    Raises:
        UsageError: `deform_groups` does not divide `in_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        deform_groups: int = 1,
        modulated: bool = True,
        **geometry: Unpack[Geometry],
    ) -> None:
        if in_channels % deform_groups:
            raise UsageError(
                f"{deform_groups} deform groups do not divide {in_channels} input channels; choose a divisor"
            )
        super().__init__(in_channels, out_channels, kernel, bias=modulated, **same_padded(kernel, geometry))
        self.geometry = same_padded(kernel, geometry)
        self.modulated, self.deform_groups = modulated, deform_groups
        predicted = (3 if modulated else 2) * deform_groups * kernel * kernel
        self.conv_offset = nn.Conv2d(in_channels, predicted, kernel, **same_padded(kernel, {**geometry, "groups": 1}))
        nn.init.zeros_(self.conv_offset.weight)
        if self.conv_offset.bias is not None:
            nn.init.zeros_(self.conv_offset.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, h, w)."""
        offset: Tensor = self.conv_offset(input)
        mask = None
        if self.modulated:
            coordinates = offset.shape[1] // 3 * 2
            offset, mask = offset[:, :coordinates], torch.sigmoid(offset[:, coordinates:])
        return deform_conv2d(
            input, offset, self.weight, mask=mask, bias=self.bias, deform_groups=self.deform_groups, **self.geometry
        )
