"""Fast-SCNN.

Poudel et al., "Fast-SCNN: Fast Semantic Segmentation Network", BMVC 2019, arXiv 1902.04502. There is no official code;
this equals the widely used Tramac/Fast-SCNN-pytorch number for number. Its first convolution has no padding, and every
resize has align_corners True. The auxiliary head (``auxlayer``) serves training only and is not built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.layers.depthwise import (
    ConvBNReLU,
    FeatureFusion,
    SeparableClassifier,
    SeparableConvReLU,
    inverted_residuals,
)
from edgeseg.models.layers.pyramid import BINS, pyramid_maps
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec

__all__ = ["FastSCNN", "fast_scnn"]


class LearningToDownsample(nn.Module):
    """Three strided convolutions: (N, 3, H, W) to (N, 64, H / 8, W / 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvBNReLU(3, 32, 3, stride=2)
        self.dsconv1 = SeparableConvReLU(32, 48, stride=2)
        self.dsconv2 = SeparableConvReLU(48, 64, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dsconv2(self.dsconv1(self.conv(x)))
        return y


class PyramidPooling(nn.Module):
    """Averages over 1, 2, 3 and 6 bins per side, each reduced and resized back, joined with the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.names = [f"conv{k + 1}" for k in range(len(BINS))]
        for name in self.names:
            self.add_module(name, ConvBNReLU(channels, channels // len(BINS), 1))
        self.out = ConvBNReLU(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        convs = [self.get_submodule(name) for name in self.names]
        y: Tensor = self.out(torch.cat((x, *pyramid_maps(x, convs, align_corners=True)), dim=1))
        return y


class GlobalFeatureExtractor(nn.Module):
    """Inverted residuals to stride 32, then pyramid pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.bottleneck1 = inverted_residuals(64, 64, 3, stride=2)
        self.bottleneck2 = inverted_residuals(64, 96, 3, stride=2)
        self.bottleneck3 = inverted_residuals(96, 128, 3, stride=1)
        self.ppm = PyramidPooling(128)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.ppm(self.bottleneck3(self.bottleneck2(self.bottleneck1(x))))
        return y


class FastSCNN(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8); H and W are multiples of 32. The published code
        then resizes bilinearly to the input size (align_corners True).
    """

    checkpoint_ignores = (r"^auxlayer\.",)

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        self.learning_to_downsample = LearningToDownsample()
        self.global_feature_extractor = GlobalFeatureExtractor()
        self.feature_fusion = FeatureFusion(64)
        self.classifier = SeparableClassifier(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        high = self.learning_to_downsample(image)
        logits: Tensor = self.classifier(self.feature_fusion(high, self.global_feature_extractor(high)))
        return logits


@register(
    ModelSpec(
        system="Fast-SCNN",
        year=2019,
        paper="Fast-SCNN: Fast Semantic Segmentation Network (BMVC 2019, arXiv 1902.04502)",
        source="Tramac/Fast-SCNN-pytorch, third-party",
        num_classes=19,
        labels="cityscapes",
        input_size=(1024, 2048),
        divisor=32,
        input=InputSpec.imagenet(),
        postprocess=PostprocessSpec(align_corners=True),
        classes_key="classifier.conv.1.weight",
        params=1_138_051,
        accuracy="Cityscapes val mIoU 54.84 (Tramac's README, retrained at 768 crops; paper 68.6)",
        weights_licence="Apache-2.0",
        notes="No official code. The fusion needs heights and widths that are multiples of 32.",
    )
)
def fast_scnn(*, num_classes: int = 19) -> FastSCNN:
    """Build Fast-SCNN."""
    return FastSCNN(num_classes)
