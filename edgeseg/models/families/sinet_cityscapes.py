"""SINet for Cityscapes.

Park et al., "SINet: Extreme Lightweight Portrait Segmentation Networks with Spatial Squeeze Modules and Information
Blocking Decoder", WACV 2020, arXiv 1911.09099. Equals the authors' own implementation (clovaai/c3_sinet,
``Dnc_SINaux``) number for number. Wider than the portrait network (`sinet`): vertical and horizontal kernels, two
blocking stages, a transposed convolution at the end. Every BN has eps 1e-3. Resizes inside the blocks have
align_corners True, those of the decoder False, the trailing one True.

The number of classes is also a width of the encoder. Training-only: the encoder's logits as an auxiliary output
(`SINetCityscapes.forward_train`), which has no weights of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.families.sinet import BlockPlan, SpatialSqueeze, SqueezeDown, blocking_gate, s2_stage
from edgeseg.models.layers.folding import fold_distant
from edgeseg.models.layers.prelu import EPS, BNPReLU, Conv, ConvBNPReLU
from edgeseg.models.layers.resize import upsample
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule

__all__ = ["SINetCityscapes", "sinet_cityscapes"]

# (kernel, pooling) of both blocks of a module; pooling 0 is a square kernel, 1 and more a cross.
_LEVEL3: tuple[BlockPlan, ...] = (((3, 1), (5, 1)), ((3, 0), (3, 1)), ((3, 0), (3, 1)))
_LEVEL4_LOW: tuple[BlockPlan, ...] = (
    ((3, 1), (5, 1)),
    ((3, 0), (3, 1)),
    ((5, 1), (5, 4)),
    ((3, 2), (5, 8)),
    ((3, 1), (5, 1)),
)
_LEVEL4_HIGH: tuple[BlockPlan, ...] = (
    ((3, 1), (5, 1)),
    ((3, 0), (3, 1)),
    ((5, 1), (5, 8)),
    ((3, 2), (5, 4)),
    ((3, 0), (5, 2)),
)


class CrossSqueeze(SpatialSqueeze):
    """S2-block whose depthwise convolution is the sum of a vertical and a horizontal one, each with its BN."""

    def __init__(self, channels: int, kernel: int, pooling: int) -> None:
        super().__init__(channels, kernel, pooling)
        del self.conv
        pad = kernel // 2
        self.vertical = nn.Conv2d(channels, channels, (kernel, 1), 1, (pad, 0), groups=channels, bias=False)
        self.horizontal = nn.Conv2d(channels, channels, (1, kernel), 1, (0, pad), groups=channels, bias=False)
        self.B_v = nn.BatchNorm2d(channels, eps=EPS)
        self.B_h = nn.BatchNorm2d(channels, eps=EPS)
        self.cross: nn.Conv2d | None = None

    def mix(self, x: Tensor) -> Tensor:
        """Compute both convolutions and their BNs, or the one they were merged into."""
        y: Tensor
        y = self.B_v(self.vertical(x)) + self.B_h(self.horizontal(x)) if self.cross is None else self.cross(x)
        return y

    def fuse(self) -> None:
        """Merge both convolutions and their BNs into one with a cross-shaped kernel, and fold the last BN."""
        super().fuse()
        if self.cross is None:
            fold_distant(self, "vertical", "B_v")
            fold_distant(self, "horizontal", "B_h")
            self.cross = _cross_conv(self.vertical, self.horizontal)
            del self.vertical, self.horizontal, self.B_v, self.B_h


def _cross_conv(vertical: nn.Conv2d, horizontal: nn.Conv2d) -> nn.Conv2d:
    """Build the square depthwise convolution that equals the sum of a vertical and a horizontal one with bias."""
    n, _, k, _ = vertical.weight.shape
    cross = nn.Conv2d(n, n, k, 1, k // 2, groups=n).to(vertical.weight.device, vertical.weight.dtype)
    with torch.no_grad():
        cross.weight.zero_()
        cross.weight[..., k // 2 : k // 2 + 1] += vertical.weight
        cross.weight[:, :, k // 2 : k // 2 + 1] += horizontal.weight
        if cross.bias is not None and vertical.bias is not None and horizontal.bias is not None:
            cross.bias.copy_(vertical.bias + horizontal.bias)
    return cross


def squeeze_block(channels: int, kernel: int, pooling: int) -> SpatialSqueeze:
    """Build a square S2-block where `pooling` is 0, else a cross-shaped one."""
    if pooling == 0:
        return SpatialSqueeze(channels, kernel, 1)
    return CrossSqueeze(channels, kernel, pooling)


class _Encoder(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        c = num_classes
        self.level1 = ConvBNPReLU(3, 16, 3, stride=2)
        self.level2_0 = SqueezeDown(16, c, divide=1)
        self.level3_0 = SqueezeDown(c, 24, divide=1)
        self.level3 = nn.Sequential(*s2_stage(24, 60, _LEVEL3, squeeze_block))
        self.BR3 = BNPReLU(84)
        self.level4_0 = SqueezeDown(84, 60, divide=2)
        low, high = s2_stage(60, 84, _LEVEL4_LOW, squeeze_block), s2_stage(84, 108, _LEVEL4_HIGH, squeeze_block)
        self.level4 = nn.Sequential(*low, *high)
        self.BR4 = BNPReLU(168)
        self.classifier = Conv(168, c, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute maps at stride 4 and 8, logits at stride 16."""
        quarter = self.level2_0(self.level1(image))
        down3 = self.level3_0(quarter)
        eighth = self.level3(down3)
        down4 = self.level4_0(self.BR3(torch.cat((down3, eighth), dim=1)))
        return quarter, eighth, self.classifier(self.BR4(torch.cat((down4, self.level4(down4)), dim=1)))


