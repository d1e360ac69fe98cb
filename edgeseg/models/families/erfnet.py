"""ERFNet, its encoder with the training head, and its ImageNet classifier.

Romera et al., "ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic Segmentation", IEEE T-ITS 2017.
Equals the authors' own implementation (Eromera/erfnet_pytorch) number for number. Convolutions have bias, BN eps is
1e-3. ``encoder.output_conv`` serves the training of the encoder alone; it is in every published state dict and
therefore here (2,451 parameters at 19 classes), and drops out at export. `erfnet_encoder_head` runs it instead of the
decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.layers.downsample import ConvPool
from edgeseg.models.layers.factorized import EPS, EncoderClassifier, FactorizedEncoder, NonBottleneck1d
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, ResizeRule

__all__ = ["ERFNet", "ERFNetEncoderHead", "erfnet", "erfnet_encoder_head", "erfnet_imagenet"]

_DILATIONS = (2, 4, 8, 16, 2, 4, 8, 16)


def encoder(num_classes: int | None = None) -> FactorizedEncoder:
    """Build ERFNet's encoder, with the training head where `num_classes` is given."""
    low = [NonBottleneck1d(64) for _ in range(5)]
    high = [NonBottleneck1d(128, dilation) for dilation in _DILATIONS]
    return FactorizedEncoder(16, (ConvPool(16, 64), *low, ConvPool(64, 128), *high), num_classes=num_classes)


class UpBlock(nn.Module):
    """Transposed 3x3 with stride 2, BN, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, 1)
        self.bn = nn.BatchNorm2d(out_channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the BN into the transposed convolution."""
        fold_bn_pair(self, "conv", "bn")


class Decoder(nn.Module):
    """(N, 128, H / 8, W / 8) to logits at input size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        first = (UpBlock(128, 64), NonBottleneck1d(64), NonBottleneck1d(64))
        self.layers = nn.Sequential(*first, UpBlock(64, 16), NonBottleneck1d(16), NonBottleneck1d(16))
        self.output_conv = nn.ConvTranspose2d(16, num_classes, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output_conv(self.layers(x))
        return y


class ERFNet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H, W); H and W are multiples of 8.
    """

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        self.encoder = encoder(num_classes)
        self.decoder = Decoder(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at input size; see the class."""
        logits: Tensor = self.decoder(self.encoder(image))
        return logits


class ERFNetEncoderHead(ERFNet):
    """ERFNet stopped after the encoder; the decoder stays in the state dict, as published, and never runs.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8); H and W are multiples of 8.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.encoder.output_conv(self.encoder(image))
        return logits


_SPEC = ModelSpec(
    system="ERFNet",
    year=2017,
    paper="ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic Segmentation (IEEE T-ITS 2017)",
    source="Eromera/erfnet_pytorch, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=8,
    input=InputSpec.unit_scale((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    resize=ResizeRule("stretch", "pillow_bilinear"),
    classes_key="decoder.output_conv.bias",
    params=2_066_642,
    accuracy="Cityscapes val mIoU 72.1, test 69.8 at 512x1024 (authors' README)",
    weights_licence="CC BY-NC 4.0",
    notes="Published weights have 20 outputs (19 train ids and void).",
)


@register(_SPEC)
def erfnet(*, num_classes: int = 19) -> ERFNet:
    """Build ERFNet."""
    return ERFNet(num_classes)


@register(_SPEC.but(classes_key="encoder.output_conv.weight", accuracy=""))
def erfnet_encoder_head(*, num_classes: int = 19) -> ERFNetEncoderHead:
    """Build ERFNet's encoder with its 1x1 training head, at stride 8."""
    return ERFNetEncoderHead(num_classes)


@register(
    _SPEC.but(
        num_classes=1000,
        labels="generic",
        input_size=(224, 224),
        divisor=16,
        input=InputSpec.imagenet(),
        classes_key="classifier.linear.weight",
        params=2_003_044,
        accuracy="",
        notes="Classifier, published for 224x224 (short side 256, centre crop)",
    )
)
def erfnet_imagenet(*, num_classes: int = 1000) -> EncoderClassifier:
    """Build ERFNet's encoder as an ImageNet classifier."""
    return EncoderClassifier(encoder(), num_classes)
