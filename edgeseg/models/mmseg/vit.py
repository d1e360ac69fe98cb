"""mmsegmentation's networks on vision transformers: SETR, DPT, Segmenter.

Each equals mmsegmentation 1.2.2 number for number; that library is third-party to the papers. SETR and DPT are
published on ViT-L/16 and ViT-B/16; the networks here have the published wiring on a made-up transformer of 48 channels
and 4 layers, for which no weights exist. Segmenter's are the published ViT-T/16 and ViT-S/16. Training-only: SETR's
auxiliary heads, built on request (``aux=True``); their widths follow the made-up networks'.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from edgeseg.models.backbones.vit import VisionTransformer, ViTOptions, vit
from edgeseg.models.heads.base import DecodeHead
from edgeseg.models.heads.dpt import DPTHead
from edgeseg.models.heads.fcn import FCNHead
from edgeseg.models.heads.segmenter import SegmenterMaskTransformerHead
from edgeseg.models.heads.setr import MLANeck, SETRMLAHead, SETRUPHead
from edgeseg.models.mmseg.resnet18 import MMSEG
from edgeseg.models.registry import register
from edgeseg.models.segmentor import Segmentor
from edgeseg.specs import InputSpec

__all__ = [
    "mmseg_dpt_tiny",
    "mmseg_segmenter_vit_s",
    "mmseg_segmenter_vit_s_linear",
    "mmseg_segmenter_vit_t",
    "mmseg_setr_mla_tiny",
    "mmseg_setr_naive_tiny",
    "mmseg_setr_pup_tiny",
]

_WIDTH = 48
_TAPS = (0, 1, 2, 3)
_POSITIONS = (
    "The position embedding is for one size; others resize it, but any size with as many patches takes it as it is."
)
_MADE_UP = f"The published wiring on a made-up transformer of 48 channels and 4 layers; no weights exist. {_POSITIONS}"

_SETR = MMSEG(
    system="SETR",
    year=2021,
    paper="Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers (CVPR 2021, "
    "arXiv 2012.15840)",
    params=0,
    notes=_MADE_UP,
    weights_licence="",
)
_SEGMENTER = MMSEG(
    system="Segmenter",
    year=2021,
    paper="Segmenter: Transformer for Semantic Segmentation (ICCV 2021, arXiv 2105.05633)",
    params=0,
    input_size=(512, 512),
    input=InputSpec.unit_scale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    notes=f"Published weights are ADE20K's, 150 classes without background, in windows of 512x512. {_POSITIONS}",
)


def _tiny_vit(**options: Any) -> VisionTransformer:
    """Build the made-up transformer: 48 channels, 4 layers, every one put out, positions for 128x128."""
    plan = ViTOptions(img_size=128, embed_dims=_WIDTH, num_layers=4, num_heads=3, out_indices=_TAPS, **options)
    return VisionTransformer(plan)


def _setr_up(num_classes: int, *, aux: bool, num_convs: int, up_scale: int, kernel_size: int) -> Segmentor:
    """Build SETR with the upsampling head; the auxiliary ones are naive, on the earlier maps."""
    head = partial(
        SETRUPHead, in_channels=_WIDTH, channels=32, kernel_size=kernel_size, num_classes=num_classes, dropout_ratio=0
    )
    return Segmentor(
        _tiny_vit(norm_eps=1e-6, interpolate_mode="bilinear"),
        head(in_index=3, num_convs=num_convs, up_scale=up_scale),
        auxiliary_head=[head(in_index=k) for k in _TAPS[:3]] if aux else None,
    )


@register(_SETR.but(params=155_443))
def mmseg_setr_naive_tiny(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build SETR-Naive on a tiny transformer; logits at stride 4."""
    return _setr_up(num_classes, aux=aux, num_convs=1, up_scale=4, kernel_size=1)


@register(_SETR.but(params=195_571))
def mmseg_setr_pup_tiny(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build SETR-PUP on a tiny transformer; logits at the size of the picture, rounded up to a multiple of 16."""
    return _setr_up(num_classes, aux=aux, num_convs=4, up_scale=2, kernel_size=3)


@register(_SETR.but(params=226_163))
def mmseg_setr_mla_tiny(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
    """Build SETR-MLA on a tiny transformer without class token; logits at stride 4."""
    width = 32
    head = SETRMLAHead(
        in_channels=(width,) * 4, in_index=_TAPS, channels=64, mla_channels=16, dropout_ratio=0, num_classes=num_classes
    )
    auxiliary = partial(
        FCNHead, in_channels=width, channels=width, num_convs=0, concat_input=False, dropout_ratio=0,
        num_classes=num_classes,
    )  # fmt: skip
    return Segmentor(
        _tiny_vit(norm_eps=1e-6, interpolate_mode="bilinear", with_cls_token=False),
        head,
        neck=MLANeck(in_channels=(_WIDTH,) * 4, out_channels=width),
        auxiliary_head=[auxiliary(in_index=k) for k in _TAPS] if aux else None,
    )


@register(
    _SETR.but(
        system="DPT",
        paper="Vision Transformers for Dense Prediction (ICCV 2021, arXiv 2103.13413)",
        params=356_707,
        notes=f"{_MADE_UP} Where the patches' rows or columns are odd in number, the logits have one patch more.",
    )
)
def mmseg_dpt_tiny(*, num_classes: int = 19) -> Segmentor:
    """Build DPT on a tiny transformer, class tokens projected; logits at stride 2."""
    head = DPTHead(
        in_channels=(_WIDTH,) * 4, in_index=_TAPS, channels=32, embed_dims=_WIDTH, readout_type="project",
        post_process_channels=(12, 16, 24, 32), num_classes=num_classes,
    )  # fmt: skip
    return Segmentor(_tiny_vit(output_cls_token=True), head)


def _segmenter(head: DecodeHead, size: str) -> Segmentor:
    return Segmentor(vit(size, out_indices=-1, final_norm=True), head)


def _mask_head(width: int, num_classes: int) -> SegmenterMaskTransformerHead:
    return SegmenterMaskTransformerHead(
        in_channels=width, channels=width, embed_dims=width, num_heads=width // 64, num_classes=num_classes,
        dropout_ratio=0,
    )  # fmt: skip


@register(
    _SEGMENTER.but(
        params=6_687_782,
        classes_key="decode_head.mask_norm.weight",
        accuracy="ADE20K val mIoU 39.99 (mmsegmentation's metafile)",
    )
)
def mmseg_segmenter_vit_t(*, num_classes: int = 19) -> Segmentor:
    """Build Segmenter's mask transformer on ViT-T/16; logits at stride 16."""
    return _segmenter(_mask_head(192, num_classes), "tiny")


@register(
    _SEGMENTER.but(
        params=25_983_014,
        classes_key="decode_head.mask_norm.weight",
        accuracy="ADE20K val mIoU 46.19 (mmsegmentation's metafile)",
    )
)
def mmseg_segmenter_vit_s(*, num_classes: int = 19) -> Segmentor:
    """Build Segmenter's mask transformer on ViT-S/16; logits at stride 16."""
    return _segmenter(_mask_head(384, num_classes), "small")


@register(_SEGMENTER.but(params=21_990_547))
def mmseg_segmenter_vit_s_linear(*, num_classes: int = 19) -> Segmentor:
    """Build Segmenter's linear classifier on ViT-S/16; logits at stride 16."""
    head = FCNHead(
        in_channels=384, channels=384, num_convs=0, concat_input=False, dropout_ratio=0, num_classes=num_classes
    )
    return _segmenter(head, "small")
