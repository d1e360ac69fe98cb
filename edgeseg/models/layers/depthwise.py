"""Depthwise separable blocks of the Fast-SCNN line (Fast-SCNN, ContextNet), under their published keys.

Every block holds its layers in one ``nn.Sequential``, so BN folding needs no rewrite here. ReLU, no bias.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ConvBNReLU", "DepthwiseBNReLU", "InvertedResidual", "SeparableConvReLU", "inverted_residuals"]


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
        cin: Input channels.
        cout: Output channels.
        kernel: Kernel size.
        stride: Of both axes.
        padding: Zeros on each side.
    """

    def __init__(self, cin: int, cout: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        conv = nn.Conv2d(cin, cout, kernel, stride, padding, bias=False)
        super().__init__(conv, nn.BatchNorm2d(cout), nn.ReLU())


class DepthwiseBNReLU(_Row):
    """Depthwise 3x3, BN, ReLU."""

    def __init__(self, channels: int, *, stride: int = 1) -> None:
        conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        super().__init__(conv, nn.BatchNorm2d(channels), nn.ReLU())


class SeparableConvReLU(_Row):
    """Depthwise 3x3, BN, ReLU, 1x1, BN, ReLU."""

    def __init__(self, cin: int, cout: int, *, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(cin, cin, 3, stride, 1, groups=cin, bias=False),
            nn.BatchNorm2d(cin),
            nn.ReLU(),
            nn.Conv2d(cin, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(),
        )


class InvertedResidual(nn.Module):
    """1x1 to `expand` times the width, depthwise 3x3, linear 1x1; plus the input where shape allows.

    Sandler et al., "MobileNetV2", CVPR 2018, arXiv 1801.04381. The expansion is present for `expand` 1 too.

    Args:
        cin: Input channels.
        cout: Output channels.
        stride: Of the depthwise convolution.
        expand: Factor of the inner width.
    """

    def __init__(self, cin: int, cout: int, *, stride: int = 1, expand: int = 6) -> None:
        super().__init__()
        inner = cin * expand
        self.add = stride == 1 and cin == cout
        self.block = nn.Sequential(
            ConvBNReLU(cin, inner, 1),
            DepthwiseBNReLU(inner, stride=stride),
            nn.Conv2d(inner, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, cin, H, W) to (N, cout, H / stride, W / stride)."""
        y: Tensor = self.block(x)
        return x + y if self.add else y


def inverted_residuals(cin: int, cout: int, blocks: int, *, stride: int, expand: int = 6) -> nn.Sequential:
    """`blocks` inverted residuals in a row; the first widens and strides."""
    first = InvertedResidual(cin, cout, stride=stride, expand=expand)
    return nn.Sequential(first, *(InvertedResidual(cout, cout, expand=expand) for _ in range(blocks - 1)))
