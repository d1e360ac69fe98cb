"""What TopFormer and SeaFormer share besides their attention: the convolutional rows, the fusion and the head.

Zhang et al., "TopFormer", CVPR 2022, arXiv 2204.05525; Wan et al., "SeaFormer", ICLR 2023, arXiv 2301.13156.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.layers.attention import conv_bn
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.resize import resize_like

__all__ = ["FuseHead", "Inject", "MobileBlock", "Row", "add_blocks"]

Row = tuple[int, int, int, int]
"""One block: kernel, expansion, channels, stride."""


class MobileBlock(nn.Module):
    """1x1 to `expand` times the width (none for 1), depthwise convolution, linear 1x1; plus the input where possible.

    Args:
        cin: Input channels.
        row: Kernel, expansion, output channels, stride.
    """

    def __init__(self, cin: int, row: Row) -> None:
        super().__init__()
        kernel, expand, cout, stride = row
        inner = cin * expand
        widen = [] if expand == 1 else [conv_bn(cin, inner), nn.ReLU()]
        deepen = [conv_bn(inner, inner, kernel, stride=stride, groups=inner), nn.ReLU()]
        self.conv = nn.Sequential(*widen, *deepen, conv_bn(inner, cout))
        self.add = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, cin, H, W) to (N, cout, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.conv(x)
        return x + y if self.add else y


def add_blocks(owner: nn.Module, cin: int, rows: Sequence[Row]) -> list[str]:
    """Add the blocks of `rows` to `owner` as ``layer1``, ``layer2``, ...

    Returns:
        Their names, in order.
    """
    names = []
    for k, row in enumerate(rows):
        names.append(f"layer{k + 1}")
        owner.add_module(names[-1], MobileBlock(cin, row))
        cin = row[2]
    return names


class Inject(nn.Module):
    """A local map times the gate of a global one, all by 1x1 with BN; plus a third projection where `add`.

    Args:
        local: Channels of the local map.
        globe: Channels of the global map.
        cout: Output channels.
        add: Also add a projection of the global map.
    """

    def __init__(self, local: int, globe: int, cout: int, *, add: bool) -> None:
        super().__init__()
        self.local_embedding = ConvBN(local, cout, 1, relu=False)
        self.global_act = ConvBN(globe, cout, 1, relu=False)
        self.add = add
        if add:
            self.global_embedding = ConvBN(globe, cout, 1, relu=False)

    def forward(self, local: Tensor, globe: Tensor) -> Tensor:
        """Maps (N, local, H, W) and (N, globe, h, w) to (N, cout, H, W)."""
        y: Tensor = self.local_embedding(local) * resize_like(F.hardsigmoid(self.global_act(globe)), local)
        return y + resize_like(self.global_embedding(globe), local) if self.add else y


class FuseHead(nn.Module):
    """1x1 (depthwise where `depthwise`), BN, ReLU, dropout, 1x1 to the classes.

    Args:
        channels: Of the map.
        num_classes: Output channels.
        depthwise: The first 1x1 weighs single channels.
    """

    def __init__(self, channels: int, num_classes: int, *, depthwise: bool) -> None:
        super().__init__()
        self.linear_fuse = ConvBN(channels, channels, 1, groups=channels if depthwise else 1, act=torch.relu)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def classify(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes, H, W) of a map (N, channels, H, W)."""
        y: Tensor = self.conv_seg(self.dropout(self.linear_fuse(x)))
        return y
