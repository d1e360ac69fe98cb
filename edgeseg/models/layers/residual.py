"""Residual blocks (He et al., CVPR 2016, arXiv 1512.03385), with what the networks built on them vary.

Keys are ``conv1``, ``bn1``, ..., ``downsample``, as torchvision has them. In the DDRNet line a block without its last
ReLU hands on the sum itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.layers.folding import fold_bn_pair

__all__ = [
    "BasicBlock",
    "BlockStyle",
    "Bottleneck",
    "Norm",
    "ResidualBlock",
    "WideBottleneck",
    "activate",
    "residual_layer",
]

Norm = Callable[[int], nn.Module]
"""Makes the normalisation of so many channels."""


def activate(x: Tensor, slope: float) -> Tensor:
    """Compute ReLU, or leaky ReLU where `slope` is not zero."""
    return F.leaky_relu(x, slope) if slope else torch.relu(x)


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: Norm, avg_down: bool) -> nn.Sequential | None:
    """Build a strided 1x1 and norm where the shape changes; with `avg_down` an average pool strides."""
    if stride == 1 and in_channels == out_channels:
        return None
    if avg_down and stride > 1:
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        return nn.Sequential(pool, nn.Conv2d(in_channels, out_channels, 1, bias=False), norm(out_channels))
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), norm(out_channels))


class BlockStyle(TypedDict, total=False):
    """Options of a residual block that all blocks of a network share; see `ResidualBlock`."""

    norm: Norm
    slope: float
    avg_down: bool


class ResidualBlock(nn.Module):
    """Convolutions in a row, a norm after each and an activation between, and a shortcut.

    Args:
        in_channels: Input channels.
        width: Inner channels; the output has `expansion` times as many.
        stride: Of the first 3x3.
        relu: End in a ReLU; None is as the kind of block usually does.
        dilation: Of the first 3x3.
        norm: Makes the normalisations.
        slope: Of the inner activations; 0 is ReLU. The last one is always a ReLU.
        avg_down: A strided shortcut averages before its 1x1 (ResNet-D).

    Attributes:
        kernels: Of the convolutions.
        expansion: Output channels over `width`.
        ends_in_relu: What `relu` usually is.
    """

    kernels: ClassVar[tuple[int, ...]]
    expansion: ClassVar[int] = 1
    ends_in_relu: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int = 1,
        relu: bool | None = None,
        dilation: int = 1,
        norm: Norm = nn.BatchNorm2d,
        slope: float = 0.0,
        avg_down: bool = False,
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        widths = [in_channels, *[width] * (len(self.kernels) - 1), out_channels]
        for k, kernel in enumerate(self.kernels):
            strides = k == self.kernels.index(3)
            step, dilated = (stride, dilation) if strides else (1, 1)
            pad = dilated * (kernel // 2)
            self.add_module(f"conv{k + 1}", nn.Conv2d(widths[k], widths[k + 1], kernel, step, pad, dilated, bias=False))
            self.add_module(f"bn{k + 1}", norm(widths[k + 1]))
        self.downsample = _shortcut(in_channels, out_channels, stride, norm, avg_down)
        self.relu, self.slope = self.ends_in_relu if relu is None else relu, slope

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, expansion * width, H / stride, W / stride)."""
        y = x
        for k in range(len(self.kernels)):
            y = activate(y, self.slope) if k else y
            y = self.get_submodule(f"bn{k + 1}")(self.get_submodule(f"conv{k + 1}")(y))
        y = y + (x if self.downsample is None else self.downsample(x))
        return torch.relu(y) if self.relu else y

    def fuse(self) -> None:
        """Fold the BNs into their convolutions."""
        for k in range(len(self.kernels)):
            fold_bn_pair(self, f"conv{k + 1}", f"bn{k + 1}")


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut; ends in a ReLU. Arguments as `ResidualBlock`."""

    kernels = (3, 3)


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 to twice the width, and a shortcut; ends in the sum. Arguments as `ResidualBlock`."""

    kernels = (1, 3, 1)
    expansion = 2
    ends_in_relu = False


class WideBottleneck(Bottleneck):
    """The bottleneck of ResNet-50 and deeper, to four times the width."""

    expansion = 4


def residual_layer(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, blocks: int, *, stride: int = 1
) -> nn.Sequential:
    """Build `blocks` residual blocks of the DDRNet line in a row. The first strides.

    Basic blocks end in a ReLU except the last of two or more; bottlenecks never do.
    """
    relu = [block is BasicBlock and (k < blocks - 1 or blocks == 1) for k in range(blocks)]
    first = block(in_channels, width, stride=stride, relu=relu[0])
    rest = [block(width * block.expansion, width, relu=relu[k]) for k in range(1, blocks)]
    return nn.Sequential(first, *rest)
