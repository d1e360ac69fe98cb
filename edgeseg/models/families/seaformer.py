"""SeaFormer.

Wan et al., "SeaFormer: Squeeze-enhanced Axial Transformer for Mobile Semantic Segmentation", ICLR 2023, arXiv
2301.13156. Equals the authors' own implementation (fudan-zvg/SeaFormer, ``seaformer-seg``: ``seaformer.py`` and
``light_head.py``) number for number. A convolutional trunk; in its last stages rows attend to rows and columns to
columns of the averaged map, and a depthwise branch keeps the detail. Only dropout and stochastic depth are
training-only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.attention import QueryKeyValue, attend, conv_bn
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

__all__ = ["SeaFormer", "seaformer_base", "seaformer_large", "seaformer_small", "seaformer_tiny"]

_STAGES = 5
_POSITIONS = 16
"""Length of the learned position codes, which are resized linearly to the map."""


@dataclass(frozen=True)
class _Config:
    """Rows per stage, channels of the first convolution; per transformer: key width, blocks, MLP ratio; head widths."""

    stages: tuple[tuple[Row, ...], ...]
    stem: int
    heads: int
    keys: tuple[int, ...]
    depths: tuple[int, ...]
    ratios: tuple[int, ...]
    head: tuple[int, ...]


_TINY = _Config(
    (
        ((3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1)),
        ((5, 3, 32, 2), (5, 3, 32, 1)),
        ((3, 3, 64, 2), (3, 3, 64, 1)),
        ((5, 3, 128, 2),),
        ((3, 6, 160, 2),),
    ),
    stem=16,
    heads=4,
    keys=(16, 24),
    depths=(2, 2),
    ratios=(2, 4),
    head=(64, 96),
)
_SMALL = _Config(
    (
        ((3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1)),
        ((5, 3, 48, 2), (5, 3, 48, 1)),
        ((3, 3, 96, 2), (3, 3, 96, 1)),
        ((5, 4, 160, 2),),
        ((3, 6, 192, 2),),
    ),
    stem=16,
    heads=6,
    keys=(16, 24),
    depths=(3, 3),
    ratios=(2, 4),
    head=(96, 128),
)
_BASE = _Config(
    (
        ((3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1)),
        ((5, 3, 64, 2), (5, 3, 64, 1)),
        ((3, 3, 128, 2), (3, 3, 128, 1)),
        ((5, 4, 192, 2),),
        ((3, 6, 256, 2),),
    ),
    stem=16,
    heads=8,
    keys=(16, 24),
    depths=(4, 4),
    ratios=(2, 4),
    head=(128, 160),
)
_LARGE = _Config(
    (
        ((3, 3, 32, 1), (3, 4, 64, 2), (3, 4, 64, 1)),
        ((5, 4, 128, 2), (5, 4, 128, 1)),
        ((3, 4, 192, 2), (3, 4, 192, 1)),
        ((5, 4, 256, 2),),
        ((3, 6, 320, 2),),
    ),
    stem=32,
    heads=8,
    keys=(16, 20, 24),
    depths=(3, 3, 3),
    ratios=(2, 4, 6),
    head=(128, 160, 192),
)


class Position(nn.Module):
    """A learned code along one axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, channels, _POSITIONS))

    def forward(self, x: Tensor) -> Tensor:
        """Add the code, resized to the length of `x` (N, C, L)."""
        return x + F.interpolate(self.pos_embed, size=x.shape[2], mode="linear", align_corners=False)


class SeaAttention(QueryKeyValue):
    """Rows attend to rows, columns to columns; a depthwise branch of queries, keys and values weighs the sum."""

    def __init__(self, channels: int, heads: int, key: int) -> None:
        keys, values = heads * key, 2 * heads * key
        super().__init__(channels, keys, values)
        self.heads, self.scale = heads, key**-0.5
        for axis in ("row", "column"):
            self.add_module(f"proj_encode_{axis}", nn.Sequential(nn.ReLU6(), conv_bn(values, values)))
            self.add_module(f"pos_emb_{axis}q", Position(keys))
            self.add_module(f"pos_emb_{axis}k", Position(keys))
        self.proj = nn.Sequential(nn.ReLU6(), conv_bn(values, channels))
        inner = sum(self.widths)
        self.dwconv = conv_bn(inner, inner, 3, groups=inner)
        self.pwconv = conv_bn(inner, channels)

    def _along(self, axis: str, projected: Tensor) -> Tensor:
        """Compute attention within the averages over the other axis: broadcasts over that axis."""
        mean = projected.mean(dim=3 if axis == "row" else 2)
        q, k, v = torch.split(mean, list(self.widths), dim=1)
        q, k = self.get_submodule(f"pos_emb_{axis}q")(q), self.get_submodule(f"pos_emb_{axis}k")(k)
        y = attend(q, k, v, heads=self.heads, scale=self.scale).unsqueeze(3 if axis == "row" else 2)
        found: Tensor = self.get_submodule(f"proj_encode_{axis}")(y)
        return found

    def forward(self, x: Tensor) -> Tensor:
        projected = self.project(x)
        v = torch.split(projected, list(self.widths), dim=1)[2]
        detail = self.pwconv(F.relu6(self.dwconv(projected)))
        y: Tensor = F.hardsigmoid(self.proj(v + self._along("row", projected) + self._along("column", projected)))
        out: Tensor = y * detail
        return out


