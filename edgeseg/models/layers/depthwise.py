"""Depthwise separable blocks of the Fast-SCNN line (Fast-SCNN, ContextNet), under their published keys.

Every block holds its layers in one ``nn.Sequential``, so BN folding needs no rewrite here. ReLU, no bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from edgeseg.models.layers.resize import resize_like

__all__ = [
    "ConvBNReLU",
    "DepthwiseBNReLU",
    "FeatureFusion",
    "InvertedResidual",
    "ResidualRow",
    "SeparableClassifier",
    "SeparableConvReLU",
    "inverted_residual",
    "inverted_residuals",
]


class _Row(nn.Module):
    """Layers in a row under the key ``conv``."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class ConvBNReLU(_Row):
    """Convolution, BN, ReLU.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Kernel size.
        stride: Of both axes.
        padding: Zeros on each side.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


class DepthwiseBNReLU(_Row):
    """Depthwise 3x3, BN, ReLU."""

    def __init__(self, channels: int, *, stride: int = 1) -> None:
        conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        super().__init__(conv, nn.BatchNorm2d(channels), nn.ReLU())


class SeparableConvReLU(_Row):
    """Depthwise 3x3, BN, ReLU, 1x1, BN, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


class ResidualRow(nn.Module):
    """Layers in a row, plus the input where `add`.

    Args:
        key: Name of the Sequential.
        layers: The row.
        add: Needs a row that keeps the shape.
    """

    def __init__(self, key: str, layers: Iterable[nn.Module], *, add: bool) -> None:
        super().__init__()
        self.row, self.add = key, add
        self.add_module(key, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / stride, W / stride)."""
        y: Tensor = self.get_submodule(self.row)(x)
        return x + y if self.add else y


def inverted_residual(
    key: str, conv: Callable[..., nn.Module], in_channels: int, out_channels: int, *, stride: int = 1, expand: int = 6
) -> ResidualRow:
    """Build an inverted residual of three blocks of a family's own.

    Args:
        key: Name of the Sequential.
        conv: Builds convolution, BN and ReLU from in_channels, out_channels, kernel and keywords stride, groups, relu.
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the depthwise convolution.
        expand: Factor of the inner width.
    """
    inner = in_channels * expand
    widen, deepen = conv(in_channels, inner, 1), conv(inner, inner, 3, stride=stride, groups=inner)
    return ResidualRow(
        key, (widen, deepen, conv(inner, out_channels, 1, relu=False)), add=stride == 1 and in_channels == out_channels
    )


class InvertedResidual(ResidualRow):
    """1x1 to `expand` times the width, depthwise 3x3, linear 1x1; plus the input where shape allows.

    Sandler et al., "MobileNetV2", CVPR 2018, arXiv 1801.04381. The expansion is present for `expand` 1 too.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the depthwise convolution.
        expand: Factor of the inner width.
        flat: All eight layers stand in one Sequential ``conv`` in place of a nested one, ``block``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, expand: int = 6, flat: bool = False
    ) -> None:
        inner = in_channels * expand
        widen, deepen = ConvBNReLU(in_channels, inner, 1), DepthwiseBNReLU(inner, stride=stride)
        first = (*widen.conv, *deepen.conv) if flat else (widen, deepen)
        row = (*first, nn.Conv2d(inner, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        super().__init__("conv" if flat else "block", row, add=stride == 1 and in_channels == out_channels)


def inverted_residuals(
    in_channels: int, out_channels: int, blocks: int, *, stride: int, expand: int = 6, flat: bool = False
) -> nn.Sequential:
    """Build `blocks` inverted residuals in a row; the first widens and strides."""
    first = InvertedResidual(in_channels, out_channels, stride=stride, expand=expand, flat=flat)
    rest = (InvertedResidual(out_channels, out_channels, expand=expand, flat=flat) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


class FeatureFusion(nn.Module):
    """ReLU of a detail map's 1x1 and an enlarged context map's depthwise 3x3 and 1x1, both 1x1s with bias and BN.

    Args:
        high: Channels of the detail map; the context map has 128.
    """

    def __init__(self, high: int) -> None:
        super().__init__()
        self.dwconv = DepthwiseBNReLU(128)
        self.conv_lower_res = nn.Sequential(nn.Conv2d(128, 128, 1), nn.BatchNorm2d(128))
        self.conv_higher_res = nn.Sequential(nn.Conv2d(high, 128, 1), nn.BatchNorm2d(128))

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Join a detail map (N, high, H, W) and a context map (N, 128, h, w) into (N, 128, H, W)."""
        low = self.conv_lower_res(self.dwconv(resize_like(low, high, align_corners=True)))
        return torch.relu(self.conv_higher_res(high) + low)


class SeparableClassifier(nn.Module):
    """Two separable convolutions of 128 channels, dropout, 1x1 with bias."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.dsconv1 = SeparableConvReLU(128, 128)
        self.dsconv2 = SeparableConvReLU(128, 128)
        self.conv = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(128, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, 128, H, W) into logits (N, num_classes, H, W)."""
        y: Tensor = self.conv(self.dsconv2(self.dsconv1(x)))
        return y
