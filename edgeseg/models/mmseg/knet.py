"""K-Net on mmsegmentation 1.2.2's ResNet-18, number for number; its authors' own contribution to that library.

Zhang et al., "K-Net: Towards Unified Image Segmentation", NeurIPS 2021, arXiv 2106.14855. Training-only: one auxiliary
FCN head on the third stage, built on request (``aux=True``), and the supervision of every stage's logits.
"""

from __future__ import annotations

from functools import partial

from edgeseg.models.backbones.resnet import resnet
from edgeseg.models.heads.fcn import FCNHead
from edgeseg.models.heads.knet import IterativeDecodeHead
from edgeseg.models.heads.pyramid import UPerHead
from edgeseg.models.mmseg.resnet18 import MMSEG, WIDTHS, aux_head
from edgeseg.models.registry import register
from edgeseg.models.segmentor import Segmentor

__all__ = ["mmseg_knet_fcn_r18", "mmseg_knet_upernet_r18"]

_SPEC = partial(
    MMSEG,
    system="K-Net",
    year=2021,
    paper="K-Net: Towards Unified Image Segmentation (NeurIPS 2021, arXiv 2106.14855)",
    source="open-mmlab/mmsegmentation 1.2.2, by the paper's author",
    classes_key="decode_head.kernel_generate_head.conv_seg.weight",
    notes="mmsegmentation's configuration of ResNet-50 with ResNet-18 in its place; no published weights.",
)


def _aux(num_classes: int, aux: bool) -> FCNHead | None:
    return aux_head(num_classes, channels=256) if aux else None


@register(_SPEC(params=33_857_651))
def mmseg_knet_fcn_r18(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build K-Net over FCN on ResNet-18 at stride 8, 512 channels wide."""
    first = FCNHead(in_channels=WIDTHS[-1], in_index=3, channels=512, num_classes=num_classes)
    head = IterativeDecodeHead(kernel_generate_head=first)
    return Segmentor(resnet(18, output_stride=8), head, auxiliary_head=_aux(num_classes, aux))


@register(_SPEC(params=54_019_187))
def mmseg_knet_upernet_r18(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build K-Net over UPerNet on ResNet-18, 512 channels wide; logits at stride 4."""
    first = UPerHead(in_channels=WIDTHS, in_index=range(len(WIDTHS)), channels=512, num_classes=num_classes)
    head = IterativeDecodeHead(kernel_generate_head=first)
    return Segmentor(resnet(18), head, auxiliary_head=_aux(num_classes, aux))