class Stage(nn.Module):
    """Mobile blocks; the first stage strides once before them."""

    def __init__(self, in_channels: int, rows: tuple[Row, ...], *, width: int | None = None) -> None:
        super().__init__()
        self.stem_block = nn.Identity() if width is None else stem(width)
        self.names = add_blocks(self, in_channels if width is None else width, rows)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_block(x)
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x


class Backbone(nn.Module):
    """Stages at strides 4, 8, 16, 32, 64; the last ones are followed by a transformer each."""

    def __init__(self, config: _Config) -> None:
        super().__init__()
        channels = [rows[-1][2] for rows in config.stages]
        self.smb1 = Stage(3, config.stages[0], width=config.stem)
        for k, (in_channels, rows) in enumerate(zip(channels, config.stages[1:], strict=False)):
            self.add_module(f"smb{k + 2}", Stage(in_channels, rows))
        count = len(config.depths)
        for k, (width, key, depth, ratio) in enumerate(
            zip(channels[-count:], config.keys, config.depths, config.ratios, strict=True)
        ):
            attentions = (SeaAttention(width, config.heads, key) for _ in range(depth))
            blocks = (TransformerBlock(each, width, ratio=ratio) for each in attentions)
            self.add_module(f"trans{k + 1}", Transformer(*blocks))
        self.plain = _STAGES - count
        self.channels = (channels[1], *channels[-count:])

    def forward(self, image: Tensor) -> list[Tensor]:
        x, maps = image, []
        for k in range(_STAGES):
            x = self.get_submodule(f"smb{k + 1}")(x)
            if k >= self.plain:
                x = self.get_submodule(f"trans{k - self.plain + 1}")(x)
            if k == 1 or k >= self.plain:
                maps.append(x)
        return maps


class Head(FuseHead):
    """LightHead: each coarser map gates the finest one in turn."""

    def __init__(self, channels: tuple[int, ...], widths: tuple[int, ...], num_classes: int) -> None:
        super().__init__(widths[-1], num_classes, depthwise=True)
        local = pairwise((channels[0], *widths))
        self.names = [f"fuse{k + 1}" for k in range(len(widths))]
        for name, globe, (in_channels, out_channels) in zip(self.names, channels[1:], local, strict=True):
            self.add_module(name, Inject(in_channels, globe, out_channels, add=False))

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[0]
        for name, globe in zip(self.names, maps[1:], strict=True):
            x = self.get_submodule(name)(x, globe)
        return self.classify(x)


class SeaFormer(TokenSegmentor):
    """The network.

    Args:
        config: Widths and depths.
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 8), ceil(W / 8)), any size; the published code then
        resizes bilinearly to the input size (align_corners False). `features`: the maps that the head takes, at
        strides 8, 32, 64 (large: 8, 16, 32, 64).
    """

    def __init__(self, config: _Config, num_classes: int = 19) -> None:
        backbone = Backbone(config)
        strides = (8, *(4 * 2**k for k in range(backbone.plain, _STAGES)))
        infos = zip(backbone.channels, strides, strict=True)
        super().__init__(
            backbone,
            Head(backbone.channels, config.head, num_classes),
            [FeatureInfo(channels, stride) for channels, stride in infos],
        )


_SPEC = ModelSpec(
    system="SeaFormer",
    year=2023,
    paper="SeaFormer: Squeeze-enhanced Axial Transformer for Mobile Semantic Segmentation (ICLR 2023, arXiv "
    "2301.13156)",
    source="fudan-zvg/SeaFormer, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=1,
    input=InputSpec.imagenet(),
    classes_key="decode_head.conv_seg.weight",
    params=1_654_611,
    accuracy="ADE20K val mIoU 36.5 at 512x512",
    weights_licence="Apache-2.0",
    notes="ADE20K weights have 150 classes without background and take 512x512 in multiples of 32.",
)


@register(_SPEC)
def seaformer_tiny(*, num_classes: int = 19) -> SeaFormer:
    """Build SeaFormer-Tiny."""
    return SeaFormer(_TINY, num_classes)


@register(
    _SPEC.but(
        params=3_973_219,
        accuracy="Cityscapes val mIoU 71.1 at 512x1024, 76.4 at 1024x2048; ADE20K val 39.4 at 512x512",
    )
)
def seaformer_small(*, num_classes: int = 19) -> SeaFormer:
    """Build SeaFormer-Small."""
    return SeaFormer(_SMALL, num_classes)


@register(_SPEC.but(params=8_584_563, accuracy=""))
def seaformer_base(*, num_classes: int = 19) -> SeaFormer:
    """Build SeaFormer-Base."""
    return SeaFormer(_BASE, num_classes)


@register(_SPEC.but(params=13_926_227, accuracy=""))
def seaformer_large(*, num_classes: int = 19) -> SeaFormer:
    """Build SeaFormer-Large."""
    return SeaFormer(_LARGE, num_classes)
