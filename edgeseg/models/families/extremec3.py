"""ExtremeC3Net, the portrait network.

Park et al., "ExtremeC3Net: Extreme Lightweight Portrait Segmentation Networks using Advanced C3-modules", 2019,
arXiv 1908.03093. Equals the authors' own implementation (clovaai/ext_portrait_segmentation, ``models/extremeC3.py``,
second stage) number for number. The published decoder resizes 24 maps to input size and then classifies; here the
1x1 classifier comes first, which commutes exactly, so that `forward` ends at stride 2 and postprocessing resizes.
BN eps is 1e-3 except inside the C3 blocks and in ``upsample.1``, where it is 1e-5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.families.sinet import PORTRAIT_INPUT
from edgeseg.models.layers.c3 import C3Module, DownC3Module
from edgeseg.models.layers.prelu import BNPReLU, Conv, ConvBNPReLU
from edgeseg.models.layers.resize import upsample
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import PostprocessSpec

__all__ = ["ExtremeC3Net", "extremec3net", "extremec3net_2class"]


class _Encoder(nn.Module):
    def __init__(self, p: int, q: int) -> None:
        super().__init__()
        self.level1 = ConvBNPReLU(3, 24, 3, stride=2)
        self.b1 = BNPReLU(27)
        self.level2_0 = DownC3Module(27, 48, (1, 2, 3))
        self.level2 = nn.Sequential(*(C3Module(48, 48, (1, 3, 4)) for _ in range(p)))
        self.b2 = BNPReLU(99)
        self.level3_0 = C3Module(99, 56, (1, 3, 5), add=False)
        self.level3 = nn.Sequential(*(C3Module(56, 56, (2, 4, 8)) for _ in range(q)))
        self.b3 = BNPReLU(112)
        self.pool = nn.AvgPool2d(2, 2)

    def forward(self, image: Tensor) -> Tensor:
        half = self.pool(image)
        x = self.b1(torch.cat((self.level1(image), half), dim=1))
        down = self.level2_0(x)
        x = self.level3_0(self.b2(torch.cat((self.level2(down), down, self.pool(half)), dim=1)))
        out: Tensor = self.b3(torch.cat((x, self.level3(x)), dim=1))
        return out


class ExtremeC3Net(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        p: C3 modules of level 2.
        q: C3 modules of level 3.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 2, W / 2); H and W are multiples of 4. The published code
        then resizes bilinearly to the input size (align_corners True).
    """

    def __init__(self, num_classes: int = 1, *, p: int = 1, q: int = 5) -> None:
        super().__init__()
        self.encoder = _Encoder(p, q)
        self.upsample = nn.Sequential(nn.Conv2d(112, 24, 1, bias=False), nn.BatchNorm2d(24))
        self.Fine = nn.Sequential(Conv(3, 24, 3, stride=2), C3Module(24, 24, (2, 4, 8)))
        # Index 1 of the published Sequential is the resize, which is the postprocessing here.
        self.classifier = nn.Sequential(BNPReLU(24), nn.Identity(), nn.Conv2d(24, num_classes, 1, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 2; see the class."""
        coarse = upsample(self.upsample(self.encoder(image)), 2, align_corners=True)
        logits: Tensor = self.classifier(coarse + self.Fine(image))
        return logits


_SPEC = ModelSpec(
    system="ExtremeC3Net",
    year=2019,
    paper="ExtremeC3Net: Extreme Lightweight Portrait Segmentation Networks using Advanced C3-modules "
    "(arXiv 1908.03093)",
    source="clovaai/ext_portrait_segmentation, official",
    num_classes=1,
    labels="person",
    input_size=(224, 224),
    divisor=4,
    input=PORTRAIT_INPUT,
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="classifier.2.weight",
    params=37_738,
    accuracy="EG1800 mIoU 94.98 at 224x224",
    weights_licence="MIT",
)


@register(_SPEC)
def extremec3net(*, num_classes: int = 1) -> ExtremeC3Net:
    """Build ExtremeC3Net with one logit, as published: person where it is above 0."""
    return ExtremeC3Net(num_classes)


@register(_SPEC.but(num_classes=2, params=37_762, accuracy="", weights_licence="", notes="No published weights."))
def extremec3net_2class(*, num_classes: int = 2) -> ExtremeC3Net:
    """Build ExtremeC3Net with two classes."""
    return ExtremeC3Net(num_classes)
