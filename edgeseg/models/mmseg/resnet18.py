"""mmsegmentation's networks on ResNet-18 with the deep stem (ResNetV1c): FCN to PointRend.

Each equals mmsegmentation 1.2.2 number for number; that library is third-party to the papers. ResNet: He et al., CVPR
2016, arXiv 1512.03385. Training-only: one auxiliary FCN head on the third stage of the networks at stride 8 and of
UPerNet, built on request (``aux=True``). Semantic FPN and PointRend are published on deeper ResNets only.
"""

from __future__ import annotations

from functools import partial
from typing import TypedDict

from edgeseg.models.backbones.resnet import resnet
from edgeseg.models.heads.aspp import ASPPHead, DepthwiseSeparableASPPHead
from edgeseg.models.heads.base import DecodeHead
from edgeseg.models.heads.fcn import FCNHead
from edgeseg.models.heads.fpn import FPN, FPNHead
from edgeseg.models.heads.point import PointHead
from edgeseg.models.heads.pyramid import PSPHead, UPerHead
from edgeseg.models.registry import register
from edgeseg.models.segmentor import Segmentor
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = [
    "LAST",
    "MMSEG",
    "WIDTHS",
    "OnLast",
    "aux_head",
    "mmseg_deeplabv3_r18_d8",
    "mmseg_deeplabv3plus_r18_d8",
    "mmseg_fcn_r18_d8",
    "mmseg_pointrend_r18",
    "mmseg_pspnet_r18_d8",
    "mmseg_semfpn_r18",
    "mmseg_upernet_r18",
    "on_resnet18_d8",
]

WIDTHS = (64, 128, 256, 512)
LEVELS = (0, 1, 2, 3)


class OnLast(TypedDict):
    """Options of a head that reads one map."""

    in_channels: int
    in_index: int
    channels: int


LAST: OnLast = {"in_channels": WIDTHS[-1], "in_index": LEVELS[-1], "channels": 128}
"""For a head that reads the last map alone."""

MMSEG = partial(
    ModelSpec,
    source="open-mmlab/mmsegmentation 1.2.2, third-party",
    num_classes=19,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=1,
    input=InputSpec.imagenet(),
    classes_key="decode_head.conv_seg.weight",
    weights_licence="Apache-2.0",
)
"""What the specs of mmsegmentation's Cityscapes networks have in common."""


def aux_head(num_classes: int, *, channels: int = 64) -> FCNHead:
    """Build the training-only head on the third stage."""
    return FCNHead(
        in_channels=WIDTHS[2], in_index=2, channels=channels, num_convs=1, concat_input=False, num_classes=num_classes
    )


def on_resnet18_d8(head: DecodeHead, *, aux: bool) -> Segmentor:
    """Build a head on the ResNet-18 at stride 8."""
    return Segmentor(resnet(18, output_stride=8), head, auxiliary_head=aux_head(head.num_classes) if aux else None)


