"""PP-HumanSeg ConnectNet (PPHumanSegLite).

Chu et al., "PP-HumanSeg: Connectivity-Aware Portrait Segmentation with a Large-Scale Teleconferencing Video Dataset",
WACV Workshops 2022, arXiv 2112.07146. Equals the authors' own implementation (PaddlePaddle/PaddleSeg,
``pphumanseg_lite.py``) number for number.

The last separable convolution ends in BN and ReLU, so the logits are not negative and a tie at zero is background.
Stride-1 blocks own a ``_depthwise_separable_0`` that never runs: it is in every published state dict and therefore here
(95,040 of the 226,806 parameters), and drops out of the exported graph. Nothing is training-only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.layers.paddleseg import PaddleConv, PaddleSeparable
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.layers.shuffle import channel_shuffle
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["PPHumanSegLite", "pphumanseg_lite"]


def conv_bn(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, act: bool = True) -> PaddleConv:
    """Build a convolution without bias, BN, and ReLU where `act`."""
    return PaddleConv(
        in_channels, out_channels, kernel, stride=stride, bias=False, act="relu" if act else "none", same=False
    )


def separable(in_channels: int, out_channels: int, *, stride: int = 1, act: bool = True) -> PaddleSeparable:
    """Build a depthwise 3x3 and BN, then 1x1, BN, and ReLU where `act`."""
    return PaddleSeparable(in_channels, out_channels, stride=stride, bias=False, relu=act, same=False)


class ShuffleBlock(nn.Module):
    """Inverted residual with a channel split (stride 1) or a strided shortcut (stride 2), then a shuffle."""

    def __init__(self, in_channels: int, *, stride: int, out_channels: int | None = None) -> None:
        super().__init__()
        branch = in_channels if stride == 2 else in_channels // 2
        half = branch if out_channels is None else out_channels // 2
        self.stride = stride
        self._depthwise_separable_0 = separable(in_channels, half, stride=stride)
        self._conv = conv_bn(branch, half, 1)
        self._depthwise_separable_1 = separable(half, half, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            half = x.shape[1] // 2
            shortcut, branch = torch.split(x, half, dim=1)
        else:
            shortcut, branch = self._depthwise_separable_0(x), x
        branch = self._depthwise_separable_1(self._conv(branch))
        return channel_shuffle(torch.cat((shortcut, branch), dim=1), 2)


class PPHumanSegLite(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 2), ceil(W / 2)), not negative; the published code then
        resizes bilinearly to the input size (align_corners False). Any size of at least 32 works.
    """

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.conv_bn0 = conv_bn(3, 36, 3, stride=2)
        self.conv_bn1 = conv_bn(36, 18, 1)
        first = ShuffleBlock(36, stride=2, out_channels=72)
        self.block1 = nn.Sequential(first, *(ShuffleBlock(72, stride=1) for _ in range(3)))
        self.block2 = nn.Sequential(ShuffleBlock(72, stride=2), *(ShuffleBlock(144, stride=1) for _ in range(7)))
        self.depthwise_separable0 = separable(144, 64)
        self.depthwise_separable1 = separable(82, 64)
        self.depthwise_separable2 = separable(64, num_classes, act=False)
        self.pool = nn.MaxPool2d(3, 2, 1)

    def stages(self, image: Tensor) -> list[Tensor]:
        """Compute intermediate maps, for comparing with other implementations.

        Args:
            image: (N, 3, H, W).

        Returns:
            Outputs of conv_bn0 (stride 2), conv_bn1 (2), block1 (8), block2 (16), depthwise_separable0 (16),
            depthwise_separable1 (2), and of the last BN of depthwise_separable2 before its ReLU (2).
        """
        stem = self.conv_bn0(image)
        shortcut = self.conv_bn1(stem)
        low = self.block1(self.pool(stem))
        deep = self.block2(low)
        reduced = self.depthwise_separable0(deep)
        joined = self.depthwise_separable1(torch.cat((shortcut, resize_like(reduced, shortcut)), dim=1))
        return [stem, shortcut, low, deep, reduced, joined, self.depthwise_separable2(joined)]

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 2; see the class."""
        return torch.relu(self.stages(image)[-1])


@register(
    ModelSpec(
        system="PP-HumanSeg ConnectNet",
        year=2022,
        paper="PP-HumanSeg: Connectivity-Aware Portrait Segmentation (WACV-W 2022, arXiv 2112.07146)",
        source="PaddlePaddle/PaddleSeg, official",
        num_classes=2,
        labels="person",
        input_size=(192, 192),
        divisor=2,
        input=InputSpec.unit_scale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        classes_key="depthwise_separable2.piontwise_conv._conv.weight",
        params=226_806,
        accuracy="PP-HumanSeg14K mIoU 93.60 at 224x398",
        weights_licence="Apache-2.0",
        notes="95,040 parameters are dead in the published state and drop out at export.",
    )
)
def pphumanseg_lite(*, num_classes: int = 2) -> PPHumanSegLite:
    """Build PP-HumanSeg V1 Lite."""
    return PPHumanSegLite(num_classes)
