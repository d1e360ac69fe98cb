"""DWRSeg, after its description: no published implementation or weights were found.

Wei et al., "DWRSeg: Rethinking Efficient Acquisition of Multi-scale Contextual Information for Real-time Semantic
Segmentation", 2022, arXiv 2212.01173. No number of this file can be checked against the authors' code.

Certain, from the paper: the order stem, SIR stage, DWR stages, simple decoder; the SIR block (3x3 to three times the
width, BN, ReLU, 1x1, sum); the DWR block (own 3x3 with BN and ReLU per branch, depthwise 3x3s of dilation 1, 3 and 5
with widths 2 : 1 : 1, BN on their concatenation, 1x1, sum), with two branches in the last stage but one.

Uncertain, and chosen here: the stem (as in BiSeNetV2, stride 4), the transitions (3x3 with stride 2, BN, ReLU), the
decoder (the SIR map and both DWR maps joined at stride 8, 3x3 to 128, BN, ReLU, 1x1), biases, all widths and block
counts. ``dwrseg_l`` follows a third-party derivative: 64 wide with 8 SIR blocks, 128 wide with 6 and 3 DWR blocks, 15.7
GMACs at 512x1024. ``dwrseg_b`` is narrower and shallower by our choice alone, 7.7 GMACs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.depthwise import ResidualRow
from edgeseg.models.layers.folding import fold_bn, split_bn
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["DWRSeg", "dwrseg_b", "dwrseg_l"]

_DILATIONS = (1, 3, 5)
_DECODER = 128


class Stem(nn.Module):
    """3x3 with stride 2; then a narrowed 3x3 with stride 2 beside a max pool, joined by a 3x3."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.first = ConvBN(3, 32, 3, stride=2)
        self.narrow = nn.Sequential(ConvBN(32, 16, 1), ConvBN(16, 32, 3, stride=2))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.join = ConvBN(64, out_channels, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        y: Tensor = self.join(torch.cat((self.narrow(x), self.pool(x)), dim=1))
        return y


def sir_block(channels: int) -> ResidualRow:
    """Build a simple inverted residual: 3x3 to three times the width, BN, ReLU, 1x1, plus the input."""
    inner = 3 * channels
    widen = nn.Conv2d(channels, inner, 3, 1, 1, bias=False)
    row = (widen, nn.BatchNorm2d(inner), nn.ReLU(), nn.Conv2d(inner, channels, 1, bias=False))
    return ResidualRow("conv", row, add=True)


class DWRBlock(nn.Module):
    """Dilation-wise residual: each branch picks its features with a 3x3, then filters them at one dilation.

    Args:
        channels: Of the map.
        branches: 2 or 3; dilations 1, 3 and 5.
    """

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        half = channels // 2
        widths = (channels, half, half)[:branches]
        self.region = nn.ModuleList(ConvBN(channels, half, 3) for _ in widths)
        plan = zip(widths, _DILATIONS, strict=False)
        convs = (nn.Conv2d(half, width, 3, 1, d, d, half, bias=False) for width, d in plan)
        self.semantic = nn.ModuleList(convs)
        self.widths = widths
        self.bn: nn.Module = nn.BatchNorm2d(sum(widths))
        self.merge = nn.Conv2d(sum(widths), channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        found = [filter_(pick(x)) for pick, filter_ in zip(self.region, self.semantic, strict=True)]
        y: Tensor = self.merge(self.bn(torch.cat(found, dim=1)))
        return x + y

    def fuse(self) -> None:
        """Fold the BN into the depthwise convolutions, to each its channels."""
        if isinstance(self.bn, nn.BatchNorm2d):
            convs = [conv for conv in self.semantic if isinstance(conv, nn.Conv2d)]
            parts = split_bn(self.bn, self.widths)
            self.semantic = nn.ModuleList(fold_bn(conv, bn) for conv, bn in zip(convs, parts, strict=True))
            self.bn = nn.Identity()


class DWRSeg(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        widths: Channels of the SIR stage and of the two DWR stages.
        blocks: Blocks of the three stages.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 8), ceil(W / 8)), any size; then a bilinear resize to the
        input size (align_corners False). `features`: strides 4, 8, 16 and 32.
    """

    def __init__(
        self,
        num_classes: int = 19,
        *,
        widths: tuple[int, int, int] = (64, 128, 128),
        blocks: tuple[int, int, int] = (8, 6, 3),
    ) -> None:
        super().__init__()
        a, b, c = widths
        self.stem = Stem(a)
        self.stage8 = nn.Sequential(ConvBN(a, a, 3, stride=2), *(sir_block(a) for _ in range(blocks[0])))
        self.stage16 = nn.Sequential(ConvBN(a, b, 3, stride=2), *(DWRBlock(b, 2) for _ in range(blocks[1])))
        self.stage32 = nn.Sequential(ConvBN(b, c, 3, stride=2), *(DWRBlock(c, 3) for _ in range(blocks[2])))
        self.decoder = ConvBN(a + b + c, _DECODER, 3)
        self.classifier = nn.Conv2d(_DECODER, num_classes, 1)
        self.feature_info = tuple(FeatureInfo(width, 4 << k) for k, width in enumerate((a, a, b, c)))

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute four maps of an image (N, 3, H, W); see the class."""
        maps = [self.stem(image)]
        for stage in (self.stage8, self.stage16, self.stage32):
            maps.append(stage(maps[-1]))
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        _, fine, *coarse = self.features(image)
        x = torch.cat((fine, *(resize_like(y, fine) for y in coarse)), dim=1)
        logits: Tensor = self.classifier(self.decoder(x))
        return logits


_SPEC = ModelSpec(
    system="DWRSeg",
    year=2022,
    paper="DWRSeg: Rethinking Efficient Acquisition of Multi-scale Contextual Information for Real-time Semantic "
    "Segmentation (2022, arXiv 2212.01173)",
    source="none published; after the paper's description, see the module",
    num_classes=19,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=1,
    input=InputSpec.imagenet(),
    classes_key="classifier.weight",
    params=1_635_667,
    accuracy="paper's smaller network: Cityscapes test mIoU 72.7; not reproduced here",
    notes="No published implementation or weights exist: blocks follow the paper, widths and depths are a guess.",
)


@register(_SPEC.but(params=3_477_139, accuracy=""))
def dwrseg_l(*, num_classes: int = 19) -> DWRSeg:
    """Build DWRSeg-L."""
    return DWRSeg(num_classes)


@register(_SPEC)
def dwrseg_b(*, num_classes: int = 19) -> DWRSeg:
    """Build DWRSeg-B."""
    return DWRSeg(num_classes, widths=(48, 96, 96), blocks=(5, 4, 3))
