"""DFNet, as a backbone in the form that SFNet uses. The classifier is not built.

Li et al., "Partial Order Pruning: for Best Speed/Accuracy Trade-off in Neural Architecture Search", CVPR 2019, arXiv
1903.03777.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.models.backbones.resnet import resnet_stage
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.residual import BasicBlock

__all__ = ["DF1", "DF2", "DFNet"]

DF1 = (
    # key, blocks, channels, stride, map of the backbone or not
    ("stage2", 3, 64, 2, False),
    ("stage3", 3, 128, 2, True),
    ("stage4", 3, 256, 2, True),
    ("stage5", 1, 512, 1, True),
)
"""The stages of DF1; its maps lie at strides 16, 32 and 32."""

DF2 = (
    ("stage2_1", 2, 64, 2, False),
    ("stage2_2", 1, 128, 1, True),
    ("stage3_1", 10, 128, 2, False),
    ("stage3_2", 1, 256, 1, True),
    ("stage4_1", 4, 256, 2, False),
    ("stage4_2", 2, 512, 1, True),
)
"""The stages of DF2; its maps lie at strides 8, 16 and 32."""


class DFNet(nn.Module):
    """The backbone.

    Args:
        stages: `DF1` or `DF2`.

    Shape:
        image (N, 3, H, W) -> three maps, as `feature_info` declares; any height and width, sizes rounded up.
    """

    def __init__(self, stages: tuple[tuple[str, int, int, int, bool], ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for first, second in ((3, 32), (32, 64)):
            layers += [nn.Conv2d(first, second, 3, 2, 1, bias=False), nn.BatchNorm2d(second), nn.ReLU()]
        self.stage1 = nn.Sequential(*layers)
        self.stages = stages
        in_channels, reduction, info = 64, 4, []
        for name, blocks, out_channels, stride, is_map in stages:
            self.add_module(name, resnet_stage(BasicBlock, in_channels, out_channels, blocks, stride=stride))
            in_channels, reduction = out_channels, reduction * stride
            if is_map:
                info.append(FeatureInfo(out_channels, reduction))
        self.feature_info = tuple(info)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute three maps of an image (N, 3, H, W); see the class."""
        x, maps = self.stage1(image), []
        for name, _, _, _, is_map in self.stages:
            x = self.get_submodule(name)(x)
            if is_map:
                maps.append(x)
        return maps
