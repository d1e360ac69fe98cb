"""Point-wise spatial attention head: every place says, for each place around it, how much the two concern each other.

Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018. Equal to mmsegmentation
1.2.2's PSAHead, third-party; its operator PSAMask is a pad, slices and reshapes here, which every engine has.

Published quirks that weights depend on: places that the mask does not reach weigh 0 before the softmax and so take part
in it; ``proj`` is a 1x1 with padding 1; ``compact`` transposes the one map or the other depending on `psa_type`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UsageError
from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.resize import resize_bilinear

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Direction", "PSAHead", "around_to_absolute"]

Direction = Literal["collect", "distribute", "bi-direction"]


def _reach(masks: Tensor, axis: int, length: int) -> Tensor:
    """Cut or zero-pad an axis of offsets, 0 in its middle, to the 2 * length - 1 offsets there are on an axis."""
    missing = length - 1 - (masks.shape[axis] - 1) // 2
    after = 2 * length - 1 - masks.shape[axis] - missing
    kept = masks.narrow(axis, max(-missing, 0), masks.shape[axis] + min(missing, 0) + min(after, 0))
    pads = [0, 0] * (masks.ndim - 1 - axis) + [max(missing, 0), max(after, 0)]
    return F.pad(kept, pads) if max(pads) else kept


def _skew(x: Tensor, length: int) -> Tensor:
    """Turn offsets into places: (A, length, 2 * length - 1, B) to (A, length, length, B), [p, q] from [p, q - p].

    Row p is shifted by one less than the row before. Read as one long row and cut into rows one shorter, that is
    aligned.
    """
    if length == 1:
        return x
    a, b = x.shape[0], x.shape[3]
    line = x.reshape(a, length * (2 * length - 1), b)
    start, row = length - 1, 2 * length - 2
    return line[:, start : start + length * row].reshape(a, length, row, b)[:, :, :length]


def around_to_absolute(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Compute what each place says of all places, from what it says of those around it; PSAMask of mmcv.

    Args:
        masks: (N, mh * mw, H, W): at (y, x), channel (i, j) is about (y + i - (mh - 1) // 2, x + j - (mw - 1) // 2).
        size: (mh, mw).

    Returns:
        (N, H * W, H * W): [p, q] is what p says of q, 0 where the mask does not reach.
    """
    n, _, h, w = masks.shape
    rows = _reach(masks.reshape(n, size[0], size[1], h * w), 1, h)
    rows = _reach(rows, 2, w).reshape(n, 2 * h - 1, 2 * w - 1, h, w)
    columns = rows.permute(0, 4, 2, 3, 1).reshape(n, w, 2 * w - 1, h * (2 * h - 1))  # x, dx, (y, dy)
    columns = _skew(columns, w).reshape(n, w * w, h, 2 * h - 1)  # (x, x'), y, dy
    placed = _skew(columns.reshape(n * w * w, h, 2 * h - 1, 1), h)  # (n, x, x'), y, y'
    return placed.reshape(n, w, w, h, h).permute(0, 3, 1, 4, 2).reshape(n, h * w, h * w)


