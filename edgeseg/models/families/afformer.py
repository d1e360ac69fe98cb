"""AFFormer.

Dong et al., "Head-Free Lightweight Semantic Segmentation with Linear Transformer", AAAI 2023, arXiv 2301.04648. Equals
the authors' own implementation (dongbo811/AFFormer, ``tools/afformer.py`` and ``aff_head.py``) number for number. The
attention multiplies keys by values first, so its cost grows with the number of pixels and not with its square.

The layers of a stage share one position convolution and one relative position module: published state dicts hold them
under several names. ``decode_head.align`` never runs; it is in every published state dict and therefore here, and drops
out of the exported graph. Only dropout is training-only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.pixelwise import ChannelNorm, PixelLinear, ResidualDepthwise, fold_norm
from edgeseg.models.layers.pooling import adaptive_avg_pool
from edgeseg.models.layers.pyramid import BINS
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["AFFormer", "afformer_base", "afformer_small", "afformer_tiny"]

_HEADS = 8
_WINDOWS = ((2, 3), (3, 5), (3, 7))
"""Heads and kernel of each depthwise convolution of the relative positions."""
_STRIDES = ((1, 1), (2, 1), (1, 2), (1, 4))
"""Strides of the two embeddings of each stage."""
_HEAD_CHANNELS = 256
_TINY = (32, 64, 160, 216)
_SMALL = (32, 64, 176, 216)
_BASE = (32, 96, 176, 216)


def swish_conv(in_channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1) -> ConvBN:
    """Build a convolution without bias, BN, hard swish."""
    return ConvBN(in_channels, out_channels, kernel, stride=stride, act=F.hardswish)


class DepthwiseEmbed(nn.Module):
    """Depthwise 3x3, 1x1, BN, hard swish."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        self.pwconv = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(self.bn(self.pwconv(self.dwconv(x))))

    def fuse(self) -> None:
        """Fold the BN into the 1x1."""
        fold_bn_pair(self, "pwconv", "bn")


class PatchEmbed(nn.Module):
    """One embedding, under its published name."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.patch_conv = DepthwiseEmbed(channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.patch_conv(x)
        return y


class PatchEmbeds(nn.Module):
    """Two embeddings, the second on the first; both are the stage's input."""

    def __init__(self, channels: int, strides: tuple[int, int]) -> None:
        super().__init__()
        self.patch_embeds = nn.ModuleList(PatchEmbed(channels, stride) for stride in strides)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.patch_embeds[0](x)
        return first, self.patch_embeds[1](first)


