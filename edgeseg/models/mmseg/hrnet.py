"""mmsegmentation's OCRNet on HRNetV2-W18-Small.

Equal to mmsegmentation 1.2.2 number for number; that library is third-party to the papers. HRNet: Wang et al., TPAMI
2020, arXiv 1908.07919; OCRNet: Yuan et al., ECCV 2020, arXiv 1909.11065. There is no auxiliary head: the FCN head is
part of inference, OCRNet starts from its logits.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from edgeseg.models.backbones.hrnet import hrnet
from edgeseg.models.heads.fcn import FCNHead
from edgeseg.models.heads.ocr import OCRHead
from edgeseg.models.mmseg.resnet18 import MMSEG
from edgeseg.models.registry import register
from edgeseg.models.segmentor import Segmentor

__all__ = ["mmseg_ocrnet_hr18s"]

WIDTHS = (18, 36, 72, 144)


class _Joined(TypedDict):
    in_channels: tuple[int, ...]
    in_index: tuple[int, ...]
    input_transform: Literal["resize_concat"]
    dropout_ratio: float


ALL: _Joined = {
    "in_channels": WIDTHS, "in_index": (0, 1, 2, 3), "input_transform": "resize_concat", "dropout_ratio": -1.0,
}  # fmt: skip
"""For heads that read all maps, resized to the first and concatenated."""


@register(
    MMSEG(
        system="OCRNet",
        year=2020,
        paper="Object-Contextual Representations for Semantic Segmentation (ECCV 2020, arXiv 1909.11065)",
        params=6_378_496,
        classes_key="decode_head.1.conv_seg.weight",
        accuracy="Cityscapes val mIoU 78.45 (mmsegmentation's metafile, 160 k iterations)",
    )
)
def mmseg_ocrnet_hr18s(*, num_classes: int = 19) -> Segmentor:
    """Build OCRNet on HRNetV2-W18-Small; logits at stride 4."""
    coarse = FCNHead(
        **ALL, channels=sum(WIDTHS), kernel_size=1, num_convs=1, concat_input=False, num_classes=num_classes
    )
    fine = OCRHead(**ALL, channels=512, ocr_channels=256, num_classes=num_classes)
    return Segmentor(hrnet(18, small=True), (coarse, fine))
