"""PortraitNet.

Zhang et al., "PortraitNet: Real-time portrait segmentation network for mobile device", Computers & Graphics 80, 2019.
Equals the authors' own implementation (dong-x16/PortraitNet, ``model/model_mobilenetv2_seg_small.py``, Python 2 and
torch 0.3, read with today's semantics) number for number. The encoder is MobileNetV2 with plain ReLUs; the decoder
doubles the map five times, up to input size. The boundary head ``edge`` serves training only and is built with `aux`;
the consistency loss between an image and its augmented copy needs no parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UsageError
from edgeseg.models.layers.depthwise import InvertedResidual, SeparableConvReLU, inverted_residuals
from edgeseg.models.layers.resize import upsample
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, ResizeRule

__all__ = [
    "PortraitNet",
    "portraitnet",
    "portraitnet_deconvgroup",
    "portraitnet_edge",
    "portraitnet_upsample",
    "portraitnet_video",
]

_DECODER = (320, 96, 32, 24, 16, 8)


class Doubling(nn.Module):
    """Bilinear upsampling by two, which has no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, C, H, W) into (N, C, 2 H, 2 W)."""
        return upsample(x, 2)


class Transit(nn.Module):
    """D-block: two separable convolutions, a 1x1 shortcut, ReLU after the sum."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        second = nn.Conv2d(out_channels, out_channels, 3, 1, 1, groups=out_channels, bias=False)
        self.block = nn.Sequential(
            SeparableConvReLU(in_channels, out_channels).conv,
            second,
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.residual = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        return torch.relu(self.block(x) + self.residual(x))


class PortraitNet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        channels: Of the input: 3, or 4 with the previous frame's foreground probability (0..1) as the last.
        doubling: ``"deconv"`` mixes all channels, ``"grouped"`` keeps them apart (the published training freezes its
            bilinear weights), ``"bilinear"`` is a resize with align_corners False (True in the torch 0.3 of the paper).
        aux: Build the boundary head.

    Shape:
        image (N, channels, H, W) -> logits (N, num_classes, H, W); H and W are multiples of 32. Where `channels` is 4,
        an image of three channels stands for the first frame: its fourth is zero.
    """

    def __init__(self, num_classes: int = 2, *, channels: int = 3, doubling: str = "deconv", aux: bool = False) -> None:
        super().__init__()
        self.stage0 = nn.Sequential(nn.Conv2d(channels, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.stage1 = InvertedResidual(32, 16, expand=1, flat=True)
        self.stage2 = inverted_residuals(16, 24, 2, stride=2, flat=True)
        self.stage3 = inverted_residuals(24, 32, 3, stride=2, flat=True)
        self.stage4 = inverted_residuals(32, 64, 4, stride=2, flat=True)
        self.stage5 = inverted_residuals(64, 96, 3, stride=1, flat=True)
        self.stage6 = inverted_residuals(96, 160, 3, stride=2, flat=True)
        self.stage7 = InvertedResidual(160, 320, flat=True)
        for k in range(1, 6):
            self.add_module(f"transit{k}", Transit(_DECODER[k - 1], _DECODER[k]))
            self.add_module(f"deconv{k}", _doubling(_DECODER[k], doubling))
        self.pred = nn.Conv2d(8, num_classes, 3, 1, 1, bias=False)
        self.edge = nn.Conv2d(8, num_classes, 3, 1, 1, bias=False) if aux else None
        self.checkpoint_ignores = () if aux else (r"^edge\.",)

    def _stem(self, image: Tensor) -> Tensor:
        conv = self.stage0[0]
        if isinstance(conv, nn.Conv2d) and image.shape[1] == 3 < conv.in_channels:
            x = F.conv2d(image, conv.weight[:, :3], conv.bias, conv.stride, conv.padding)
            return torch.relu(self.stage0[1](x))
        y: Tensor = self.stage0(image)
        return y

    def decode(self, image: Tensor) -> Tensor:
        """Compute the map (N, 8, H, W) that the heads read, of an image as the class says."""
        quarter = self.stage2(self.stage1(self._stem(image)))
        eighth = self.stage3(quarter)
        sixteenth = self.stage5(self.stage4(eighth))
        x: Tensor = self.stage7(self.stage6(sixteenth))
        for k, skip in enumerate((sixteenth, eighth, quarter, None, None), start=1):
            x = self.get_submodule(f"deconv{k}")(self.get_submodule(f"transit{k}")(x))
            x = x if skip is None else x + skip
        return x

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at input size; see the class."""
        logits: Tensor = self.pred(self.decode(image))
        return logits

    def forward_train(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and boundary logits, both (N, num_classes, H, W).

        Raises:
            UsageError: Built without `aux`.
        """
        if self.edge is None:
            raise UsageError("PortraitNet was built without its boundary head; build it with aux=True to train")
        x = self.decode(image)
        return self.pred(x), self.edge(x)


def _doubling(channels: int, kind: str) -> nn.Module:
    if kind == "bilinear":
        return Doubling()
    groups = channels if kind == "grouped" else 1
    return nn.ConvTranspose2d(channels, channels, 4, 2, 1, groups=groups, bias=False)


_SPEC = ModelSpec(
    system="PortraitNet",
    year=2019,
    paper="PortraitNet: Real-time portrait segmentation network for mobile device (Computers & Graphics 80, 2019)",
    source="dong-x16/PortraitNet, official",
    num_classes=2,
    labels="person",
    input_size=(224, 224),
    divisor=32,
    input=InputSpec("bgr", (103.94, 116.78, 123.68), scale=0.017),
    resize=ResizeRule("letterbox", "cubic", (128, 128, 128)),
    classes_key="pred.weight",
    params=2_080_760,
    accuracy="Supervise-Portrait test IoU 93.43 at 224x224 (the repository's notebook; 400 images)",
)


@register(_SPEC)
def portraitnet(*, num_classes: int = 2, aux: bool = False) -> PortraitNet:
    """Build PortraitNet."""
    return PortraitNet(num_classes, aux=aux)


@register(
    _SPEC.but(
        params_note="The published count, 2,080,904, includes the boundary head (144), built with aux.",
        notes="PortraitNet as trained: its checkpoint holds the boundary head.",
    )
)
def portraitnet_edge(*, num_classes: int = 2, aux: bool = False) -> PortraitNet:
    """Build PortraitNet trained with its boundary head; the inference form is `portraitnet`'s."""
    return PortraitNet(num_classes, aux=aux)


@register(_SPEC.but(params=1_905_400, accuracy="", notes="Transposed convolutions per channel (useDeconvGroup)."))
def portraitnet_deconvgroup(*, num_classes: int = 2, aux: bool = False) -> PortraitNet:
    """Build PortraitNet with per-channel transposed convolutions."""
    return PortraitNet(num_classes, doubling="grouped", aux=aux)


@register(_SPEC.but(params=1_902_584, accuracy="", notes="Bilinear upsampling in the decoder (useUpsample)."))
def portraitnet_upsample(*, num_classes: int = 2, aux: bool = False) -> PortraitNet:
    """Build PortraitNet with bilinear upsampling."""
    return PortraitNet(num_classes, doubling="bilinear", aux=aux)


@register(
    _SPEC.but(
        params=2_081_048,
        accuracy="",
        notes="Takes the previous frame's foreground probability as a fourth channel; exported graphs hold the form "
        "for a first frame or a still, whose fourth channel is zero.",
    )
)
def portraitnet_video(*, num_classes: int = 2, aux: bool = False) -> PortraitNet:
    """Build PortraitNet for video: a fourth input channel carries the previous mask."""
    return PortraitNet(num_classes, channels=4, aux=aux)
