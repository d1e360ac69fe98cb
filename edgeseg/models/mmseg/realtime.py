"""mmsegmentation's real-time networks: BiSeNet V1 and V2, STDC, CGNet, DDRNet and PIDNet.

Each equals mmsegmentation 1.2.2 number for number; that library is third-party to the papers. The backbones are the
zoo's under mmsegmentation's keys: `edgeseg.models.mmseg.bilateral`, `edgeseg.models.mmseg.cgnet`
and `edgeseg.models.mmseg.dual_resolution`. Training-only and built on request (``aux=True``): what DDRNet's
and PIDNet's heads hold beside the classifier, and the auxiliary heads of the others, which follow mmsegmentation's
configurations as we know them; no record here holds those.
"""

from __future__ import annotations

from edgeseg.models.backbones.stdc import STDC1_BLOCKS, STDC2_BLOCKS
from edgeseg.models.families.ddrnet import NORMAL, SLIM, Plan
from edgeseg.models.families.pidnet import PIDNetTrunk
from edgeseg.models.heads.dual_resolution import DDRHead, PIDHead
from edgeseg.models.heads.fcn import FCNHead
from edgeseg.models.heads.stdc import STDCHead
from edgeseg.models.mmseg import bilateral as bilateral
from edgeseg.models.mmseg import dual_resolution as dual
from edgeseg.models.mmseg.cgnet import cgnet
from edgeseg.models.mmseg.resnet18 import MMSEG
from edgeseg.models.registry import register
from edgeseg.models.segmentor import Segmentor
from edgeseg.specs import InputSpec, PostprocessSpec

__all__ = [
    "mmseg_bisenetv1_r18",
    "mmseg_bisenetv2",
    "mmseg_cgnet",
    "mmseg_ddrnet_23",
    "mmseg_ddrnet_23_slim",
    "mmseg_pidnet_l",
    "mmseg_pidnet_m",
    "mmseg_pidnet_s",
    "mmseg_stdc1",
    "mmseg_stdc2",
]


def _fcn(
    num_classes: int, width: int, channels: int, index: int, *, num_convs: int = 1, align_corners: bool = False
) -> FCNHead:
    """Build the FCN head of these networks, which does not join its input."""
    return FCNHead(
        in_channels=width, in_index=index, channels=channels, num_convs=num_convs, concat_input=False,
        align_corners=align_corners, num_classes=num_classes,
    )  # fmt: skip


