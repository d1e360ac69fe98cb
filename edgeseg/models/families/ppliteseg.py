"""PP-LiteSeg, in the authors' form and in that of super-gradients.

Peng et al., "PP-LiteSeg: A Superior Real-Time Semantic Segmentation Model", 2022, arXiv 2204.02681. ``ppliteseg_t`` and
``ppliteseg_b`` equal PaddlePaddle/PaddleSeg (``pp_liteseg.py``, the authors' own) number for number, under its keys;
``ppliteseg_sg_t`` and ``ppliteseg_sg_b`` equal Deci-AI/super-gradients, third-party. They cost the same but weights do
not pass from one to the other: attention maps stand in another order and weigh the other map, pooled branches have a
bias or not, and average pools count the padding or not. The "1" and "2" of the paper's names are test sizes.

Training-only: ``seg_heads.1`` and ``.2``, built with ``aux`` alone; super-gradients' auxiliary heads are not built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.backbones.stdc import PADDLE, STDC, STDC1_BLOCKS, STDC2_BLOCKS, SUPER_GRADIENTS, seq_conv
from edgeseg.models.layers.paddleseg import PaddleConv
from edgeseg.models.layers.pyramid_sum import PyramidSum
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["PPLiteSeg", "PPLiteSegSG", "ppliteseg_b", "ppliteseg_sg_b", "ppliteseg_sg_t", "ppliteseg_t"]

_CONTEXT = 128
_TAPS = (256, 512, 1024)

Widths = tuple[int, int, int]
"""Channels at strides 8, 16 and 32."""


def conv(in_channels: int, out_channels: int, kernel: int, *, relu: bool = True, bias: bool = False) -> PaddleConv:
    """Build PaddleSeg's convolution, BN, and ReLU where `relu`."""
    return PaddleConv(in_channels, out_channels, kernel, bias=bias, act="relu" if relu else "none")


def extremes(first: Tensor, second: Tensor) -> Tensor:
    """Compute mean and maximum over the channels of two maps, (N, 4, H, W)."""
    found = [f for x in (first, second) for f in (x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True))]
    return torch.cat(found, dim=1)


def match(coarse: Tensor, fine: Tensor) -> Tensor:
    """Compute the coarse map at the size of the fine one."""
    return coarse if coarse.shape[2:] == fine.shape[2:] else resize_like(coarse, fine)


class SpatialFusion(nn.Module):
    """PaddleSeg's UAFM: a fine map's 3x3 and an enlarged coarse map, mixed pixel by pixel.

    ``_scale`` is a constant 1 that published checkpoints hold.
    """

    _scale: Tensor

    def __init__(self, fine: int, coarse: int, out_channels: int) -> None:
        super().__init__()
        self.register_buffer("_scale", torch.ones(1))
        self.conv_x = conv(fine, coarse, 3)
        self.conv_out = conv(coarse, out_channels, 3)
        self.conv_xy_atten = nn.Sequential(conv(4, 2, 3), conv(2, 1, 3, relu=False))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        fine = self.conv_x(fine)
        coarse = match(coarse, fine)
        share = torch.sigmoid(self.conv_xy_atten(extremes(fine, coarse)))
        y: Tensor = self.conv_out(fine * share + coarse * (self._scale - share))
        return y