@register(
    MMSEG(
        system="FCN",
        year=2015,
        paper="Fully Convolutional Networks for Semantic Segmentation (CVPR 2015, arXiv 1411.4038)",
        params=12_673_523,
        accuracy="Cityscapes val mIoU 71.11 (mmsegmentation's metafile)",
        notes="The dilated FCN of mmsegmentation: no transposed convolutions, no skips.",
    )
)
def mmseg_fcn_r18_d8(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build FCN on ResNet-18 at stride 8."""
    return on_resnet18_d8(FCNHead(**LAST, num_classes=num_classes), aux=aux)


@register(
    MMSEG(
        system="PSPNet",
        year=2017,
        paper="Pyramid Scene Parsing Network (CVPR 2017, arXiv 1612.01105)",
        params=12_641_267,
        accuracy="Cityscapes val mIoU 74.87 (mmsegmentation's metafile)",
    )
)
def mmseg_pspnet_r18_d8(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build PSPNet on ResNet-18 at stride 8."""
    return on_resnet18_d8(PSPHead(**LAST, num_classes=num_classes), aux=aux)


@register(
    MMSEG(
        system="DeepLabV3",
        year=2017,
        paper="Rethinking Atrous Convolution for Semantic Image Segmentation (arXiv 1706.05587)",
        params=13_837_555,
        accuracy="Cityscapes val mIoU 76.70 (mmsegmentation's metafile)",
    )
)
def mmseg_deeplabv3_r18_d8(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build DeepLabV3 on ResNet-18 at stride 8."""
    return on_resnet18_d8(ASPPHead(**LAST, dilations=(1, 12, 24, 36), num_classes=num_classes), aux=aux)


@register(
    MMSEG(
        system="DeepLabV3+",
        year=2018,
        paper="Encoder-Decoder with Atrous Separable Convolution (ECCV 2018, arXiv 1802.02611)",
        params=12_320_143,
        accuracy="Cityscapes val mIoU 76.89 (mmsegmentation's metafile)",
    )
)
def mmseg_deeplabv3plus_r18_d8(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build DeepLabV3+ on ResNet-18 at stride 8; logits at stride 4."""
    head = DepthwiseSeparableASPPHead(
        **LAST, dilations=(1, 12, 24, 36), c1_in_channels=WIDTHS[0], c1_channels=12, num_classes=num_classes
    )
    return on_resnet18_d8(head, aux=aux)


@register(
    MMSEG(
        system="UPerNet",
        year=2018,
        paper="Unified Perceptual Parsing for Scene Understanding (ECCV 2018, arXiv 1807.10221)",
        params=40_807_283,
    )
)
def mmseg_upernet_r18(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build UPerNet on ResNet-18, 512 channels wide."""
    head = UPerHead(in_channels=WIDTHS, in_index=LEVELS, channels=512, num_classes=num_classes)
    return Segmentor(resnet(18), head, auxiliary_head=aux_head(num_classes, channels=256) if aux else None)


def _fpn_head(num_classes: int, *, dropout_ratio: float) -> FPNHead:
    return FPNHead(
        in_channels=(256,) * 4, in_index=LEVELS, channels=128, dropout_ratio=dropout_ratio, num_classes=num_classes
    )


@register(
    MMSEG(
        system="SemanticFPN",
        year=2019,
        paper="Panoptic Feature Pyramid Networks (CVPR 2019, arXiv 1901.02446)",
        params=15_429_107,
        notes="mmsegmentation's configuration of ResNet-50 with ResNet-18 in its place; no published weights.",
    )
)
def mmseg_semfpn_r18(*, num_classes: int = 19) -> Segmentor:
    """Build Semantic FPN on ResNet-18."""
    return Segmentor(resnet(18), _fpn_head(num_classes, dropout_ratio=0.1), neck=FPN(in_channels=WIDTHS))


@register(
    MMSEG(
        system="PointRend",
        year=2020,
        paper="PointRend: Image Segmentation as Rendering (CVPR 2020, arXiv 1912.08193)",
        classes_key="decode_head.0.conv_seg.weight",
        params=15_646_319,
        logit_tolerance=1.0,
        notes="mmsegmentation's configuration of ResNet-50 with ResNet-18 in its place; no published weights. "
        "The logits have the size of the picture, rounded up to a multiple of 4. Which pixels are predicted again is a "
        "hard choice: engines round differently, so at large sizes the logits of a few pixels in a million differ by "
        "far, though hardly a label does: logit_tolerance lets them.",
    )
)
def mmseg_pointrend_r18(*, num_classes: int = 19) -> Segmentor:
    """Build PointRend on Semantic FPN on ResNet-18: 8196 points in each of two steps."""
    heads = (
        _fpn_head(num_classes, dropout_ratio=-1),
        PointHead(in_channels=(256,), in_index=(0,), channels=256, dropout_ratio=-1, num_classes=num_classes),
    )
    return Segmentor(resnet(18), heads, neck=FPN(in_channels=WIDTHS))
