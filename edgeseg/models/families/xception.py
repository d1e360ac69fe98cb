"""Xception, a classification network and backbone.

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, arXiv 1610.02357. Equals timm's
``legacy_xception`` number for number, a third-party port of the author's Keras code (BN eps is 1e-5 there, 1e-3 in
Keras). The two stem convolutions have no padding, so map sizes are not the image's divided by the stride: decoders
resize to the map they join. Nothing is training-only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.folding import fold_bn_pair, fold_distant
from edgeseg.models.layers.separable import SeparableConv
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["XCEPTION_INPUT", "Xception", "xception"]

XCEPTION_INPUT = InputSpec.unit_scale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

_BLOCKS = (
    # input, output, convolutions, stride, ReLU first, widen in the first convolution
    (64, 128, 2, 2, False, True),
    (128, 256, 2, 2, True, True),
    (256, 728, 2, 2, True, True),
    *(((728, 728, 3, 1, True, True),) * 8),
    (728, 1024, 2, 2, True, False),
)
_MAPS = {1: 4, 2: 8, 3: 16, 11: 16, 12: 32}
"""Blocks whose outputs are maps of the backbone, and their strides."""


def _separable(in_channels: int, out_channels: int) -> SeparableConv:
    """Build a depthwise 3x3 directly followed by 1x1, without bias."""
    depthwise = nn.Conv2d(in_channels, in_channels, 3, 1, 1, groups=in_channels, bias=False)
    return SeparableConv(depthwise, nn.Conv2d(in_channels, out_channels, 1, bias=False), names=("conv1", "pointwise"))


class Block(nn.Module):
    """Separable convolutions, each behind a ReLU and before a BN, a max pool where it strides, and a shortcut.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        convs: Number of separable convolutions.
        stride: 1 or 2, by max pool 3x3.
        relu_first: Start with a ReLU.
        widen_first: The first convolution makes `out_channels` channels; else the last does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        convs: int,
        *,
        stride: int = 1,
        relu_first: bool = True,
        widen_first: bool = True,
    ) -> None:
        super().__init__()
        widths = [in_channels, *([out_channels if widen_first else in_channels] * (convs - 1)), out_channels]
        layers: list[nn.Module] = []
        for k in range(convs):
            layers += [nn.ReLU(), _separable(widths[k], widths[k + 1]), nn.BatchNorm2d(widths[k + 1])]
        layers = layers if relu_first else layers[1:]
        self.rep = nn.Sequential(*layers, *([nn.MaxPool2d(3, stride, 1)] if stride > 1 else []))
        self.skip = (
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            if stride > 1 or in_channels != out_channels
            else None
        )
        self.skipbn = nn.BatchNorm2d(out_channels) if self.skip is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / stride, W / stride)."""
        y: Tensor = self.rep(x)
        if self.skip is not None and self.skipbn is not None:
            x = self.skipbn(self.skip(x))
        return y + x

    def fuse(self) -> None:
        """Fold the BNs into the 1x1 convolutions before them."""
        for k, layer in enumerate(self.rep):
            if isinstance(layer, SeparableConv):
                fold_distant(self, f"rep.{k}.pointwise", f"rep.{k + 1}")
        if self.skip is not None:
            fold_bn_pair(self, "skip", "skipbn")


class Xception(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes), any height and width. `features`: conv2 at stride 2, blocks 1, 2,
        3, 11, 12 at strides 4, 8, 16, 16, 32, and the last BN before its ReLU at stride 32.
    """

    feature_info = (
        FeatureInfo(64, 2),
        *(FeatureInfo(_BLOCKS[k - 1][1], stride) for k, stride in _MAPS.items()),
        FeatureInfo(2048, 32),
    )

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        for k, (in_channels, out_channels, convs, stride, relu_first, widen_first) in enumerate(_BLOCKS, start=1):
            block = Block(
                in_channels, out_channels, convs, stride=stride, relu_first=relu_first, widen_first=widen_first
            )
            self.add_module(f"block{k}", block)
        self.conv3 = _separable(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.conv4 = _separable(1536, 2048)
        self.bn4 = nn.BatchNorm2d(2048)
        self.fc = nn.Linear(2048, num_classes)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute seven maps of an image (N, 3, H, W); see the class."""
        x = torch.relu(self.bn1(self.conv1(image)))
        x = torch.relu(self.bn2(self.conv2(x)))
        maps = [x]
        for k in range(1, len(_BLOCKS) + 1):
            x = self.get_submodule(f"block{k}")(x)
            if k in _MAPS:
                maps.append(x)
        x = torch.relu(self.bn3(self.conv3(x)))
        return [*maps, self.bn4(self.conv4(x))]

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, num_classes); see the class."""
        logits: Tensor = self.fc(torch.relu(self.features(image)[-1]).mean((2, 3)))
        return logits

    def fuse(self) -> None:
        """Fold the BNs of stem and exit."""
        for conv, bn in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3.pointwise", "bn3"), ("conv4.pointwise", "bn4")):
            fold_distant(self, conv, bn)


@register(
    ModelSpec(
        system="Xception",
        year=2017,
        paper="Xception: Deep Learning with Depthwise Separable Convolutions (CVPR 2017, arXiv 1610.02357)",
        source="huggingface/pytorch-image-models (legacy_xception), third-party",
        num_classes=1000,
        labels="generic",
        input_size=(299, 299),
        divisor=1,
        input=XCEPTION_INPUT,
        classes_key="fc.weight",
        params=22_855_952,
        accuracy="ImageNet top-1 79.0 % at 299x299 (paper)",
        weights_licence="Apache-2.0",
        notes="Classifier: one label per image. Published input: short side to 333 (Pillow bicubic), centre crop "
        "299x299.",
    )
)
def xception(*, num_classes: int = 1000) -> Xception:
    """Build Xception."""
    return Xception(num_classes)
