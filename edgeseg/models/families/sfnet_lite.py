"""SFNet-Lite.

Li et al., "SFNet: Faster and Accurate Semantic Segmentation via Semantic Flow", IJCV 2024, arXiv 2207.04415. Equals the
authors' own implementation (lxtGH/SFSegNets) number for number, but for its base grid, which is rounded to float32
there (1e-7 of the largest logit). One flow alignment joins the finest map and the pyramid pooling, both warped, by a
gate. The gate of the published weights reads the mean and the maximum over channels ("spatial attention"); the code's
other gate is `sfnet_lite_stdc1_spatial`.

``head.dsn``, ``head.fpn_in.2`` of the ResNet-18 and STDC's classifier are published and never used, not even in
training; they are built with `aux` alone, so that the count agrees.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.backbones.stdc import STDC, STDC1_BLOCKS, STDC2_BLOCKS
from edgeseg.models.families.sfnet import FlowField, PyramidPooling, SFNetR18, classifier
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.layers.sequential import conv_bn_relu
from edgeseg.models.layers.warp import flow_warp
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec

__all__ = [
    "SFNetLiteR18",
    "SFNetLiteSTDC",
    "sfnet_lite_r18",
    "sfnet_lite_stdc1",
    "sfnet_lite_stdc1_spatial",
    "sfnet_lite_stdc2",
]

_WIDTH = 128


class GatedAlign(FlowField):
    """Both levels, each warped by its own flow field, mixed by a gate at every pixel.

    Args:
        width: Channels of both levels.
        attention: The gate reads mean and maximum of the levels over channels, else the levels at half the width.
    """

    def __init__(self, width: int, *, attention: bool) -> None:
        super().__init__(width, fields=2)
        self.attention = attention
        self.flow_gate = nn.Sequential(nn.Conv2d(4 if attention else width, 1, 3, 1, 1, bias=False), nn.Sigmoid())

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Join (N, width, H, W) and (N, width, h, w) to (N, width, H, W)."""
        coarse, fine = self.narrow(low, high)
        joined = torch.cat((coarse, fine), dim=1)
        flow = self.flow_make(joined)
        gate: Tensor = self.flow_gate(_statistics(coarse, low) if self.attention else joined)
        return flow_warp(high, flow[:, :2]) * gate + flow_warp(low, flow[:, 2:]) * (1.0 - gate)


def _statistics(coarse: Tensor, fine: Tensor) -> Tensor:
    """Compute mean of both maps and maximum of both over channels, (N, 4, H, W)."""
    means = [x.mean(dim=1, keepdim=True) for x in (coarse, fine)]
    return torch.cat((*means, *(x.amax(dim=1, keepdim=True) for x in (coarse, fine))), dim=1)


class LiteHead(nn.Module):
    """Joins the maps at strides 4 and 32 by flow, and adds the one at stride 16.

    Args:
        channels: Of the four maps, fine to coarse.
        num_classes: Output channels.
        attention: As in `GatedAlign`.
        unused: Channels of the unused laterals.
        aux: Build the unused parts.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int],
        num_classes: int,
        *,
        attention: bool = True,
        unused: tuple[int, ...] = (),
        aux: bool = False,
    ) -> None:
        super().__init__()
        self.ppm = PyramidPooling(channels[3], _WIDTH)
        laterals = (channels[0], channels[2], *(unused if aux else ()))
        self.fpn_in = nn.ModuleList(conv_bn_relu(in_channels, _WIDTH, 1, bias=True) for in_channels in laterals)
        self.flow_align_module = GatedAlign(_WIDTH, attention=attention)
        self.dsn = _dsn(num_classes) if aux else None
        self.conv_last = classifier(2 * _WIDTH, _WIDTH, num_classes)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Compute logits (N, num_classes, H, W) at the size of the finest of four maps."""
        fused = self.flow_align_module(self.fpn_in[0](maps[0]), self.ppm(maps[3]))
        middle = resize_like(self.fpn_in[1](maps[2]), fused, align_corners=True)
        logits: Tensor = self.conv_last(torch.cat((fused, middle), dim=1))
        return logits


