"""Residual blocks (He et al., CVPR 2016, arXiv 1512.03385) of the DDRNet line: the last ReLU is optional.

Keys are ``conv1``, ``bn1``, ..., ``downsample``. A block without its last ReLU hands on the sum itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BasicBlock", "Bottleneck", "residual_layer"]


def _shortcut(cin: int, cout: int, stride: int) -> nn.Sequential | None:
    """Strided 1x1 and BN where the shape changes."""
    if stride == 1 and cin == cout:
        return None
    return nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Args:
        cin: Input channels.
        width: Output channels.
        stride: Of the first convolution.
        relu: End in a ReLU.
    """

    expansion = 1

    def __init__(self, cin: int, width: int, *, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(cin, width, stride)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, cin, H, W) to (N, width, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x))
        return torch.relu(y) if self.relu else y

    def fuse(self) -> None:
        """Fold the BNs into their convolutions."""
        from edgeseg.export.fusion import fold_bn_pair

        fold_bn_pair(self, "conv1", "bn1")
        fold_bn_pair(self, "conv2", "bn2")


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to twice the width, and a shortcut.

    Args:
        cin: Input channels.
        width: Inner channels; the output has twice as many.
        stride: Of the 3x3.
        relu: End in a ReLU.
    """

    expansion = 2

    def __init__(self, cin: int, width: int, *, stride: int = 1, relu: bool = False) -> None:
        super().__init__()
        cout = width * self.expansion
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, cout, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout)
        self.downsample = _shortcut(cin, cout, stride)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, cin, H, W) to (N, 2 width, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))
        return torch.relu(y) if self.relu else y

    def fuse(self) -> None:
        """Fold the BNs into their convolutions."""
        from edgeseg.export.fusion import fold_bn_pair

        for k in ("1", "2", "3"):
            fold_bn_pair(self, f"conv{k}", f"bn{k}")


def residual_layer(
    block: type[BasicBlock] | type[Bottleneck], cin: int, width: int, blocks: int, *, stride: int = 1
) -> nn.Sequential:
    """`blocks` residual blocks in a row. The first strides.

    Basic blocks end in a ReLU except the last of two or more; bottlenecks never do.
    """
    relu = [block is BasicBlock and (k < blocks - 1 or blocks == 1) for k in range(blocks)]
    first = block(cin, width, stride=stride, relu=relu[0])
    rest = [block(width * block.expansion, width, relu=relu[k]) for k in range(1, blocks)]
    return nn.Sequential(first, *rest)