class SINetCityscapes(nn.Module):
    """The network.

    Args:
        num_classes: Output channels, at least 2.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 2, W / 2); H and W are multiples of 128. The published code
        then resizes bilinearly to the input size (align_corners True).
    """

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        self.encoder = _Encoder(num_classes)
        self.bn_4 = nn.BatchNorm2d(num_classes, eps=EPS)
        self.level3_C = ConvBNPReLU(60, num_classes, 1)
        self.bn_3 = nn.BatchNorm2d(num_classes, eps=EPS)
        self.classifier = nn.ConvTranspose2d(num_classes, num_classes, 2, 2, bias=False)

    def forward_train(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits at stride 2, and the auxiliary ones at stride 16."""
        quarter, eighth, coarse = self.encoder(image)
        x = self.bn_4(upsample(coarse, 2))
        x = self.level3_C(eighth) * blocking_gate(x) + x
        x = self.bn_3(upsample(x, 2))
        return self.classifier(quarter * blocking_gate(x) + x), coarse

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 2; see the class."""
        return self.forward_train(image)[0]

    def fuse(self) -> None:
        """Fold ``bn_4`` through the resize into the encoder's classifier."""
        fold_distant(self, "encoder.classifier.conv", "bn_4")


@register(
    ModelSpec(
        system="SINet",
        year=2020,
        paper="SINet: Extreme Lightweight Portrait Segmentation Networks with Spatial Squeeze Modules and Information "
        "Blocking Decoder (WACV 2020, arXiv 1911.09099)",
        source="clovaai/c3_sinet models/SINet.py, official",
        num_classes=19,
        labels="cityscapes",
        input_size=(1024, 2048),
        divisor=128,
        input=InputSpec.imagenet(),
        resize=ResizeRule("stretch", "pillow_bilinear"),
        postprocess=PostprocessSpec(align_corners=True),
        classes_key="classifier.weight",
        params=119_418,
        accuracy="Cityscapes val mIoU 68.22, test 66.46 at 1024x2048",
        weights_licence="MIT",
        notes="The number of classes is also a width of the encoder.",
    )
)
def sinet_cityscapes(*, num_classes: int = 19) -> SINetCityscapes:
    """Build SINet for Cityscapes."""
    return SINetCityscapes(num_classes)