class Restore(nn.Module):
    """The local branch: 1x1 to half the width, depthwise 3x3, 1x1 back, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = swish_conv(channels, half)
        self.dwconv = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.norm = nn.BatchNorm2d(half)
        self.conv2 = ConvBN(half, channels, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.hardswish(self.norm(self.dwconv(self.conv1(x)))))
        return x + y

    def fuse(self) -> None:
        """Fold the BN of the depthwise convolution."""
        fold_bn_pair(self, "dwconv", "norm")


class RelativePosition(nn.Module):
    """Queries times depthwise convolutions of the values, plus what is left of the values at four coarse sizes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widths = [heads * (channels // _HEADS) for heads, _ in _WINDOWS]
        kernels = [kernel for _, kernel in _WINDOWS]
        pairs = zip(self.widths, kernels, strict=True)
        self.conv_list = nn.ModuleList(nn.Conv2d(c, c, k, 1, k // 2, groups=c) for c, k in pairs)

    def forward(self, q: Tensor, v: Tensor) -> Tensor:
        if len(self.conv_list) == 1:
            high: Tensor = self.conv_list[0](v)
        else:
            parts = zip(self.conv_list, torch.split(v, list(self.widths), dim=1), strict=True)
            high = torch.cat([conv(part) for conv, part in parts], dim=1)
        quarters = zip(BINS, v.chunk(len(BINS), dim=1), strict=True)
        low = [resize_like(adaptive_avg_pool(part, (bins, bins)), v) for bins, part in quarters]
        return q * high + torch.relu(torch.cat(low, dim=1))

    def fuse(self) -> None:
        """Make one depthwise convolution of the three: the smaller kernels grow by zeros."""
        convs = [conv for conv in self.conv_list if isinstance(conv, nn.Conv2d)]
        size = max(conv.kernel_size[0] for conv in convs)
        grown = [F.pad(conv.weight, [(size - conv.kernel_size[0]) // 2] * 4) for conv in convs]
        weight = torch.cat(grown)
        one = nn.Conv2d(len(weight), len(weight), size, 1, size // 2, groups=len(weight)).to(weight)
        one.load_state_dict({"weight": weight, "bias": torch.cat([conv.state_dict()["bias"] for conv in convs])})
        self.conv_list = nn.ModuleList([one])


class LinearAttention(nn.Module):
    """Queries times (softmax of keys over the pixels, times values), plus relative positions; linear in the pixels."""

    def __init__(self, channels: int, crpe: RelativePosition) -> None:
        super().__init__()
        self.qkv = PixelLinear(channels, 3 * channels)
        self.proj = PixelLinear(channels, channels)
        self.crpe = crpe
        self.scale = (channels // _HEADS) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=1)
        queries, keys, values = (y.reshape(n, _HEADS, c // _HEADS, h * w) for y in (q, k, v))
        context = values @ keys.softmax(dim=-1).transpose(2, 3)
        y = (context * self.scale @ queries).reshape(n, c, h, w)
        out: Tensor = self.proj(y + self.crpe(q, v))
        return out


class MLP(nn.Module):
    """1x1 to twice the width, depthwise 3x3 added, GELU, 1x1 back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = PixelLinear(channels, 2 * channels)
        self.dwconv = ResidualDepthwise(2 * channels, name="dwconv")
        self.fc2 = PixelLinear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.dwconv(self.fc1(x))))
        return y


class Layer(nn.Module):
    """Position convolution, attention, MLP; the last two normalise first and are added to their input."""

    def __init__(self, channels: int, cpe: ResidualDepthwise, crpe: RelativePosition) -> None:
        super().__init__()
        self.cpe = cpe
        self.crpe = crpe
        self.factoratt_crpe = LinearAttention(channels, crpe)
        self.mlp = MLP(channels)
        self.norm1 = ChannelNorm(channels, eps=1e-6)
        self.norm2 = ChannelNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cpe(x)
        x = x + self.factoratt_crpe(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y

    def fuse(self) -> None:
        """Fold the norms' scales into the projections behind them."""
        fold_norm(self, "norm1", "factoratt_crpe.qkv")
        fold_norm(self, "norm2", "mlp.fc1")


class Encoder(nn.Module):
    """Layers that share their position modules."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.cpe = ResidualDepthwise(channels, name="proj")
        self.crpe = RelativePosition(channels)
        self.MHCA_layers = nn.Sequential(*(Layer(channels, self.cpe, self.crpe) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.MHCA_layers(x)
        return y


class Stage(nn.Module):
    """The local branch on the fine embedding plus the encoder on the coarse one, then 1x1 to the next width.

    Without layers, the first stage: both embeddings are added.
    """

    def __init__(self, channels: int, out_channels: int, layers: int) -> None:
        super().__init__()
        self.Restore = Restore(channels)
        self.mhca_blks = nn.ModuleList([Encoder(channels, layers)] if layers else [])
        self.aggregate = swish_conv(channels, out_channels)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        if not self.mhca_blks:
            y: Tensor = self.aggregate(self.Restore(fine + coarse))
            return y
        deep = self.mhca_blks[0](coarse)
        if deep.shape != fine.shape:
            deep = resize_like(deep, fine, align_corners=True)
        y = self.aggregate(self.Restore(fine) + deep)
        return y


class Backbone(nn.Module):
    """Four stages; from the second on, maps keep stride 8."""

    def __init__(self, widths: tuple[int, ...], layers: tuple[int, ...]) -> None:
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(swish_conv(3, first // 2, 3, stride=2), swish_conv(first // 2, first, 3, stride=2))
        self.patch_embed_stages = nn.ModuleList(
            PatchEmbeds(width, strides) for width, strides in zip(widths, _STRIDES, strict=True)
        )
        plan = zip(widths, (*widths[1:], widths[-1]), (0, *layers), strict=True)
        self.mhca_stages = nn.ModuleList(Stage(*row) for row in plan)

    def forward(self, image: Tensor) -> Tensor:
        x: Tensor = self.stem(image)
        for embed, stage in zip(self.patch_embed_stages, self.mhca_stages, strict=True):
            x = stage(*embed(x))
        return x


class ConvGroupNorm(nn.Module):
    """1x1 without bias, group norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.gn = nn.GroupNorm(32, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.gn(self.conv(x)))


class Head(nn.Module):
    """One 1x1 before the classifier. ``align`` is dead in the published code."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.squeeze = ConvGroupNorm(in_channels, _HEAD_CHANNELS)
        self.align = ConvGroupNorm(_HEAD_CHANNELS, _HEAD_CHANNELS)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(_HEAD_CHANNELS, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_seg(self.dropout(self.squeeze(x)))
        return y


class AFFormer(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        widths: Channels of the four stages.
        layers: Attention layers of the last three stages.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 8), ceil(W / 8)), any size; the published code then
        resizes bilinearly to the input size (align_corners False).
    """

    def __init__(
        self, num_classes: int = 19, *, widths: tuple[int, ...] = _TINY, layers: tuple[int, ...] = (2, 4, 2)
    ) -> None:
        super().__init__()
        self.backbone = Backbone(widths, layers)
        self.decode_head = Head(widths[-1], num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.decode_head(self.backbone(image))
        return logits


_SPEC = ModelSpec(
    system="AFFormer",
    year=2023,
    paper="Head-Free Lightweight Semantic Segmentation with Linear Transformer (AAAI 2023, arXiv 2301.04648)",
    source="dongbo811/AFFormer, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=1,
    input=InputSpec.imagenet(),
    classes_key="decode_head.conv_seg.weight",
    params=2_159_687,
    weights_licence="MIT",
    notes="66,048 parameters (decode_head.align) are dead in the published state and drop out at export.",
)


@register(_SPEC)
def afformer_tiny(*, num_classes: int = 19) -> AFFormer:
    """Build AFFormer-Tiny."""
    return AFFormer(num_classes)


@register(_SPEC.but(params=2_355_487))
def afformer_small(*, num_classes: int = 19) -> AFFormer:
    """Build AFFormer-Small."""
    return AFFormer(num_classes, widths=_SMALL)


@register(_SPEC.but(params=2_970_287))
def afformer_base(*, num_classes: int = 19) -> AFFormer:
    """Build AFFormer-Base."""
    return AFFormer(num_classes, widths=_BASE, layers=(2, 6, 2))
