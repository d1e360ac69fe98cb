"""MobileSeg, PaddleSeg's light network that PP-HumanSeg V2 Lite is made of.

Equals PaddlePaddle/PaddleSeg, ``mobileseg.py`` (official; PP-HumanSeg V2, 2022, has no paper of its own) number for
number: MobileNetV3-Large, pooled maps added (`PyramidSum`), three steps that add a finer map, and all three results
fused at stride 4. The channel weights' hard sigmoid is Paddle's, clip(x / 5 + 1/2, 0, 1).

The backbone's last three blocks do not reach the output: they are in every published state dict and therefore here, and
drop out of the exported graph. ``seg_heads.1`` and ``.2`` serve training only and are built with `aux`. PaddleSeg's
192x192 model of the same name takes four backbone levels and has other keys; it is not this one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.backbones.mobilenetv3 import LARGE, PADDLE, MobileNetV3
from edgeseg.models.layers.paddleseg import PaddleSeparable
from edgeseg.models.layers.pyramid_sum import PyramidSum
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["MobileSeg", "pphumanseg_v2_lite"]

_TAPS = (3, 6, 12)
_MIDDLE = 128
_WIDTHS = (32, 64, 128)
_HEADS = (16, 32, 32)


def separable(in_channels: int, out_channels: int) -> PaddleSeparable:
    """Build a depthwise 3x3 without bias, BN, then 1x1 with bias, BN, ReLU."""
    return PaddleSeparable(in_channels, out_channels, depthwise_bias=False, same=False)


class AddFiner(nn.Module):
    """UAFMMobile: a coarse map is resized and added to a finer one."""

    def __init__(self, fine: int, coarse: int, out_channels: int) -> None:
        super().__init__()
        self.conv_x = separable(fine, coarse)
        self.conv_out = separable(coarse, out_channels)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        x = self.conv_x(fine)
        y: Tensor = self.conv_out(x + resize_like(coarse, x))
        return y


class Decoder(nn.Module):
    """From the backbone's three maps to one at the finest stride, and the two coarser ones for the training heads."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.cm = PyramidSum(channels[-1], _MIDDLE, separable(_MIDDLE, _MIDDLE))
        coarse = (*_WIDTHS[1:], _MIDDLE)
        steps = (AddFiner(*widths) for widths in zip(channels, coarse, _WIDTHS, strict=True))
        self.arm_list = nn.ModuleList(steps)
        self.fuse_convs = nn.ModuleList(separable(width, _WIDTHS[0]) for width in _WIDTHS[1:])
        self.last_conv = separable(3 * _WIDTHS[0], _WIDTHS[0])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x: Tensor = self.cm(maps[-1])
        found: list[Tensor] = []
        for fine, step in zip(reversed(maps), reversed(self.arm_list), strict=True):
            x = step(fine, x)
            found.insert(0, x)
        coarser = (resize_like(conv(y), x) for conv, y in zip(self.fuse_convs, found[1:], strict=True))
        return [self.last_conv(torch.cat((x, *coarser), dim=1)), *found[1:]]


class Head(nn.Module):
    """Separable convolution, then 1x1 to the classes."""

    def __init__(self, in_channels: int, inner: int, num_classes: int) -> None:
        super().__init__()
        self.conv = separable(in_channels, inner)
        self.conv_out = nn.Conv2d(inner, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_out(self.conv(x))
        return y


class MobileSeg(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        aux: Build the two heads that serve training only.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 4), ceil(W / 4)), any size; the published code then
        resizes bilinearly to the input size (align_corners False).
    """

    def __init__(self, num_classes: int = 2, *, aux: bool = False) -> None:
        super().__init__()
        self.backbone = MobileNetV3(LARGE, style=PADDLE, taps=_TAPS)
        self.ppseg_head = Decoder(tuple(info.channels for info in self.backbone.feature_info))
        built = len(_WIDTHS) if aux else 1
        heads = (Head(in_channels, inner, num_classes) for in_channels, inner in zip(_WIDTHS, _HEADS, strict=True))
        self.seg_heads = nn.ModuleList(list(heads)[:built])
        self.checkpoint_ignores = () if aux else (r"^seg_heads\.[12]\.",)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 4; see the class."""
        logits: Tensor = self.seg_heads[0](self.ppseg_head(self.backbone(image))[0])
        return logits

    def forward_train(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute logits at strides 4, 8 and 16; those after the first only with `aux`."""
        maps = self.ppseg_head(self.backbone(image))
        return tuple(head(x) for head, x in zip(self.seg_heads, maps, strict=False))


@register(
    ModelSpec(
        system="PP-HumanSeg V2 Lite",
        year=2022,
        paper="PP-HumanSeg V2 (PaddleSeg contrib, 2022; no paper)",
        source="PaddlePaddle/PaddleSeg (mobileseg.py), official",
        num_classes=2,
        labels="person",
        input_size=(144, 256),
        divisor=1,
        input=InputSpec.unit_scale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        classes_key="seg_heads.0.conv_out.weight",
        params=2_945_542,
        params_note="2,954,118 with the two training-only heads; 2,023,944 of ours are dead and drop out at export",
        accuracy="PP-HumanSeg14K mIoU 96.63 at 144x256",
        weights_licence="Apache-2.0",
        notes="For the portrait weights (144x256). PaddleSeg's 192x192 human weights use four backbone levels and do "
        "not fit.",
    )
)
def pphumanseg_v2_lite(*, num_classes: int = 2, aux: bool = False) -> MobileSeg:
    """Build PP-HumanSeg V2 Lite: MobileSeg on MobileNetV3-Large."""
    return MobileSeg(num_classes, aux=aux)
