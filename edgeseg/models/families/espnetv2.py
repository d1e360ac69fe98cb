"""ESPNetv2: classifier, segmentation network, and PaddleSeg's variant of the latter.

Mehta et al., "ESPNetv2: A Light-Weight, Power Efficient, and General Purpose Convolutional Neural Network", CVPR 2019,
arXiv 1811.11431. Equals the authors' own first implementation (sacmehta/ESPNetv2) number for number, and PaddleSeg's
(third party), whose dilations are all 1 and whose pools and paddings differ (`layers.eesp`). The authors call their
repository obsolete: EdgeNets replaces it, with another decoder (`espnetv2_edgenets`).

Dead in the published states and here: the last PReLU of strided EESPs, and the image path of the classifier's level 5.
Training-only: the coarse logits of `ESPNetv2Seg.forward_train`, which have no weights of their own, and dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.eesp import EESP, OFFICIAL, PADDLESEG, DownEESP, EESPStyle
from edgeseg.models.layers.paddleseg import same_avg_pool
from edgeseg.models.layers.resize import resize_like, upsample
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec

__all__ = [
    "ESPNetv2Classifier",
    "ESPNetv2Encoder",
    "ESPNetv2Seg",
    "espnetv2_imagenet_s0_5",
    "espnetv2_imagenet_s1_0",
    "espnetv2_imagenet_s1_5",
    "espnetv2_imagenet_s1_25",
    "espnetv2_imagenet_s2_0",
    "espnetv2_paddleseg_s2_0",
    "espnetv2_seg_s0_5",
    "espnetv2_seg_s1_0",
    "espnetv2_seg_s1_5",
    "espnetv2_seg_s2_0",
    "widths",
]

_WIDE = (1, 2, 3, 4)
_MIDDLE = (1, 1, 2, 3)
_NARROW = (1, 1, 1, 2)


def widths(scale: float) -> tuple[int, ...]:
    """Return the channels of levels 1 to 5 and of the classifier's last convolution for a width factor."""
    base = -(int(32 * scale) // -4) * 4
    return min(base, 32), 2 * base, 4 * base, 8 * base, 16 * base, 1024 if scale <= 1.5 else 1280


class _Levels(nn.Module):
    """Levels 1 to 4.

    Args:
        scale: Width factor.
        style: Key names and conventions.
        level2: Name of the strided block of level 2.
    """

    def __init__(self, scale: float, *, style: EESPStyle = OFFICIAL, level2: str = "level2_0") -> None:
        super().__init__()
        c = widths(scale)
        self.style, self.level2_name = style, level2
        self.level1 = style.conv_act(3, c[0], 3, stride=2)
        self.add_module(level2, DownEESP(c[0], c[1], _WIDE, style=style))
        self.level3_0 = DownEESP(c[1], c[2], _WIDE, style=style)
        self.level3 = nn.Sequential(*(EESP(c[2], c[2], _WIDE, style=style) for _ in range(3)))
        self.level4_0 = DownEESP(c[2], c[3], _WIDE, style=style)
        self.level4 = nn.Sequential(*(EESP(c[3], c[3], _MIDDLE, style=style) for _ in range(7)))

    def levels(self, image: Tensor) -> list[Tensor]:
        """Compute maps at strides 2, 4, 8 and 16 of an image (N, 3, H, W)."""
        pool = self.style.pool
        quarter = pool(pool(image))
        eighth = pool(quarter)
        l1 = self.level1(image)
        l2 = self.get_submodule(self.level2_name)(l1, quarter)
        l3 = self.level3(self.level3_0(l2, eighth))
        return [l1, l2, l3, self.level4(self.level4_0(l3, pool(eighth)))]


class ESPNetv2Encoder(_Levels):
    """Levels 1 to 4 alone: image (N, 3, H, W) to maps at strides 2, 4, 8 and 16."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the four maps."""
        return self.levels(image)


class ESPNetv2Classifier(_Levels):
    """The ImageNet classifier, usable as a backbone.

    Args:
        num_classes: Outputs.
        scale: Width factor.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes); H and W are multiples of 32.
    """

    def __init__(self, num_classes: int = 1000, *, scale: float = 1.0) -> None:
        super().__init__(scale)
        c = widths(scale)
        self.level5_0 = DownEESP(c[3], c[4], _MIDDLE)
        units = [EESP(c[4], c[4], _NARROW) for _ in range(3)]
        conv = OFFICIAL.conv_act
        self.level5 = nn.Sequential(*units, conv(c[4], c[4], 3, groups=c[4]), conv(c[4], c[5], 1, groups=4))
        self.classifier = nn.Linear(c[5], num_classes)
        info = zip((c[1], c[2], c[3], c[5]), (4, 8, 16, 32), strict=True)
        self.feature_info = tuple(FeatureInfo(channels, stride) for channels, stride in info)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute maps at strides 4, 8, 16 and 32."""
        _, l2, l3, l4 = self.levels(image)
        return [l2, l3, l4, self.level5(self.level5_0(l4))]

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits; see the class."""
        logits: Tensor = self.classifier(self.features(image)[-1].mean((2, 3)))
        return logits


class PoolingPyramid(nn.Module):
    """Depthwise 3x3 on the map pooled once to four times, resized back, joined with the map and reduced."""

    def __init__(self, channels: int, style: EESPStyle) -> None:
        super().__init__()
        self.style = style
        self.stages = nn.ModuleList(style.conv(channels, channels, 3, groups=channels) for _ in range(4))
        self.project = style.conv_act(5 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps, pooled = [x], x
        for stage in self.stages:
            pooled = same_avg_pool(pooled) if self.style.paddle else self.style.pool(pooled)
            maps.append(resize_like(stage(pooled), x, align_corners=True))
        y: Tensor = self.project(torch.cat(maps, dim=1))
        return y


@dataclass(frozen=True)
class SegNames:
    """Key names of one published segmentation network."""

    encoder: str = "net"
    level2: str = "level2_0"
    reduce: str = "proj_L4_C"
    pyramid: str = "pspMod"


AUTHORS = SegNames()


class ESPNetv2Seg(nn.Module):
    """The segmentation network.

    Args:
        num_classes: Output channels.
        scale: Width factor.
        style: Key names and conventions of the blocks.
        names: Key names of the network.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 2, W / 2); H and W are multiples of 16. The published code
        then resizes bilinearly to the input size (align_corners True).
    """

    def __init__(
        self, num_classes: int = 19, *, scale: float = 1.0, style: EESPStyle = OFFICIAL, names: SegNames = AUTHORS
    ) -> None:
        super().__init__()
        c, n = widths(scale), num_classes
        self.names = names
        self.add_module(names.encoder, ESPNetv2Encoder(scale, style=style, level2=names.level2))
        self.add_module(names.reduce, style.conv_act(c[3], c[2], 1))
        pyramid = nn.Sequential(EESP(2 * c[2], c[2], _MIDDLE, style=style), PoolingPyramid(c[2], style))
        self.add_module(names.pyramid, pyramid)
        # Index 0 of the published Sequentials is a dropout, which has no weights.
        self.project_l3 = nn.Sequential(nn.Identity(), style.conv(c[2], n, 1))
        self.act_l3 = style.norm_act(n)
        self.project_l2 = style.conv_act(c[1] + n, n, 1)
        self.project_l1 = nn.Sequential(nn.Identity(), style.conv(c[0] + n, n, 1))

    def _maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits at stride 2, and coarse ones at stride 8."""
        l1, l2, l3, l4 = self.get_submodule(self.names.encoder)(image)
        x = upsample(self.get_submodule(self.names.reduce)(l4), 2, align_corners=True)
        coarse = self.project_l3(self.get_submodule(self.names.pyramid)(torch.cat((l3, x), dim=1)))
        x = upsample(self.act_l3(coarse), 2, align_corners=True)
        x = upsample(self.project_l2(torch.cat((l2, x), dim=1)), 2, align_corners=True)
        return self.project_l1(torch.cat((l1, x), dim=1)), coarse

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 2; see the class."""
        return self._maps(image)[0]

    def forward_train(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits at stride 2, and the auxiliary ones, three times enlarged to the input size."""
        logits, coarse = self._maps(image)
        for _ in range(3):
            coarse = upsample(coarse, 2, align_corners=True)
        return logits, coarse


_PAPER = (
    "ESPNetv2: A Light-weight, Power Efficient, and General Purpose Convolutional Neural Network (CVPR 2019, "
    "arXiv 1811.11431)"
)
_SEG = ModelSpec(
    system="ESPNetv2",
    year=2019,
    paper=_PAPER,
    source="sacmehta/ESPNetv2 segmentation/cnn, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=16,
    input=InputSpec(
        "bgr", (72.3923111, 82.90893555, 73.15840149), (45.3192215, 46.15289307, 44.91483307), scale=1 / 255
    ),
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="project_l1.1.conv.weight",
    params=0,
    weights_licence="MIT",
    notes="Published weights have 20 outputs (19 train ids and background). The authors resize after normalising.",
)
_CLS = _SEG.but(
    source="sacmehta/ESPNetv2 imagenet/Model.py, official",
    num_classes=1000,
    labels="generic",
    input_size=(224, 224),
    divisor=32,
    input=InputSpec.imagenet(),
    postprocess=PostprocessSpec(),
    classes_key="classifier.weight",
    notes="Classifier, published for 224x224 (short side 256, centre crop).",
)


@register(_SEG.but(params=99_222))
def espnetv2_seg_s0_5(*, num_classes: int = 19) -> ESPNetv2Seg:
    """Build ESPNetv2 segmentation, width 0.5."""
    return ESPNetv2Seg(num_classes, scale=0.5)


@register(_SEG.but(params=340_474))
def espnetv2_seg_s1_0(*, num_classes: int = 19) -> ESPNetv2Seg:
    """Build ESPNetv2 segmentation, width 1.0."""
    return ESPNetv2Seg(num_classes, scale=1.0)


@register(_SEG.but(params=724_762))
def espnetv2_seg_s1_5(*, num_classes: int = 19) -> ESPNetv2Seg:
    """Build ESPNetv2 segmentation, width 1.5."""
    return ESPNetv2Seg(num_classes, scale=1.5)


@register(_SEG.but(params=1_252_538, accuracy="Cityscapes test mIoU 66.15 (authors' README, EdgeNets' models)"))
def espnetv2_seg_s2_0(*, num_classes: int = 19) -> ESPNetv2Seg:
    """Build ESPNetv2 segmentation, width 2.0."""
    return ESPNetv2Seg(num_classes, scale=2.0)


@register(
    _SEG.but(
        source="PaddlePaddle/PaddleSeg, third-party",
        input=InputSpec.unit_scale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        classes_key="project_l1.1.weight",
        params=1_239_656,
        accuracy="Cityscapes val mIoU 70.88 at 512x1024 (PaddleSeg's README)",
        weights_licence="Apache-2.0",
        notes="Not the authors' network: all dilations are 1, PReLUs have one slope, paddings and pools differ.",
    )
)
def espnetv2_paddleseg_s2_0(*, num_classes: int = 19) -> ESPNetv2Seg:
    """Build PaddleSeg's ESPNetV2, width 2.0."""
    names = SegNames("backbone", "level2", "proj_l4_c", "eesp_psp")
    return ESPNetv2Seg(num_classes, scale=2.0, style=PADDLESEG, names=names)


@register(_CLS.but(params=1_241_332, accuracy="ImageNet top-1 57.7 (authors' README)"))
def espnetv2_imagenet_s0_5(*, num_classes: int = 1000) -> ESPNetv2Classifier:
    """Build ESPNetv2 classifier, width 0.5."""
    return ESPNetv2Classifier(num_classes, scale=0.5)


@register(_CLS.but(params=1_670_072, accuracy="ImageNet top-1 66.1 (authors' README)"))
def espnetv2_imagenet_s1_0(*, num_classes: int = 1000) -> ESPNetv2Classifier:
    """Build ESPNetv2 classifier, width 1.0."""
    return ESPNetv2Classifier(num_classes, scale=1.0)


@register(_CLS.but(params=1_965_440))
def espnetv2_imagenet_s1_25(*, num_classes: int = 1000) -> ESPNetv2Classifier:
    """Build ESPNetv2 classifier, width 1.25."""
    return ESPNetv2Classifier(num_classes, scale=1.25)


@register(_CLS.but(params=2_314_856, accuracy="ImageNet top-1 69.2 (authors' README)"))
def espnetv2_imagenet_s1_5(*, num_classes: int = 1000) -> ESPNetv2Classifier:
    """Build ESPNetv2 classifier, width 1.5."""
    return ESPNetv2Classifier(num_classes, scale=1.5)


@register(_CLS.but(params=3_498_136, accuracy="ImageNet top-1 72.1 (authors' README)"))
def espnetv2_imagenet_s2_0(*, num_classes: int = 1000) -> ESPNetv2Classifier:
    """Build ESPNetv2 classifier, width 2.0."""
    return ESPNetv2Classifier(num_classes, scale=2.0)
