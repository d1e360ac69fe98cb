"""HRNet: maps of several strides side by side, exchanged again and again.

Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", TPAMI 2020, arXiv 1908.07919. Equal
to mmsegmentation 1.2.2's HRNet, third-party, with its key names; `hrnet` builds the sizes that it publishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from edgeseg.models.backbones.registry import register_backbone
from edgeseg.models.backbones.resnet import resnet_stage
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.residual import BasicBlock, Bottleneck, WideBottleneck
from edgeseg.models.layers.resize import resize_like, upsample
from edgeseg.models.layers.sequential import conv_bn, conv_bn_relu

__all__ = ["HRNet", "HRStage", "hrnet"]


@dataclass(frozen=True)
class HRStage:
    """One stage: a number of modules, and width and number of the blocks of each branch.

    Attributes:
        modules: How often the branches run and exchange.
        widths: Of the branches' blocks, from the finest map on.
        blocks: Per branch and module.
        block: Kind of block.
    """

    modules: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    block: type[BasicBlock] | type[Bottleneck] = BasicBlock

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the maps."""
        return tuple(width * self.block.expansion for width in self.widths)


class _Up(nn.Sequential):
    """1x1 and BN of a coarser map, then bilinear to the finer one's size: by a power of two, and again if that is off.

    Args:
        in_channels: Channels of the coarser map.
        out_channels: Channels of the finer map.
        factor: Between their strides.
    """

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__(*conv_bn(in_channels, out_channels, 1))
        self.factor = factor

    def to_size(self, x: Tensor, finer: Tensor) -> Tensor:
        """Compute the coarser map `x` at the size and with the channels of `finer`."""
        y = upsample(self(x), self.factor)
        return y if y.shape[2:] == finer.shape[2:] else resize_like(y, finer)

    def fuse(self) -> None:
        """Fold the BN."""
        fold_bn_pair(self, "0", "1")


def _down(in_channels: int, out_channels: int, steps: int) -> nn.Sequential:
    """Build strided 3x3s from a finer map to a coarser one; the last widens and has no ReLU."""
    rest = (conv_bn_relu(in_channels, in_channels, 3, stride=2) for _ in range(steps - 1))
    return nn.Sequential(*rest, conv_bn(in_channels, out_channels, 3, stride=2))


def _exchange(channels: Sequence[int], i: int, j: int) -> nn.Module:
    """Build what brings map j to map i."""
    if i == j:
        return nn.Identity()
    return _Up(channels[j], channels[i], 2 ** (j - i)) if j > i else _down(channels[j], channels[i], i - j)


class _Module(nn.Module):
    """Blocks on every branch; then each map becomes the ReLU of the sum of all, brought to its size."""

    def __init__(self, stage: HRStage, inputs: Sequence[int]) -> None:
        super().__init__()
        places = range(len(stage.widths))
        self.branches = nn.ModuleList(
            resnet_stage(stage.block, inputs[k], stage.widths[k], stage.blocks[k]) for k in places
        )
        self.fuse_layers = nn.ModuleList(nn.ModuleList(_exchange(stage.channels, i, j) for j in places) for i in places)

    def _sum(self, i: int, maps: list[Tensor]) -> Tensor:
        layers = self.fuse_layers.get_submodule(str(i)).children()
        parts = [
            layer.to_size(x, maps[i]) if isinstance(layer, _Up) else layer(x)
            for layer, x in zip(layers, maps, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return torch.relu(total)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Compute one map per branch, to the same sizes."""
        deep = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [self._sum(i, deep) for i in range(len(deep))]


def _transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
    """Build the way from the maps of one stage to the inputs of the next; a new one is made of the last map."""
    layers: list[nn.Module] = []
    for k, width in enumerate(after):
        if k < len(before):
            layers.append(nn.Identity() if before[k] == width else conv_bn_relu(before[k], width, 3))
        else:
            steps = k + 1 - len(before)
            widths = [*[before[-1]] * steps, width]
            layers.append(nn.Sequential(*(conv_bn_relu(widths[j], widths[j + 1], 3, stride=2) for j in range(steps))))
    return nn.ModuleList(layers)


def _cross(transition: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    return [
        maps[k] if isinstance(layer, nn.Identity) else layer(maps[-1]) for k, layer in enumerate(transition.children())
    ]


class HRNet(nn.Module):
    """The backbone.

    Args:
        first: Blocks of the first stage: bottlenecks 64 wide.
        stages: The three stages after it, with two, three and four branches.

    Shape:
        image (N, 3, H, W) -> one map per branch of the last stage, strides 4, 8, 16, 32; any height and width, sizes
        rounded up.
    """

    def __init__(self, first: int, stages: Sequence[HRStage]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.layer1 = resnet_stage(WideBottleneck, 64, 64, first)
        before: tuple[int, ...] = (64 * WideBottleneck.expansion,)
        for k, stage in enumerate(stages):
            self.add_module(f"transition{k + 1}", _transition(before, stage.channels))
            modules = (_Module(stage, stage.channels) for _ in range(stage.modules))
            self.add_module(f"stage{k + 2}", nn.Sequential(*modules))
            before = stage.channels
        self.stages = len(stages)
        self.feature_info = tuple(FeatureInfo(width, 4 * 2**k) for k, width in enumerate(before))

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute maps of an image (N, 3, H, W); see the class."""
        x = torch.relu(self.bn1(self.conv1(image)))
        maps = [self.layer1(torch.relu(self.bn2(self.conv2(x))))]
        for k in range(1, self.stages + 1):
            maps = self.get_submodule(f"stage{k + 1}")(_cross(self.get_submodule(f"transition{k}"), maps))
        return maps

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the same as `features`."""
        return self.features(image)

    def fuse(self) -> None:
        """Fold the BNs of the stem."""
        fold_bn_pair(self, "conv1", "bn1")
        fold_bn_pair(self, "conv2", "bn2")


def hrnet(width: int, *, small: bool = False) -> HRNet:
    """Build HRNetV2 of a width of its finest branch, such as 18, 32 or 48.

    Args:
        width: Of the finest branch; each coarser one is twice as wide.
        small: Half the depth (HRNet-W18-Small-v1): two blocks per branch and fewer modules.
    """
    widths = tuple(width * 2**k for k in range(4))
    depth, modules = (2, (1, 3, 2)) if small else (4, (1, 4, 3))
    stages = (HRStage(count, widths[: k + 2], (depth,) * (k + 2)) for k, count in enumerate(modules))
    return HRNet(depth, tuple(stages))


register_backbone("hrnet_w18_small")(partial(hrnet, 18, small=True))
for _width in (18, 48):
    register_backbone(f"hrnet_w{_width}")(partial(hrnet, _width))
