"""SegFormer B0 to B5 as mmsegmentation 1.2.2 has them, number for number; that library is third-party to the paper.

Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", NeurIPS 2021,
arXiv 2105.15203. Weights of the authors' own code do not fit, see `edgeseg.models.heads.segformer`; and their heads
from B2 on are 768 wide, these 256.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeseg.models.backbones.mit import mit
from edgeseg.models.heads.segformer import SegformerHead
from edgeseg.models.mmseg.resnet18 import MMSEG
from edgeseg.models.registry import register
from edgeseg.models.segmentor import Segmentor

__all__: list[str] = []

# Variant: parameters, and mIoU on Cityscapes val.
_NETWORKS = {
    "b0": (3_720_051, 76.54),
    "b1": (13_683_155, 78.56),
    "b2": (24_728_019, 81.08),
    "b3": (44_603_859, 81.94),
    "b4": (61_374_419, 81.89),
    "b5": (81_974_739, 82.25),
}


def _builder(variant: str) -> Callable[..., Segmentor]:
    def build(*, num_classes: int = 19) -> Segmentor:
        backbone = mit(variant)
        widths = [info.channels for info in backbone.feature_info]
        head = SegformerHead(in_channels=widths, in_index=range(len(widths)), channels=256, num_classes=num_classes)
        return Segmentor(backbone, head)

    return build


for _variant, (_params, _miou) in _NETWORKS.items():
    register(
        MMSEG(
            system="SegFormer",
            year=2021,
            paper="SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers "
            "(NeurIPS 2021, arXiv 2105.15203)",
            input_size=(1024, 1024),
            params=_params,
            accuracy=f"Cityscapes val mIoU {_miou:.2f}, sliding window of 1024x1024 (mmsegmentation's metafile)",
            min_side=29,
            notes="mmsegmentation's weights fit; those of the authors' code do not.",
        ),
        name=f"mmseg_segformer_{_variant}",
    )(_builder(_variant))
