"""ResNet (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385), as a backbone.

Keys are torchvision's (``conv1``, ``bn1``, ``layer1.0.conv1``, ...) below whatever prefix the owner gives; a deep stem
lies under ``stem``, as in mmsegmentation's ResNetV1c. The classifier is not built. Networks that vary the stem or the
number of stages put `resnet_stage` and `deep_stem` together themselves.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.backbones.registry import register_backbone
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.residual import BasicBlock, BlockStyle, Bottleneck, Norm, WideBottleneck, activate

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["RESNET_BLOCKS", "ResNet", "deep_stem", "resnet", "resnet_stage"]

RESNET_BLOCKS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
"""Blocks per stage by depth; from 50 on they are bottlenecks."""


_STAGES: dict[int, tuple[tuple[int, int, int, int], tuple[int, int, int, int]]] = {
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
}
"""Strides and dilations of a ResNet's stages by its output stride."""


def deep_stem(first: int, last: int, *, norm: Norm = nn.BatchNorm2d) -> tuple[nn.Module, ...]:
    """Build layers in place of the 7x7: 3x3 with stride 2 to `first`, 3x3, 3x3 to `last`, each with norm and ReLU."""
    layers: list[nn.Module] = []
    for in_channels, out_channels, stride in ((3, first, 2), (first, first, 1), (first, last, 1)):
        layers += [nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), norm(out_channels), nn.ReLU()]
    return tuple(layers)


def resnet_stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    width: int,
    blocks: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    **style: Unpack[BlockStyle],
) -> nn.Sequential:
    """Build residual blocks in a row, each ending in a ReLU; the first strides, and has half a dilation, as published.

    Args:
        block: Kind of block.
        in_channels: Input channels.
        width: Of the blocks; bottlenecks put out `block.expansion` times as many channels.
        blocks: How many.
        stride: Of the first.
        dilation: Of the (first) 3x3 of every block but the first.
        style: What all blocks share.
    """
    first = block(in_channels, width, stride=stride, dilation=max(1, dilation // 2), relu=True, **style)
    out_channels = width * block.expansion
    rest = (block(out_channels, width, dilation=dilation, relu=True, **style) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


class ResNet(nn.Module):
    """The backbone.

    Args:
        depth: 18, 34, 50 or 101.
        stem: ``"plain"`` is a 7x7 with stride 2, ``"deep"`` three 3x3 (ResNet-C, ResNet-D).
        strides: Of the four stages.
        dilations: Of the four stages; stride 8 is strides (1, 2, 1, 1) with dilations (1, 1, 2, 4).
        avg_down: A strided shortcut averages before its 1x1 (ResNet-D).
        norm: Makes the normalisations.
        slope: Of all activations but those after the sums; 0 is ReLU.

    Shape:
        image (N, 3, H, W) -> four maps, as `feature_info` declares; any height and width, sizes rounded up.
    """

    def __init__(
        self,
        depth: int,
        *,
        stem: Literal["plain", "deep"] = "plain",
        strides: tuple[int, int, int, int] = (1, 2, 2, 2),
        dilations: tuple[int, int, int, int] = (1, 1, 1, 1),
        avg_down: bool = False,
        norm: Norm = nn.BatchNorm2d,
        slope: float = 0.0,
    ) -> None:
        super().__init__()
        self.slope, self.plain = slope, stem == "plain"
        if self.plain:
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = norm(64)
        else:
            self.stem = nn.Sequential(*deep_stem(32, 64, norm=norm))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        block = BasicBlock if depth < 50 else WideBottleneck
        in_channels, reduction, info = 64, 4, []
        for k in range(4):
            width = 64 * 2**k
            stage = resnet_stage(
                block, in_channels, width, RESNET_BLOCKS[depth][k], stride=strides[k], dilation=dilations[k],
                norm=norm, slope=slope, avg_down=avg_down,
            )  # fmt: skip
            self.add_module(f"layer{k + 1}", stage)
            in_channels, reduction = width * block.expansion, reduction * strides[k]
            info.append(FeatureInfo(in_channels, reduction))
        self.feature_info = tuple(info)

    def stem_map(self, image: Tensor) -> Tensor:
        """Compute the map (N, 64, H / 4, W / 4) that the first stage reads."""
        x = activate(self.bn1(self.conv1(image)), self.slope) if self.plain else self.stem(image)
        y: Tensor = self.maxpool(x)
        return y

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute four maps of an image (N, 3, H, W); see the class."""
        x, maps = self.stem_map(image), []
        for k in range(1, 5):
            x = self.get_submodule(f"layer{k}")(x)
            maps.append(x)
        return maps

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the same as `features`."""
        return self.features(image)

    def fuse(self) -> None:
        """Fold the BN of a plain stem; a deep stem is a Sequential, and the blocks fold themselves."""
        if self.plain:
            fold_bn_pair(self, "conv1", "bn1")


def resnet(depth: int, *, stem: Literal["plain", "deep"] = "deep", output_stride: int = 32) -> ResNet:
    """Build a ResNet whose last stages dilate in place of striding; the deep stem is mmsegmentation's ResNetV1c.

    Raises:
        UsageError: `output_stride` is none of 8, 16, 32.
    """
    if output_stride not in _STAGES:
        raise UsageError(f"output_stride is {output_stride}; a ResNet takes 8, 16 or 32")
    strides, dilations = _STAGES[output_stride]
    return ResNet(depth, stem=stem, strides=strides, dilations=dilations)


for _depth in (18, 34, 50, 101):
    register_backbone(f"resnet{_depth}")(partial(resnet, _depth, stem="plain"))
    register_backbone(f"resnet{_depth}_v1c")(partial(resnet, _depth, stem="deep"))
