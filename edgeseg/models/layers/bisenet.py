"""Blocks of the BiSeNet line (BiSeNet, STDC, ShelfNet, FANet): channel attention, context path and output head.

Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", ECCV 2018, arXiv 1808.00897.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.resize import repeat_like

__all__ = ["AttentionRefinement", "ContextRefinement", "OutputHead"]


class AttentionRefinement(nn.Module):
    """3x3, BN, activation; each channel is weighed by the sigmoid of a 1x1 with BN on its average.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        norm: Makes the normalisations.
        act: Activation of the 3x3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        act: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        self.conv = ConvBN(in_channels, out_channels, 3, norm=norm, act=act)
        self.conv_atten = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn_atten = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))))

    def fuse(self) -> None:
        """Fold the attention's BN."""
        fold_bn_pair(self, "conv_atten", "bn_atten")


class ContextRefinement(nn.Module):
    """The two deepest maps of a backbone refined by attention, joined with the global average, brought to stride 8.

    Args:
        middle: Channels of the backbone's map at stride 16.
        deep: Channels of its map at stride 32.
    """

    def __init__(self, middle: int, deep: int) -> None:
        super().__init__()
        self.arm16 = AttentionRefinement(middle, 128)
        self.arm32 = AttentionRefinement(deep, 128)
        self.conv_head32 = ConvBN(128, 128, 3)
        self.conv_head16 = ConvBN(128, 128, 3)
        self.conv_avg = ConvBN(deep, 128, 1)

    def refine(self, eighth: Tensor, sixteenth: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Compute context (N, 128, ...) at strides 8 and 16, of the backbone's maps at strides 8, 16 and 32."""
        x = self.arm32(last) + self.conv_avg(last.mean((2, 3), keepdim=True))
        coarse: Tensor = self.conv_head32(repeat_like(x, sixteenth))
        fine: Tensor = self.conv_head16(repeat_like(self.arm16(sixteenth) + coarse, eighth))
        return fine, coarse


class OutputHead(nn.Module):
    """3x3, BN, activation, then the classifier.

    Args:
        in_channels: Input channels.
        inner: Channels between.
        num_classes: Output channels.
        kernel: Of the classifier.
        bias: Of the classifier.
        norm: Makes the normalisation.
        act: Activation.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        num_classes: int,
        *,
        kernel: int = 1,
        bias: bool = False,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        act: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        self.conv = ConvBN(in_channels, inner, 3, norm=norm, act=act)
        self.conv_out = nn.Conv2d(inner, num_classes, kernel, 1, kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into logits (N, num_classes, H, W)."""
        logits: Tensor = self.conv_out(self.conv(x))
        return logits