@register_head("psa")
class PSAHead(DecodeHead):
    """Attention from or to every place on a smaller map; the result joins the map that the head reads.

    Args:
        mask_size: Height and width of what a place reaches; where `compact`, those of the smaller map itself.
        psa_type: Every place takes from the others (``"collect"``), gives to them (``"distribute"``), or both.
        compact: The masks are about all places, in order, not about those around.
        shrink_factor: Divides height and width before the attention.
        normalization_factor: Divides its result.
        psa_softmax: The weights of all places that give to one sum to one.
        options: As `DecodeHead`.
    """

    def __init__(
        self,
        *,
        mask_size: Sequence[int] = (97, 97),
        psa_type: Direction = "bi-direction",
        compact: bool = False,
        shrink_factor: int = 2,
        normalization_factor: float = 1.0,
        psa_softmax: bool = True,
        **options: Unpack[HeadOptions],
    ) -> None:
        super().__init__(**options)
        if psa_type not in ("collect", "distribute", "bi-direction"):
            raise UsageError(f"psa_type is '{psa_type}'; collect, distribute and bi-direction are known")
        self.psa_type: Direction = psa_type
        self.compact, self.psa_softmax = compact, psa_softmax
        self.mask_size, self.shrink, self.factor = tuple(mask_size), shrink_factor, 1.0 / normalization_factor
        both = psa_type == "bi-direction"
        self.reduce, self.attention = self._branch()
        if both:
            self.reduce_p, self.attention_p = self._branch()
        self.proj = ConvBN(self.channels * (2 if both else 1), self.in_channels, 1, padding=1)
        self.bottleneck = ConvBN(2 * self.in_channels, self.channels, 3)

    def _branch(self) -> tuple[nn.Module, nn.Module]:
        """Build the reduction of the map, and what makes the masks of it."""
        width, count = self.channels, self.mask_size[0] * self.mask_size[1]
        masks = nn.Sequential(ConvBN(width, width, 1), nn.Conv2d(width, count, 1, bias=False))
        return ConvBN(self.in_channels, width, 1), masks

    def _shrunk(self, h: int, w: int) -> tuple[tuple[int, int], bool]:
        """Return the size of the smaller map, and `align_corners` of the resizes to it and back."""
        if self.shrink == 1:
            return (h, w), self.align_corners
        if h % self.shrink and w % self.shrink:
            return ((h - 1) // self.shrink + 1, (w - 1) // self.shrink + 1), True
        return (h // self.shrink, w // self.shrink), False

    def _of_all(self, masks: Tensor) -> Tensor:
        """Compute masks (N, H * W, H, W) about all places, as [of which place, by which place]."""
        n, count, h, w = masks.shape
        if count != h * w:
            raise UsageError(
                f"PSAHead is compact with mask_size {self.mask_size[0]}x{self.mask_size[1]} on a map of {h}x{w}; "
                "a compact mask has the size of the map"
            )
        return masks.reshape(n, count, count)

    def _weights(self, masks: Tensor, direction: Direction) -> Tensor:
        """Compute weights (N, H * W, H * W) as [who takes, who gives]."""
        if self.compact:
            absolute = self._of_all(masks)  # [a, b]; as published, a gives to b but where transposed
            transposed = direction == ("distribute" if self.psa_type == "bi-direction" else "collect")
            weights = absolute if transposed else absolute.transpose(1, 2)
        else:
            absolute = around_to_absolute(masks, self.mask_size)
            weights = absolute if direction == "collect" else absolute.transpose(1, 2)
        return weights.softmax(dim=-1) if self.psa_softmax else weights

    def _attended(self, x: Tensor, reduce: nn.Module, attention: nn.Module, direction: Direction) -> Tensor:
        """Attend in one direction: (N, in_channels, H, W) to (N, channels, h, w) of the smaller size."""
        y: Tensor = reduce(x)
        if self.shrink != 1:
            size, align_corners = self._shrunk(x.shape[2], x.shape[3])
            y = resize_bilinear(y, size, align_corners=align_corners)
        weights = self._weights(attention(y), direction)
        return (y.flatten(2) @ weights.transpose(1, 2) * self.factor).reshape(y.shape)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        x = self.select(features)
        if self.psa_type == "bi-direction":
            collected = self._attended(x, self.reduce, self.attention, "collect")
            given = self._attended(x, self.reduce_p, self.attention_p, "distribute")
            y = torch.cat((collected, given), dim=1)
        else:
            y = self._attended(x, self.reduce, self.attention, self.psa_type)
        h, w = x.shape[2], x.shape[3]
        y = resize_bilinear(self.proj(y), (h, w), align_corners=self._shrunk(h, w)[1])
        z: Tensor = self.bottleneck(torch.cat((x, y), dim=1))
        return z
