"""What TopFormer and SeaFormer share besides their attention: rows, transformer, fusion, head and the whole.

Zhang et al., "TopFormer", CVPR 2022, arXiv 2204.05525; Wan et al., "SeaFormer", ICLR 2023, arXiv 2301.13156.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.attention import ConvMLP, conv_bn
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.resize import resize_like

__all__ = [
    "FuseHead",
    "Inject",
    "MobileBlock",
    "Row",
    "TokenSegmentor",
    "Transformer",
    "TransformerBlock",
    "add_blocks",
    "stem",
]

Row = tuple[int, int, int, int]
"""One block: kernel, expansion, channels, stride."""


class MobileBlock(nn.Module):
    """1x1 to `expand` times the width (none for 1), depthwise convolution, linear 1x1; plus the input where possible.

    Args:
        in_channels: Input channels.
        row: Kernel, expansion, output channels, stride.
    """

    def __init__(self, in_channels: int, row: Row) -> None:
        super().__init__()
        kernel, expand, out_channels, stride = row
        inner = in_channels * expand
        widen = [] if expand == 1 else [conv_bn(in_channels, inner), nn.ReLU()]
        deepen = [conv_bn(inner, inner, kernel, stride=stride, groups=inner), nn.ReLU()]
        self.conv = nn.Sequential(*widen, *deepen, conv_bn(inner, out_channels))
        self.add = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.conv(x)
        return x + y if self.add else y


def stem(out_channels: int) -> nn.Sequential:
    """Build 3x3 with stride 2, BN, ReLU on an image."""
    return nn.Sequential(conv_bn(3, out_channels, 3, stride=2), nn.ReLU())


def add_blocks(owner: nn.Module, in_channels: int, rows: Sequence[Row]) -> list[str]:
    """Add the blocks of `rows` to `owner` as ``layer1``, ``layer2``, ...

    Returns:
        Their names, in order.
    """
    names = []
    for k, row in enumerate(rows):
        names.append(f"layer{k + 1}")
        owner.add_module(names[-1], MobileBlock(in_channels, row))
        in_channels = row[2]
    return names


class TransformerBlock(nn.Module):
    """Attention and MLP, each added to its input.

    Args:
        attention: Maps (N, channels, H, W) to the same shape.
        channels: Of the map.
        ratio: Inner channels of the MLP over `channels`.
    """

    def __init__(self, attention: nn.Module, channels: int, *, ratio: int) -> None:
        super().__init__()
        self.attn = attention
        self.mlp = ConvMLP(channels, ratio * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        x = x + self.attn(x)
        y: Tensor = x + self.mlp(x)
        return y


class Transformer(nn.Module):
    """Blocks in a row."""

    def __init__(self, *blocks: TransformerBlock) -> None:
        super().__init__()
        self.transformer_blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, C, H, W) into maps of the same shape."""
        y: Tensor = self.transformer_blocks(x)
        return y


class Inject(nn.Module):
    """A local map times the gate of a global one, all by 1x1 with BN; plus a third projection where `add`.

    Args:
        local: Channels of the local map.
        globe: Channels of the global map.
        out_channels: Output channels.
        add: Also add a projection of the global map.
    """

    def __init__(self, local: int, globe: int, out_channels: int, *, add: bool) -> None:
        super().__init__()
        self.local_embedding = ConvBN(local, out_channels, 1, relu=False)
        self.global_act = ConvBN(globe, out_channels, 1, relu=False)
        self.add = add
        if add:
            self.global_embedding = ConvBN(globe, out_channels, 1, relu=False)

    def forward(self, local: Tensor, globe: Tensor) -> Tensor:
        """Turn maps (N, local, H, W) and (N, globe, h, w) into (N, out_channels, H, W)."""
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
        """Compute logits (N, num_classes, H, W) of a map (N, channels, H, W)."""
        y: Tensor = self.conv_seg(self.dropout(self.linear_fuse(x)))
        return y


class TokenSegmentor(nn.Module):
    """A backbone whose maps are the features, and a head on them.

    Args:
        backbone: Image to maps.
        decode_head: Maps to logits.
        feature_info: Of the maps.
    """

    def __init__(self, backbone: nn.Module, decode_head: nn.Module, feature_info: Sequence[FeatureInfo]) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head
        self.feature_info = tuple(feature_info)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute the maps of an image (N, 3, H, W) that the head takes."""
        maps: list[Tensor] = self.backbone(image)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.decode_head(self.backbone(image))
        return logits
