"""Factorised residual blocks: 3x1 and 1x3 in turn (ERFNet, Romera et al., T-ITS 2017), also split (LEDNet).

Convolutions have bias, BN eps is 1e-3. A ReLU stands between the 3x1 and the 1x3, so the two cannot be merged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.downsample import ConvPool
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.shuffle import channel_shuffle

__all__ = ["EPS", "EncoderClassifier", "FactorizedEncoder", "NonBottleneck1d", "SplitShuffle1d"]

EPS = 1e-3
"""BN eps of ERFNet and LEDNet."""


class _Factorized(nn.Module):
    """Holds rows of two factorised convolutions under flat keys: ``conv3x1_1``, ``conv1x3_1``, ``bn1``, then ``_2``."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, str, str]] = []

    def add_row(self, channels: int, dilation: int, suffix: str = "", *, wide_first: bool = False) -> None:
        """Add both halves of a row; `wide_first` runs every 1x3 before its 3x1."""
        for k, d in (("1", 1), ("2", dilation)):
            tall, wide, bn = f"conv3x1_{k}{suffix}", f"conv1x3_{k}{suffix}", f"bn{k}{suffix}"
            self.add_module(tall, nn.Conv2d(channels, channels, (3, 1), 1, (d, 0), (d, 1)))
            self.add_module(wide, nn.Conv2d(channels, channels, (1, 3), 1, (0, d), (1, d)))
            self.add_module(bn, nn.BatchNorm2d(channels, eps=EPS))
            self.rows.append((wide, tall, bn) if wide_first else (tall, wide, bn))

    def half_row(self, x: Tensor, row: int) -> Tensor:
        """Compute one half of a row: convolution, ReLU, convolution, BN."""
        first, second, bn = (self.get_submodule(name) for name in self.rows[row])
        y: Tensor = bn(second(torch.relu(first(x))))
        return y

    def fuse(self) -> None:
        """Fold every BN into the convolution before it."""
        for _, second, bn in self.rows:
            fold_bn_pair(self, second, bn)


class NonBottleneck1d(_Factorized):
    """Two factorised 3x3 and the input; the second is dilated.

    Args:
        channels: Of the map.
        dilation: Of the second pair.
    """

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.add_row(channels, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        return torch.relu(self.half_row(torch.relu(self.half_row(x, 0)), 1) + x)


class SplitShuffle1d(_Factorized):
    """SS-nbt: the halves of the channels go through mirrored rows, are joined, added, and shuffled.

    Args:
        channels: Of the map.
        dilation: Of the second pair.
    """

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.add_row(channels // 2, dilation, "_l")
        self.add_row(channels // 2, dilation, "_r", wide_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        left, right = torch.split(x, x.shape[1] // 2, dim=1)
        left = self.half_row(torch.relu(self.half_row(left, 0)), 1)
        right = self.half_row(torch.relu(self.half_row(right, 2)), 3)
        return channel_shuffle(torch.relu(x + torch.cat((left, right), dim=1)), 2)


class FactorizedEncoder(nn.Module):
    """Three strided blocks with residual blocks between them: image to (N, 128, H / 8, W / 8).

    Args:
        low: Channels of the first strided block.
        layers: What follows it: six modules that end at stride 4, then those that end at stride 8.
        num_classes: Outputs of ``output_conv``, which trains the encoder alone; None builds none.
    """

    def __init__(self, low: int, layers: Iterable[nn.Module], *, num_classes: int | None = None) -> None:
        super().__init__()
        self.initial_block = ConvPool(3, low)
        self.layers = nn.Sequential(*layers)
        if num_classes is not None:
            self.output_conv = nn.Conv2d(128, num_classes, 1)

    def maps(self, image: Tensor) -> list[Tensor]:
        """Compute maps at strides 4 (64 channels) and 8 (128 channels)."""
        quarter = self.layers[:6](self.initial_block(image))
        return [quarter, self.layers[6:](quarter)]

    def forward(self, image: Tensor) -> Tensor:
        """Compute the map at stride 8."""
        return self.maps(image)[-1]


class _EncoderFeatures(nn.Module):
    """The key ``features.encoder``."""

    def __init__(self, encoder: FactorizedEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.encoder.maps(image)


class EncoderClassifier(nn.Module):
    """An encoder as an ImageNet classifier: 2x2 max pool, average, Linear (``classifier.linear``).

    Args:
        encoder: The encoder.
        num_classes: Outputs.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes); published for 224x224, H and W are multiples of 16.
    """

    feature_info = (FeatureInfo(64, 4), FeatureInfo(128, 8))

    def __init__(self, encoder: FactorizedEncoder, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = _EncoderFeatures(encoder)
        self.classifier = nn.Sequential(OrderedDict(linear=nn.Linear(128, num_classes)))

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits; see the class."""
        pooled = F.max_pool2d(self.features(image)[-1], 2, 2)
        logits: Tensor = self.classifier(pooled.mean((2, 3)))
        return logits
