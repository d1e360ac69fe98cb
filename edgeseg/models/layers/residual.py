"""Residual blocks (He et al., CVPR 2016, arXiv 1512.03385), with what the networks built on them vary.

Keys are ``conv1``, ``bn1``, ..., ``downsample``, as torchvision has them. In the DDRNet line a block without its last
ReLU hands on the sum itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BasicBlock", "Bottleneck", "Norm", "WideBottleneck", "activate", "residual_layer"]

Norm = Callable[[int], nn.Module]
"""Makes the normalisation of so many channels."""


def activate(x: Tensor, slope: float) -> Tensor:
    """ReLU, or leaky ReLU where `slope` is not zero."""
    return F.leaky_relu(x, slope) if slope else torch.relu(x)


def _shortcut(cin: int, cout: int, stride: int, norm: Norm, avg_down: bool) -> nn.Sequential | None:
    """Strided 1x1 and norm where the shape changes; with `avg_down` an average pool strides."""
    if stride == 1 and cin == cout:
        return None
    if avg_down and stride > 1:
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        return nn.Sequential(pool, nn.Conv2d(cin, cout, 1, bias=False), norm(cout))
    return nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), norm(cout))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Args:
        cin: Input channels.
        width: Output channels.
        stride: Of the first convolution.
        relu: End in a ReLU.
        dilation: Of the first convolution.
        norm: Makes the normalisations.
        slope: Of the inner activation; 0 is ReLU. The last one is always a ReLU.
        avg_down: A strided shortcut averages before its 1x1 (ResNet-D).
    """

    expansion = 1

    def __init__(
        self,
        cin: int,
        width: int,
        *,
        stride: int = 1,
        relu: bool = True,
        dilation: int = 1,
        norm: Norm = nn.BatchNorm2d,
        slope: float = 0.0,
        avg_down: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 3, stride, dilation, dilation, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = norm(width)
        self.downsample = _shortcut(cin, width, stride, norm, avg_down)
        self.relu, self.slope = relu, slope

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, cin, H, W) to (N, width, H / stride, W / stride)."""
        y = activate(self.bn1(self.conv1(x)), self.slope)
        y = self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x))
        return torch.relu(y) if self.relu else y

    def fuse(self) -> None:
        """Fold the BNs into their convolutions."""
        from edgeseg.export.fusion import fold_bn_pair

        fold_bn_pair(self, "conv1", "bn1")
        fold_bn_pair(self, "conv2", "bn2")


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to `expansion` times the width, and a shortcut.

    Args:
        cin: Input channels.
        width: Inner channels; the output has `expansion` times as many.
        stride: Of the 3x3.
        relu: End in a ReLU.
        dilation: Of the 3x3.
        norm: Makes the normalisations.
        slope: Of the inner activations; 0 is ReLU. The last one is always a ReLU.
        avg_down: A strided shortcut averages before its 1x1 (ResNet-D).
    """

    expansion = 2

    def __init__(
        self,
        cin: int,
        width: int,
        *,
        stride: int = 1,
        relu: bool = False,
        dilation: int = 1,
        norm: Norm = nn.BatchNorm2d,
        slope: float = 0.0,
        avg_down: bool = False,
    ) -> None:
        super().__init__()
        cout = width * self.expansion
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, cout, 1, bias=False)
        self.bn3 = norm(cout)
        self.downsample = _shortcut(cin, cout, stride, norm, avg_down)
        self.relu, self.slope = relu, slope

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, cin, H, W) to (N, expansion * width, H / stride, W / stride)."""
        y = activate(self.bn1(self.conv1(x)), self.slope)
        y = activate(self.bn2(self.conv2(y)), self.slope)
        y = self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))
        return torch.relu(y) if self.relu else y

    def fuse(self) -> None:
        """Fold the BNs into their convolutions."""
        from edgeseg.export.fusion import fold_bn_pair

        for k in ("1", "2", "3"):
            fold_bn_pair(self, f"conv{k}", f"bn{k}")


class WideBottleneck(Bottleneck):
    """The bottleneck of ResNet-50 and deeper, to four times the width."""

    expansion = 4


def residual_layer(
    block: type[BasicBlock] | type[Bottleneck], cin: int, width: int, blocks: int, *, stride: int = 1
) -> nn.Sequential:
    """`blocks` residual blocks of the DDRNet line in a row. The first strides.

    Basic blocks end in a ReLU except the last of two or more; bottlenecks never do.
    """
    relu = [block is BasicBlock and (k < blocks - 1 or blocks == 1) for k in range(blocks)]
    first = block(cin, width, stride=stride, relu=relu[0])
    rest = [block(width * block.expansion, width, relu=relu[k]) for k in range(1, blocks)]
    return nn.Sequential(first, *rest)