class Decoder(nn.Module):
    """From the backbone's maps to one per stride, fine to coarse."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.cm = PyramidSum(_TAPS[-1], _CONTEXT, conv(_CONTEXT, _CONTEXT, 3, bias=True))
        steps = zip(_TAPS, (*widths[1:], _CONTEXT), widths, strict=True)
        self.arm_list = nn.ModuleList(SpatialFusion(*step) for step in steps)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x = self.cm(maps[-1])
        found: list[Tensor] = []
        for fine, step in zip(reversed(maps), reversed(self.arm_list), strict=True):
            x = step(fine, x)
            found.insert(0, x)
        return found


class Head(nn.Module):
    """3x3, BN, ReLU, then 1x1 to the classes."""

    def __init__(self, in_channels: int, inner: int, num_classes: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, inner, 3)
        self.conv_out = nn.Conv2d(inner, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_out(self.conv(x))
        return y


class PPLiteSeg(nn.Module):
    """The authors' network.

    Args:
        num_classes: Output channels.
        blocks: Of the STDC backbone.
        widths: Channels of the decoder.
        inner: Inner channels of the heads.
        aux: Build the training heads.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 8), ceil(W / 8)), any size from 32; the published code
        then resizes bilinearly to the input size (align_corners False).
    """

    checkpoint_optional = (r"\._scale$",)

    def __init__(
        self,
        num_classes: int = 19,
        *,
        blocks: tuple[int, int, int] = STDC1_BLOCKS,
        widths: Widths = (32, 64, 128),
        inner: Widths = (32, 64, 64),
        aux: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = STDC(blocks, style=PADDLE)
        self.ppseg_head = Decoder(widths)
        heads = [Head(in_channels, mid, num_classes) for in_channels, mid in zip(widths, inner, strict=True)]
        self.seg_heads = nn.ModuleList(heads if aux else heads[:1])
        self.checkpoint_ignores = () if aux else (r"^seg_heads\.[12]\.",)

    def decode(self, image: Tensor) -> list[Tensor]:
        """Compute the decoder's maps of an image (N, 3, H, W) at strides 8, 16 and 32."""
        maps: list[Tensor] = self.ppseg_head(self.backbone.feature_maps(image)[2:])
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.seg_heads[0](self.decode(image)[0])
        return logits

    def forward_train(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute logits at strides 8, 16 and 32; those after the first only with `aux`."""
        return tuple(head(x) for head, x in zip(self.seg_heads, self.decode(image), strict=False))


class FusionSG(nn.Module):
    """super-gradients' UAFM: an enlarged coarse map and a fine one, mixed pixel by pixel."""

    def __init__(self, coarse: int, out_channels: int) -> None:
        super().__init__()
        self.conv_atten = nn.Sequential(seq_conv(4, 2, 3), seq_conv(2, 1, 3, relu=False))
        self.conv_out = seq_conv(coarse, out_channels, 3)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        coarse = match(coarse, fine)
        share = torch.sigmoid(self.conv_atten(extremes(coarse, fine)))
        y: Tensor = self.conv_out(coarse * share + fine * (1.0 - share))
        return y


def _pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    return seq_conv(in_channels, out_channels, 1)


class EncoderSG(nn.Module):
    """Backbone, pyramid pooling of its last map, and a 3x3 on each map."""

    def __init__(self, blocks: tuple[int, int, int], widths: Widths) -> None:
        super().__init__()
        self.backbone = STDC(blocks, style=SUPER_GRADIENTS)
        merge = seq_conv(_CONTEXT, _CONTEXT, 3)
        self.context_module = PyramidSum(_TAPS[-1], _CONTEXT, merge, branch=_pointwise, key="branches")
        projections = zip(_TAPS, (*widths[1:], _CONTEXT), strict=True)
        self.proj_convs = nn.ModuleList(
            seq_conv(in_channels, out_channels, 3) for in_channels, out_channels in projections
        )

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = self.backbone.feature_maps(image)[2:]
        return [conv(x) for conv, x in zip(self.proj_convs, maps, strict=True)], self.context_module(maps[-1])


class DecoderSG(nn.Module):
    """Fusions from coarse to fine."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        steps = reversed(list(zip((*widths[1:], _CONTEXT), widths, strict=True)))
        self.up_stages = nn.ModuleList(FusionSG(*step) for step in steps)

    def forward(self, maps: list[Tensor], x: Tensor) -> Tensor:
        for step, fine in zip(self.up_stages, reversed(maps), strict=True):
            x = step(fine, x)
        return x


class HeadSG(nn.Module):
    """3x3, BN, ReLU, dropout, then 1x1 to the classes."""

    def __init__(self, in_channels: int, inner: int, num_classes: int) -> None:
        super().__init__()
        last = nn.Conv2d(inner, num_classes, 1, bias=False)
        self.seg_head = nn.Sequential(seq_conv(in_channels, inner, 3), nn.Dropout(0.1), last)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.seg_head(x)
        return y


class PPLiteSegSG(nn.Module):
    """super-gradients' network.

    Args:
        num_classes: Output channels.
        blocks: Of the STDC backbone.
        widths: Channels of the decoder.
        inner: Inner channels of the head.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8); H and W are multiples of 32. The published code
        then resizes bilinearly to the input size (align_corners False).
    """

    checkpoint_ignores = (r"^aux_heads\.",)

    def __init__(
        self,
        num_classes: int = 19,
        *,
        blocks: tuple[int, int, int] = STDC1_BLOCKS,
        widths: Widths = (32, 64, 128),
        inner: int = 32,
    ) -> None:
        super().__init__()
        self.encoder = EncoderSG(blocks, widths)
        self.decoder = DecoderSG(widths)
        self.seg_head = nn.Sequential(HeadSG(widths[0], inner, num_classes))

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.seg_head(self.decoder(*self.encoder(image)))
        return logits


_B_WIDTHS, _B_INNER = (64, 96, 128), (64, 64, 64)

_SPEC = ModelSpec(
    system="PP-LiteSeg",
    year=2022,
    paper="PP-LiteSeg: A Superior Real-Time Semantic Segmentation Model (2022, arXiv 2204.02681)",
    source="PaddlePaddle/PaddleSeg, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=1,
    input=InputSpec.unit_scale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    classes_key="seg_heads.0.conv_out.weight",
    params=8_028_320,
    params_note="8,141,603 with the two training heads and three stored constants",
    accuracy="Cityscapes test mIoU 72.0 at 512x1024, 74.9 at 768x1536",
    weights_licence="Apache-2.0",
)


@register(_SPEC)
def ppliteseg_t(*, num_classes: int = 19, aux: bool = False) -> PPLiteSeg:
    """Build PP-LiteSeg-T: STDC1."""
    return PPLiteSeg(num_classes, aux=aux)


@register(
    _SPEC.but(
        params=12_234_752,
        params_note="12,366,467 with the two training heads and three stored constants",
        accuracy="Cityscapes test mIoU 73.9 at 512x1024, 77.5 at 768x1536",
    )
)
def ppliteseg_b(*, num_classes: int = 19, aux: bool = False) -> PPLiteSeg:
    """Build PP-LiteSeg-B: STDC2."""
    return PPLiteSeg(num_classes, blocks=STDC2_BLOCKS, widths=_B_WIDTHS, inner=_B_INNER, aux=aux)


_SPEC_SG = _SPEC.but(
    source="Deci-AI/super-gradients, third-party",
    divisor=32,
    input=InputSpec.imagenet(),
    classes_key="seg_head.0.seg_head.2.weight",
    params=8_027_808,
    params_note="",
    accuracy="",
    notes="Input as in super-gradients' training; its own predict() subtracts the mean before the division by 255.",
)


@register(_SPEC_SG)
def ppliteseg_sg_t(*, num_classes: int = 19) -> PPLiteSegSG:
    """Build PP-LiteSeg-T of super-gradients."""
    return PPLiteSegSG(num_classes)


@register(_SPEC_SG.but(params=12_234_240))
def ppliteseg_sg_b(*, num_classes: int = 19) -> PPLiteSegSG:
    """Build PP-LiteSeg-B of super-gradients."""
    return PPLiteSegSG(num_classes, blocks=STDC2_BLOCKS, widths=_B_WIDTHS, inner=_B_INNER[0])
