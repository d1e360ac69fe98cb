"""What the DDRNet line (DDRNet, PIDNet, RTFormer) shares besides its residual blocks: stem, projections and head.

Hong et al., "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road Scenes", 2021,
arXiv 2101.06085.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.layers.folding import fold_bn_pair

__all__ = ["SegmentHead", "SegmentMap", "stem"]


def stem(planes: int, *, bias: bool = True) -> nn.Sequential:
    """Build two 3x3 convolutions with stride 2, and with bias as the authors have them, each with BN and ReLU."""
    layers: list[nn.Module] = []
    for in_channels in (3, planes):
        layers += [nn.Conv2d(in_channels, planes, 3, 2, 1, bias=bias), nn.BatchNorm2d(planes), nn.ReLU()]
    return nn.Sequential(*layers)


class SegmentMap(nn.Module):
    """BN, ReLU, 3x3, BN, ReLU: what the head classifies.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        x = self.conv1(torch.relu(self.bn1(x)))
        return torch.relu(self.bn2(x))

    def fuse(self) -> None:
        """Fold the second BN into the 3x3; the first stands before its ReLU and stays."""
        fold_bn_pair(self, "conv1", "bn2")


class SegmentHead(SegmentMap):
    """`SegmentMap`, and a 1x1 with bias.

    Args:
        in_channels: Input channels.
        inner: Channels between.
        num_classes: Output channels.
    """

    def __init__(self, in_channels: int, inner: int, num_classes: int) -> None:
        super().__init__(in_channels, inner)
        self.conv2 = nn.Conv2d(inner, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into logits (N, num_classes, H, W)."""
        y: Tensor = self.conv2(super().forward(x))
        return y