@register(
    MMSEG(
        system="BiSeNet",
        year=2018,
        paper="BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation (ECCV 2018, arXiv "
        "1808.00897)",
        input_size=(1024, 2048),
        params=13_275_539,
        accuracy="Cityscapes val mIoU 74.44 (mmsegmentation's metafile)",
    )
)
def mmseg_bisenetv1_r18(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build BiSeNet on ResNet-18."""
    auxiliary = [_fcn(num_classes, 128, 64, index) for index in (1, 2)] if aux else None
    return Segmentor(bilateral.bisenetv1(), _fcn(num_classes, 256, 256, 0), auxiliary_head=auxiliary)


@register(
    MMSEG(
        system="BiSeNet V2",
        year=2021,
        paper="BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic Segmentation (IJCV 2021, "
        "arXiv 2004.02147)",
        input_size=(1024, 2048),
        params=3_358_883,
        accuracy="Cityscapes val mIoU 73.21 (mmsegmentation's metafile)",
    )
)
def mmseg_bisenetv2(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build BiSeNet V2."""
    widths = ((16, 16), (32, 64), (64, 256), (128, 1024))
    auxiliary = [_fcn(num_classes, *widths[k], k + 1, num_convs=2) for k in range(4)] if aux else None
    return Segmentor(bilateral.bisenetv2(), _fcn(num_classes, 128, 1024, 0), auxiliary_head=auxiliary)


_STDC = MMSEG(
    system="STDC",
    year=2021,
    paper="Rethinking BiSeNet For Real-time Semantic Segmentation (CVPR 2021, arXiv 2104.13188)",
    postprocess=PostprocessSpec(align_corners=True),
    params=8_275_123,
    accuracy="Cityscapes val mIoU 71.82 (mmsegmentation's metafile)",
)


def _stdc(blocks: tuple[int, int, int], num_classes: int, *, aux: bool) -> Segmentor:
    detail = STDCHead(
        in_channels=256, in_index=0, channels=64, num_convs=1, concat_input=False, align_corners=True, num_classes=2
    )
    auxiliary = [*(_fcn(num_classes, 128, 64, index) for index in (2, 1)), detail]
    head = _fcn(num_classes, 256, 256, 3, align_corners=True)
    return Segmentor(bilateral.stdc(blocks), head, auxiliary_head=auxiliary if aux else None)


@register(_STDC)
def mmseg_stdc1(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build STDC1."""
    return _stdc(STDC1_BLOCKS, num_classes, aux=aux)


@register(_STDC.but(params=12_305_587, accuracy=""))
def mmseg_stdc2(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build STDC2."""
    return _stdc(STDC2_BLOCKS, num_classes, aux=aux)


@register(
    MMSEG(
        system="CGNet",
        year=2018,
        paper="CGNet: A Light-weight Context Guided Network for Semantic Segmentation (arXiv 1811.08201)",
        input_size=(1024, 2048),
        input=InputSpec("rgb", (72.39239876, 82.90891754, 73.15835921), (1.0, 1.0, 1.0)),
        params=496_325,
        accuracy="Cityscapes val mIoU 65.63 (mmsegmentation's metafile)",
        notes="The published mean was measured in BGR order and is subtracted from RGB; weights depend on it.",
    )
)
def mmseg_cgnet(*, num_classes: int = 19) -> Segmentor:
    """Build CGNet with 3 and 21 blocks."""
    return Segmentor(cgnet(), _fcn(num_classes, 256, 256, 2, num_convs=0))


_DDRNET = MMSEG(
    system="DDRNet",
    year=2021,
    paper="Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road Scenes (2021, "
    "arXiv 2101.06085)",
    input_size=(1024, 2048),
    divisor=8,
    params=20_148_819,
    params_note="the published state also holds the head that serves training only; built with aux",
)


def _ddrnet(plan: Plan, num_classes: int, *, aux: bool) -> Segmentor:
    head = DDRHead(in_channels=4 * plan.planes, channels=plan.head, dropout_ratio=0.0, num_classes=num_classes, aux=aux)
    return Segmentor(dual.ddrnet(plan), head)


@register(_DDRNET)
def mmseg_ddrnet_23(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build DDRNet-23."""
    return _ddrnet(NORMAL, num_classes, aux=aux)


@register(_DDRNET.but(params=5_695_923, accuracy="Cityscapes val mIoU 77.84 (mmsegmentation's metafile)"))
def mmseg_ddrnet_23_slim(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build DDRNet-23-slim."""
    return _ddrnet(SLIM, num_classes, aux=aux)


_PIDNET = MMSEG(
    system="PIDNet",
    year=2023,
    paper="PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers (CVPR 2023, arXiv 2206.02066)",
    input_size=(1024, 2048),
    divisor=8,
    postprocess=PostprocessSpec(align_corners=True),
    params=7_625_651,
    params_note="the published state also holds the heads that serve training only; built with aux",
    accuracy="Cityscapes val mIoU 78.74 (mmsegmentation's metafile)",
)


def _pidnet(backbone: PIDNetTrunk, channels: int, num_classes: int, *, aux: bool) -> Segmentor:
    width = backbone.feature_info[-1].channels
    head = PIDHead(in_channels=width, channels=channels, align_corners=True, num_classes=num_classes, aux=aux)
    return Segmentor(backbone, head)


@register(_PIDNET)
def mmseg_pidnet_s(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build PIDNet-S."""
    return _pidnet(dual.pidnet(**dual.PIDNET_S), 128, num_classes, aux=aux)


@register(_PIDNET.but(params=28_538_387, accuracy="Cityscapes val mIoU 80.22 (mmsegmentation's metafile)"))
def mmseg_pidnet_m(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build PIDNet-M."""
    return _pidnet(dual.pidnet(**dual.PIDNET_M), 128, num_classes, aux=aux)


@register(_PIDNET.but(params=36_939_443, accuracy=""))
def mmseg_pidnet_l(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build PIDNet-L."""
    return _pidnet(dual.pidnet(**dual.PIDNET_L), 256, num_classes, aux=aux)