def _dsn(num_classes: int) -> nn.Sequential:
    row = conv_bn_relu(_WIDTH, _WIDTH, 3, bias=True)
    return nn.Sequential(*row, nn.Dropout2d(0.1), nn.Conv2d(_WIDTH, num_classes, 1))


class SFNetLiteR18(SFNetR18):
    """The head on the deep-stem ResNet-18; see `SFNetR18`."""

    def __init__(self, num_classes: int = 19, *, aux: bool = False) -> None:
        super().__init__(LiteHead((64, 128, 256, 512), num_classes, unused=(512,), aux=aux))
        self.checkpoint_ignores = () if aux else (r"^head\.dsn\.", r"^head\.fpn_in\.2\.")


class SFNetLiteSTDC(nn.Module):
    """The head on STDC, whose official state dict holds every tensor under two keys.

    Args:
        num_classes: Output channels.
        blocks: Of the backbone.
        attention: As in `GatedAlign`.
        aux: Build the unused parts.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 4, W / 4), sizes rounded up, then resized bilinearly to the
        image (align_corners True).
    """

    def __init__(
        self,
        num_classes: int = 19,
        *,
        blocks: tuple[int, int, int] = STDC1_BLOCKS,
        attention: bool = True,
        aux: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = STDC(blocks, aliases=True, imagenet_classes=1000 if aux else None)
        self.head = LiteHead((64, 256, 512, 1024), num_classes, attention=attention, aux=aux)
        unused = (r"^head\.dsn\.", r"^backbone\.(conv_last|fc|bn|linear)\.")
        self.checkpoint_ignores = () if aux else unused

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 4; see the class."""
        logits: Tensor = self.head(self.backbone.feature_maps(image)[1:])
        return logits


_NOTE = "The published count, {:,}, includes parts that are never used, built with aux."

_SPEC = ModelSpec(
    system="SFNet-Lite",
    year=2022,
    paper="SFNet: Faster and Accurate Semantic Segmentation via Semantic Flow (IJCV 2024, arXiv 2207.04415)",
    source="lxtGH/SFSegNets, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=1,
    input=InputSpec.imagenet(),
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="head.conv_last.1.weight",
    params=12_079_863,
    params_note=_NOTE.format(12_296_074),
    accuracy="Cityscapes test mIoU 80.1 at 1024x2048",
    weights_licence="MIT",
)


@register(_SPEC)
def sfnet_lite_r18(*, num_classes: int = 19, aux: bool = False) -> SFNetLiteR18:
    """Build SFNet-Lite on ResNet-18."""
    return SFNetLiteR18(num_classes, aux=aux)


@register(
    _SPEC.but(
        params=6_433_623,
        params_note=_NOTE.format(9_709_162),
        accuracy="Cityscapes test mIoU 78.8 at 1024x2048",
    )
)
def sfnet_lite_stdc1(*, num_classes: int = 19, aux: bool = False) -> SFNetLiteSTDC:
    """Build SFNet-Lite on STDC1."""
    return SFNetLiteSTDC(num_classes, aux=aux)


@register(_SPEC.but(params=10_464_087, params_note=_NOTE.format(13_739_626), accuracy=""))
def sfnet_lite_stdc2(*, num_classes: int = 19, aux: bool = False) -> SFNetLiteSTDC:
    """Build SFNet-Lite on STDC2."""
    return SFNetLiteSTDC(num_classes, blocks=STDC2_BLOCKS, aux=aux)


@register(
    _SPEC.but(
        params=6_434_739,
        params_note=_NOTE.format(9_710_278),
        accuracy="",
        notes="The code's other gate; the published weights are of sfnet_lite_stdc1.",
    )
)
def sfnet_lite_stdc1_spatial(*, num_classes: int = 19, aux: bool = False) -> SFNetLiteSTDC:
    """Build SFNet-Lite on STDC1 with the gate that reads the levels themselves."""
    return SFNetLiteSTDC(num_classes, attention=False, aux=aux)
