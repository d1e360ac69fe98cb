"""mmsegmentation's LRASPP on MobileNetV3, at stride 8 with logits at stride 2.

Howard et al., "Searching for MobileNetV3", ICCV 2019, arXiv 1905.02244. Equal to mmsegmentation 1.2.2 number for
number; that library is third-party to the paper, whose networks halve the last stage and have about half the
parameters. There is no auxiliary head.
"""

from __future__ import annotations

from functools import partial

from edgeseg.models.backbones.mobilenetv3 import LARGE, SMALL, MobileNetV3, Row
from edgeseg.models.backbones.mobilenetv3 import MMSEG as STYLE
from edgeseg.models.heads.lraspp import LRASPPHead
from edgeseg.models.mmseg.resnet18 import MMSEG
from edgeseg.models.registry import register
from edgeseg.models.segmentor import Segmentor

__all__ = ["mmseg_lraspp_mbv3_large", "mmseg_lraspp_mbv3_small"]

_SPEC = partial(
    MMSEG,
    system="LRASPP",
    year=2019,
    paper="Searching for MobileNetV3 (ICCV 2019, arXiv 1905.02244)",
    min_side=392,
    notes="Pictures must be at least 392 pixels high and wide: the gate averages over 49x49 of the map at stride 8.",
)


def _segmentor(rows: tuple[Row, ...], taps: tuple[int, int, int], num_classes: int) -> Segmentor:
    backbone = MobileNetV3(rows, style=STYLE, taps=taps, output_stride=8)
    widths = tuple(info.channels for info in backbone.feature_info)
    head = LRASPPHead(in_channels=widths, in_index=(0, 1, 2), channels=128, eps=STYLE.eps, num_classes=num_classes)
    return Segmentor(backbone, head)


@register(_SPEC(params=3_284_547))
def mmseg_lraspp_mbv3_large(*, num_classes: int = 19) -> Segmentor:
    """Build LRASPP on MobileNetV3-Large."""
    return _segmentor(LARGE, (1, 3, 16), num_classes)


@register(_SPEC(params=1_140_787, accuracy="Cityscapes val mIoU 62.74 (mmsegmentation's metafile)"))
def mmseg_lraspp_mbv3_small(*, num_classes: int = 19) -> Segmentor:
    """Build LRASPP on MobileNetV3-Small."""
    return _segmentor(SMALL, (0, 1, 12), num_classes)
