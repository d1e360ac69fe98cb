"""TopFormer.

Zhang et al., "TopFormer: Token Pyramid Transformer for Mobile Semantic Segmentation", CVPR 2022, arXiv 2204.05525.
Equals the authors' own implementation (hustvl/TopFormer, ``topformer.py`` and ``simple_head.py``) number for number.
Four maps are averaged to stride 64, attend to each other there, and weigh the maps they came from.

The products of queries and keys are not scaled (the published class has the factor but never uses it), so ``to_k``'s
last bias has no effect. In half precision these products want fp32. Only dropout and stochastic depth are
training-only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.attention import QueryKeyValue, attend, conv_bn
from edgeseg.models.layers.pooling import adaptive_avg_pool
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.layers.token_pyramid import (
    FuseHead,
    Inject,
    Row,
    TokenSegmentor,
    Transformer,
    TransformerBlock,
    add_blocks,
    stem,
)
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["TopFormer", "topformer_base", "topformer_small", "topformer_tiny"]

_STEM = 16
_BLOCKS = 4
_KEY = 16


@dataclass(frozen=True)
class _Config:
    """Rows of the pyramid, which of them are tapped, heads, channels of the head, depthwise or dense fusion."""

    rows: tuple[Row, ...]
    taps: tuple[int, int, int, int]
    heads: int
    channels: int
    depthwise: bool


_TINY = _Config(
    (
        (3, 1, 16, 1),
        (3, 4, 16, 2),
        (3, 3, 16, 1),
        (5, 3, 32, 2),
        (5, 3, 32, 1),
        (3, 3, 64, 2),
        (3, 3, 64, 1),
        (5, 6, 96, 2),
        (5, 6, 96, 1),
    ),
    (2, 4, 6, 8),
    heads=4,
    channels=128,
    depthwise=True,
)


def _wider(a: int, b: int, c: int, d: int) -> tuple[Row, ...]:
    """Return the rows of TopFormer-Small and -Base."""
    return (
        (3, 1, 16, 1),
        (3, 4, a, 2),
        (3, 3, a, 1),
        (5, 3, b, 2),
        (5, 3, b, 1),
        (3, 3, c, 2),
        (3, 3, c, 1),
        (5, 6, d, 2),
        (5, 6, d, 1),
        (3, 6, d, 1),
    )


_SMALL = _Config(_wider(24, 48, 96, 128), (2, 4, 6, 9), heads=6, channels=192, depthwise=False)
_BASE = _Config(_wider(32, 64, 128, 160), (2, 4, 6, 9), heads=8, channels=256, depthwise=False)


class TokenPyramid(nn.Module):
    """The convolutional part: maps at strides 4, 8, 16, 32."""

    def __init__(self, rows: tuple[Row, ...], taps: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = stem(_STEM)
        self.names = add_blocks(self, _STEM, rows)
        self.taps = taps

    def forward(self, image: Tensor) -> list[Tensor]:
        x, maps = self.stem(image), []
        for name in self.names:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return [maps[tap] for tap in self.taps]


class Attention(QueryKeyValue):
    """Attention of every place to every place; values are twice as wide as keys."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads * _KEY, 2 * heads * _KEY)
        self.heads = heads
        self.proj = nn.Sequential(nn.ReLU6(), conv_bn(2 * heads * _KEY, channels))

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        q, k, v = torch.split(self.project(x).flatten(2), list(self.widths), dim=1)
        y: Tensor = self.proj(attend(q, k, v, heads=self.heads).reshape(n, v.shape[1], h, w))
        return y


class Backbone(nn.Module):
    """Pyramid, transformer at stride 64, injection: three maps of one width at strides 8, 16, 32."""

    def __init__(self, config: _Config) -> None:
        super().__init__()
        self.tpm = TokenPyramid(config.rows, config.taps)
        self.widths = [config.rows[tap][2] for tap in config.taps]
        width = sum(self.widths)
        attentions = (Attention(width, config.heads) for _ in range(_BLOCKS))
        self.trans = Transformer(*(TransformerBlock(each, width, ratio=2) for each in attentions))
        sims = (Inject(each, each, config.channels, add=True) for each in self.widths[1:])
        self.SIM = nn.ModuleList([nn.Identity(), *sims])

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = self.tpm(image)
        size = tuple((int(n) - 1) // 2 + 1 for n in maps[-1].shape[-2:])
        x = self.trans(torch.cat([adaptive_avg_pool(y, (size[0], size[1])) for y in maps], dim=1))
        parts = x.split(self.widths, dim=1)
        triples = list(zip(self.SIM, maps, parts, strict=True))[1:]
        return [sim(local, globe) for sim, local, globe in triples]


class Head(FuseHead):
    """SimpleHead: the maps are added at the finest size."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.classify(sum((resize_like(x, maps[0]) for x in maps[1:]), start=maps[0]))


class TopFormer(TokenSegmentor):
    """The network.

    Args:
        config: Widths and depths.
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 8), ceil(W / 8)), any size; the published code then
        resizes bilinearly to the input size (align_corners False). `features`: maps of one width at strides 8, 16, 32.
    """

    def __init__(self, config: _Config, num_classes: int = 19) -> None:
        head = Head(config.channels, num_classes, depthwise=config.depthwise)
        super().__init__(Backbone(config), head, [FeatureInfo(config.channels, stride) for stride in (8, 16, 32)])


_SPEC = ModelSpec(
    system="TopFormer",
    year=2022,
    paper="TopFormer: Token Pyramid Transformer for Mobile Semantic Segmentation (CVPR 2022, arXiv 2204.05525)",
    source="hustvl/TopFormer, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=1,
    input=InputSpec.imagenet(),
    classes_key="decode_head.conv_seg.weight",
    params=1_372_755,
    accuracy="ADE20K val mIoU 33.6 at 512x512 (34.6 with batch 32)",
    weights_licence="Apache-2.0",
    notes="Published weights are ADE20K's, 150 classes without background, at 512x512 in multiples of 32.",
)


@register(_SPEC)
def topformer_tiny(*, num_classes: int = 19) -> TopFormer:
    """Build TopFormer-Tiny."""
    return TopFormer(_TINY, num_classes)


@register(_SPEC.but(params=3_009_379, accuracy=""))
def topformer_small(*, num_classes: int = 19) -> TopFormer:
    """Build TopFormer-Small."""
    return TopFormer(_SMALL, num_classes)


@register(_SPEC.but(params=5_028_979, accuracy="ADE20K val mIoU 38.3 at 512x512 (39.2 with batch 32)"))
def topformer_base(*, num_classes: int = 19) -> TopFormer:
    """Build TopFormer-Base."""
    return TopFormer(_BASE, num_classes)
