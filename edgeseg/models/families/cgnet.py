"""CGNet.

Wu et al., "CGNet: A Light-weight Context Guided Network for Semantic Segmentation", 2018, arXiv 1811.08201 (IEEE TIP
2020). Equals the authors' own implementation (wutianyiRosun/CGNet) number for number. BN eps is 1e-3, average pools
count the padding, and the two concatenations differ in order. With the optional dropout of training the published
classifier key is ``classifier.1.conv``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.context_guided import ContextGuided, ContextGuidedDown
from edgeseg.models.layers.prelu import BNPReLU, Conv, ConvBNPReLU
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["CGNet", "CGNetTrunk", "cgnet_m3n15", "cgnet_m3n21"]


class CGNetTrunk(nn.Module):
    """Everything before the classifier.

    Args:
        m: Blocks of stage 2.
        n: Blocks of stage 3.

    Shape:
        image (N, 3, H, W) -> maps of 35, 131 and 256 channels at strides 2, 4 and 8, sizes rounded up; any H and W.
    """

    feature_info: tuple[FeatureInfo, ...] = (FeatureInfo(35, 2), FeatureInfo(131, 4), FeatureInfo(256, 8))

    def __init__(self, *, m: int = 3, n: int = 21) -> None:
        super().__init__()
        self.level1_0 = ConvBNPReLU(3, 32, 3, stride=2)
        self.level1_1 = ConvBNPReLU(32, 32, 3)
        self.level1_2 = ConvBNPReLU(32, 32, 3)
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.b1 = BNPReLU(35)
        self.level2_0 = ContextGuidedDown(35, 64, 2, 8)
        self.level2 = nn.Sequential(*(ContextGuided(64, 2, 8) for _ in range(m - 1)))
        self.bn_prelu_2 = BNPReLU(131)
        self.level3_0 = ContextGuidedDown(131, 128, 4, 16)
        self.level3 = nn.Sequential(*(ContextGuided(128, 4, 16) for _ in range(n - 1)))
        self.bn_prelu_3 = BNPReLU(256)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute three maps of an image; see the class."""
        half = self.pool(image)
        first = self.b1(torch.cat((self.level1_2(self.level1_1(self.level1_0(image))), half), dim=1))
        down = self.level2_0(first)
        second = self.bn_prelu_2(torch.cat((self.level2(down), down, self.pool(half)), dim=1))
        down = self.level3_0(second)
        return [first, second, self.bn_prelu_3(torch.cat((down, self.level3(down)), dim=1))]


class CGNet(CGNetTrunk):
    """The network.

    Args:
        num_classes: Output channels.
        m: Blocks of stage 2.
        n: Blocks of stage 3.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8), rounded up; any H and W. The published code then
        resizes bilinearly to the input size.
    """

    def __init__(self, num_classes: int = 19, *, m: int = 3, n: int = 21) -> None:
        super().__init__(m=m, n=n)
        self.classifier = nn.Sequential(Conv(256, num_classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.classifier(self.features(image)[-1])
        return logits


_SPEC = ModelSpec(
    system="CGNet",
    year=2018,
    paper="CGNet: A Light-weight Context Guided Network for Semantic Segmentation (arXiv 1811.08201)",
    source="wutianyiRosun/CGNet, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=1,
    input=InputSpec("rgb", (72.39239876, 82.90891754, 73.15835921), (1.0, 1.0, 1.0)),
    classes_key="classifier.0.conv.weight",
    params=496_306,
    accuracy="Cityscapes test mIoU 64.8 at 1024x2048 (paper)",
    weights_licence="MIT",
    notes="The published mean was measured in BGR order and is subtracted from RGB; weights depend on it.",
)


@register(_SPEC)
def cgnet_m3n21(*, num_classes: int = 19) -> CGNet:
    """Build CGNet with 3 and 21 blocks: the network of the paper."""
    return CGNet(num_classes)


@register(_SPEC.but(params=423_682, accuracy=""))
def cgnet_m3n15(*, num_classes: int = 19) -> CGNet:
    """Build CGNet with 3 and 15 blocks."""
    return CGNet(num_classes, n=15)
