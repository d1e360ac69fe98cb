"""LEDNet, in three published forms, and its ImageNet classifier.

Wang et al., "LEDNet: A Lightweight Encoder-Decoder Network for Real-Time Semantic Segmentation", ICIP 2019,
arXiv 1905.02423. `lednet` and `lednet_apn128` equal the authors' own implementation (xiaoyufenfei/LEDNet,
``train/lednet.py`` and the wider ``train/lednet_1.py``) number for number, `lednet_esn` the first author's later one
(xiaoyufenfei/Efficient-Segmentation-Networks) with a factorised pyramid. Convolutions have bias, BN eps is 1e-3.

The authors' decoder has 20 outputs whatever the number of classes and a fixed output size of 512x1024; here both are
free. Training-only: dropout, and ``encoder.output_conv`` (which trains the encoder alone), which is not built.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from edgeseg.models.layers.downsample import ConvPool
from edgeseg.models.layers.factorized import EPS, EncoderClassifier, FactorizedEncoder, SplitShuffle1d
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule

__all__ = ["LEDNet", "LEDNetESN", "lednet", "lednet_apn128", "lednet_cls", "lednet_esn"]

_DILATIONS = (1, 2, 5, 9, 2, 5, 9, 17)

Unit = Callable[[int, int, int, int], nn.Module]
"""Builds convolution, BN, ReLU from in_channels, out_channels, kernel and stride."""


class ConvNormReLU(nn.Module):
    """Convolution with bias, BN, ReLU under the key ``conv``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)
        self.conv = nn.Sequential(conv, nn.BatchNorm2d(out_channels, eps=EPS), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


def factorized_unit(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    """Build k x 1 and 1 x k with nothing between them, BN, ReLU."""
    tall = nn.Conv2d(in_channels, out_channels, (kernel, 1), (stride, 1), (kernel // 2, 0))
    wide = nn.Conv2d(out_channels, out_channels, (1, kernel), (1, stride), (0, kernel // 2))
    return nn.Sequential(tall, wide, nn.BatchNorm2d(out_channels, eps=EPS), nn.ReLU())


class AttentionPyramid(nn.Module):
    """APN: a pyramid of strided convolutions weighs a 1x1 of the map; a 1x1 of its average is added.

    Args:
        num_classes: Output channels.
        downs: The three strided levels.
        laterals: Convolutions of the second and the first level.
    """

    def __init__(self, num_classes: int, downs: tuple[nn.Module, ...], laterals: tuple[nn.Module, ...]) -> None:
        super().__init__()
        # Index 0 of the published Sequential is the average, which has no weights.
        self.branch1 = nn.Sequential(nn.Identity(), ConvNormReLU(128, num_classes, 1))
        self.mid = nn.Sequential(ConvNormReLU(128, num_classes, 1))
        self.down1, self.down2, self.down3 = downs
        self.conv2, self.conv1 = laterals

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, 128, H, W) into (N, num_classes, H, W)."""
        x1 = self.down1(x)
        x2 = self.down2(x1)
        y = resize_like(self.down3(x2), x2, align_corners=True) + self.conv2(x2)
        y = resize_like(y, x1, align_corners=True) + self.conv1(x1)
        weights = resize_like(y, x, align_corners=True)
        out: Tensor = weights * self.mid(x) + self.branch1(x.mean((2, 3), keepdim=True))
        return out


def narrow_pyramid(num_classes: int) -> AttentionPyramid:
    """Build the pyramid of one channel."""
    unit = ConvNormReLU
    downs = unit(128, 1, 7, 2), unit(1, 1, 5, 2), nn.Sequential(unit(1, 1, 3, 2), unit(1, 1, 3))
    return AttentionPyramid(num_classes, downs, (unit(1, 1, 5), unit(1, 1, 7)))


def wide_pyramid(num_classes: int) -> AttentionPyramid:
    """Build the pyramid of 128 channels, reduced to the classes by 1x1s."""
    unit, c = ConvNormReLU, num_classes
    downs = unit(128, 128, 7, 2), unit(128, 128, 5, 2), nn.Sequential(unit(128, 128, 3, 2), unit(128, c, 1))
    return AttentionPyramid(c, downs, (unit(128, c, 1), unit(128, c, 1)))


def factorized_pyramid(num_classes: int) -> AttentionPyramid:
    """Build the pyramid of one channel in factorised convolutions."""
    unit = factorized_unit
    last = nn.Sequential(*unit(1, 1, 3, 2), *unit(1, 1, 3, 1))
    downs = unit(128, 1, 7, 2), unit(1, 1, 5, 2), last
    return AttentionPyramid(num_classes, downs, (unit(1, 1, 5, 1), unit(1, 1, 7, 1)))


def encoder_layers() -> tuple[nn.Module, ...]:
    """Build the encoder after its first block."""
    low = [SplitShuffle1d(32) for _ in range(3)]
    middle = [SplitShuffle1d(64) for _ in range(2)]
    return (*low, ConvPool(32, 64), *middle, ConvPool(64, 128), *(SplitShuffle1d(128, d) for d in _DILATIONS))


class _Decoder(nn.Module):
    """The key ``decoder.apn``."""

    def __init__(self, apn: AttentionPyramid) -> None:
        super().__init__()
        self.apn = apn

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.apn(x)
        return y


class LEDNet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        pyramid: Builds the attention pyramid.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8); H and W are multiples of 8 (32 in the published
        code). The published code then resizes bilinearly to 512x1024 (align_corners True).
    """

    checkpoint_ignores = (r"^encoder\.output_conv\.",)

    def __init__(self, num_classes: int = 20, *, pyramid: Callable[[int], AttentionPyramid] = narrow_pyramid) -> None:
        super().__init__()
        self.encoder = FactorizedEncoder(32, encoder_layers())
        self.decoder = _Decoder(pyramid(num_classes))

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.decoder(self.encoder(image))
        return logits


class LEDNetESN(FactorizedEncoder):
    """LEDNet with a factorised pyramid, under the keys of the later repository.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8); H and W are multiples of 8. The published code then
        resizes bilinearly to the input size (align_corners True).
    """

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__(32, encoder_layers())
        self.apn = factorized_pyramid(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.apn(super().forward(image))
        return logits


_SPEC = ModelSpec(
    system="LEDNet",
    year=2019,
    paper="LEDNet: A Lightweight Encoder-Decoder Network for Real-Time Semantic Segmentation (ICIP 2019, "
    "arXiv 1905.02423)",
    source="xiaoyufenfei/LEDNet train/lednet.py, official",
    num_classes=20,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=8,
    input=InputSpec.unit_scale((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    resize=ResizeRule("stretch", "pillow_bilinear"),
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="decoder.apn.mid.0.conv.0.weight",
    params=923_083,
    params_note="The record counts encoder.output_conv for 19 classes: 925,534.",
    accuracy="Cityscapes test mIoU 70.6 at 512x1024 (paper)",
    weights_licence="MIT",
    notes="19 train ids and void.",
)


@register(_SPEC)
def lednet(*, num_classes: int = 20) -> LEDNet:
    """Build LEDNet: the network of the paper."""
    return LEDNet(num_classes)


@register(
    _SPEC.but(
        source="xiaoyufenfei/LEDNet train/lednet_1.py, official",
        params=2_285_560,
        params_note="The record counts encoder.output_conv for 19 classes: 2,288,011.",
        accuracy="",
    )
)
def lednet_apn128(*, num_classes: int = 20) -> LEDNet:
    """Build LEDNet with an attention pyramid of 128 channels."""
    return LEDNet(num_classes, pyramid=wide_pyramid)


@register(
    _SPEC.but(
        source="xiaoyufenfei/Efficient-Segmentation-Networks, by the same first author",
        num_classes=19,
        input=InputSpec("rgb", (73.1583, 82.909, 72.3924), (1.0, 1.0, 1.0)),
        classes_key="apn.mid.0.conv.0.weight",
        params=917_387,
        params_note="",
        accuracy="",
        notes="",
    )
)
def lednet_esn(*, num_classes: int = 19) -> LEDNetESN:
    """Build LEDNet with a factorised attention pyramid."""
    return LEDNetESN(num_classes)


@register(
    _SPEC.but(
        source="xiaoyufenfei/LEDNet imagenet-pretrain/lednet_imagenet.py, official",
        num_classes=1000,
        labels="generic",
        input_size=(224, 224),
        divisor=16,
        input=InputSpec.imagenet(),
        postprocess=PostprocessSpec(),
        classes_key="classifier.linear.weight",
        params=1_040_436,
        params_note="",
        accuracy="",
        notes="Classifier, published for 224x224 (short side 256, centre crop).",
    )
)
def lednet_cls(*, num_classes: int = 1000) -> EncoderClassifier:
    """Build LEDNet's encoder as an ImageNet classifier."""
    return EncoderClassifier(FactorizedEncoder(32, encoder_layers()), num_classes)
