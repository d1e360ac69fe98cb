"""ESPNetv2 segmentation as EdgeNets has it: the authors' current network.

Mehta et al., CVPR 2019, arXiv 1811.11431. Equals the authors' own implementation (sacmehta/EdgeNets) number for number.
The encoder is that of `espnetv2` without level 5; the decoder adds efficient pyramid pooling at every stride. Published
Cityscapes weights have 20 outputs (19 train ids and background), PASCAL ones 21. Nothing is training-only; the last
PReLU of strided EESPs is in the state dict and never runs.

The number of classes decides a width (half of it, at most 16), so 19 classes make another network than 20 or 21.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgeseg.models.families.espnetv2 import ESPNetv2Encoder, widths
from edgeseg.models.layers.folding import fold_bn, fold_distant, split_bn
from edgeseg.models.layers.pooling import adaptive_avg_pool
from edgeseg.models.layers.resize import resize_bilinear, resize_like, upsample
from edgeseg.models.layers.shuffle import channel_shuffle
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule

__all__ = [
    "ESPNetv2EdgeNets",
    "espnetv2_edgenets_s0_5",
    "espnetv2_edgenets_s0_5_pascal",
    "espnetv2_edgenets_s1_0",
    "espnetv2_edgenets_s1_5",
    "espnetv2_edgenets_s2_0",
]

_SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)
_LEAST = 5
_WIDTHS = (64, 48, 32)


class ConvNormAct(nn.Module):
    """Convolution, BN, PReLU under the key ``cbr``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, groups: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel, 1, kernel // 2, groups=groups, bias=False)
        self.cbr = nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.PReLU(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cbr(x)
        return y


def norm_act(channels: int) -> nn.Sequential:
    """Build BN, PReLU."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))


class NormAct(nn.Module):
    """BN, PReLU under the key ``br``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.br = norm_act(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.br(x)
        return y


class ChannelShuffle(nn.Module):
    """Channel shuffle with five groups."""

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(x, len(_SCALES))


def branch_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return the size of a pyramid branch; at least 5, even where that enlarges a map meant to shrink."""
    return max(_LEAST, math.ceil(height * scale)), max(_LEAST, math.ceil(width * scale))


class PyramidPooling(nn.Module):
    """EPP: depthwise convolutions at five sizes, joined, shuffled and merged.

    Args:
        in_channels: Input channels.
        inner: Channels of every branch.
        out_channels: Output channels.
        last: End in the 1x1, with bias; else in BN and PReLU.
    """

    def __init__(self, in_channels: int, inner: int, out_channels: int, *, last: bool = False) -> None:
        super().__init__()
        k = len(_SCALES)
        self.inner = inner
        self.stages = nn.ModuleList(nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False) for _ in _SCALES)
        self.projection_layer = ConvNormAct(in_channels, inner, 1)
        self.merge_layer = nn.Sequential(
            NormAct(k * inner),
            ChannelShuffle(),
            ConvNormAct(k * inner, inner, 3, groups=inner),
            nn.Conv2d(inner, out_channels, 1, bias=last),
        )
        self.acts, self.mixers = nn.ModuleList(), nn.ModuleList()
        if not last:
            self.br = NormAct(out_channels)
        self.last = last

    def branch(self, x: Tensor, index: int) -> Tensor:
        """Compute branch `index` at the size of `x`."""
        stage, scale = self.stages[index], _SCALES[index]
        here = (x.shape[-2], x.shape[-1])
        size = branch_size(*here, scale)
        if scale > 1:
            return adaptive_avg_pool(stage(resize_bilinear(x, size, align_corners=True)), here)
        if scale < 1:
            return resize_like(stage(adaptive_avg_pool(x, size)), x, align_corners=True)
        y: Tensor = stage(x)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        x = self.projection_layer(x)
        maps = [self.branch(x, index) for index in range(len(_SCALES))]
        if len(self.mixers):
            mixed = [mix(act(y)) for mix, act, y in zip(self.mixers, self.acts, maps, strict=True)]
            x = self.merge_layer(sum(mixed[1:], mixed[0]))
        else:
            x = self.merge_layer(torch.cat(maps, dim=1))
        y: Tensor = x if self.last else self.br(x)
        return y

    def fuse(self) -> None:
        """Fold the BN after the concatenation into the branches, and the shuffled grouped 3x3 into five depthwise ones.

        Exact: pools and resizes keep constants, and a sum over a group is a sum over the branches.
        """
        first, second = self.merge_layer[0], self.merge_layer[2 % len(self.merge_layer)]
        if not isinstance(first, NormAct) or not isinstance(second, ConvNormAct):
            return
        self._fold_branches(first.br[0])
        for index in range(len(_SCALES)):
            self.acts.append(_part_of_prelu(first.br[1], index, self.inner))
            self.mixers.append(_part_of_grouped(second.cbr[0], index))
        self.merge_layer = nn.Sequential(second.cbr[2], self.merge_layer[3])
        if not self.last:
            fold_distant(self, "merge_layer.1", "br.br.0")

    def _fold_branches(self, bn: nn.Module) -> None:
        if isinstance(bn, nn.BatchNorm2d):
            parts = split_bn(bn, (self.inner,) * len(_SCALES))
            pairs = zip(self.stages, parts, strict=True)
            self.stages = nn.ModuleList(fold_bn(stage, part) for stage, part in pairs if isinstance(stage, nn.Conv2d))


def _part_of_prelu(whole: nn.Module, index: int, width: int) -> nn.PReLU:
    """Return the PReLU of one branch."""
    slopes = whole.get_parameter("weight")
    part = nn.PReLU(width).to(slopes.device, slopes.dtype)
    with torch.no_grad():
        part.weight.copy_(slopes[index * width : (index + 1) * width])
    return part


def _part_of_grouped(grouped: nn.Module, index: int) -> nn.Conv2d:
    """Build the depthwise convolution that a shuffled grouped one applies to a branch; the first carries the bias."""
    state = grouped.state_dict()
    weight = state["weight"][:, index : index + 1]
    kept = {"weight": weight, **({"bias": state["bias"]} if index == 0 and "bias" in state else {})}
    n = weight.shape[0]
    part = nn.Conv2d(n, n, 3, 1, 1, groups=n, bias="bias" in kept).to(weight.device, weight.dtype)
    part.load_state_dict(kept)
    return part


class Merge(nn.Module):
    """A grouped 3x3 of the encoder's map, weighed by a sigmoid of a 1x1 of its averages."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # The published Sequential: average, 1x1, sigmoid.
        self.wt_layer = nn.Sequential(nn.Identity(), nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.Sigmoid())
        self.expansion_layer = ConvNormAct(in_channels, out_channels, 3, groups=math.gcd(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.wt_layer(x.mean((2, 3), keepdim=True))
        y: Tensor = self.expansion_layer(x) * weights
        return y


class ESPNetv2EdgeNets(nn.Module):
    """The network.

    Args:
        num_classes: Output channels, at least 2.
        scale: Width factor of the encoder.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 2, W / 2); H and W are multiples of 16. The published code
        then resizes bilinearly to the input size (align_corners True).
    """

    def __init__(self, num_classes: int = 20, *, scale: float = 1.0) -> None:
        super().__init__()
        c, p = widths(scale), min(num_classes // 2, 16)
        self.base_net = ESPNetv2Encoder(scale)
        inputs = (c[3], *_WIDTHS)
        for k in range(3):
            self.add_module(f"bu_dec_l{k + 1}", PyramidPooling(inputs[k], p, _WIDTHS[k]))
            self.add_module(f"merge_enc_dec_l{k + 2}", Merge(c[2 - k], _WIDTHS[k]))
            self.add_module(f"bu_br_l{k + 2}", norm_act(_WIDTHS[k]))
        self.bu_dec_l4 = PyramidPooling(_WIDTHS[-1], p, num_classes, last=True)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 2; see the class."""
        *skips, x = self.base_net(image)
        for k in range(3):
            x = upsample(self.get_submodule(f"bu_dec_l{k + 1}")(x), 2, align_corners=True)
            x = x + self.get_submodule(f"merge_enc_dec_l{k + 2}")(skips[2 - k])
            x = self.get_submodule(f"bu_br_l{k + 2}")(x)
        logits: Tensor = self.bu_dec_l4(x)
        return logits


_SPEC = ModelSpec(
    system="ESPNetv2",
    year=2019,
    paper="ESPNetv2: A Light-weight, Power Efficient, and General Purpose Convolutional Neural Network (CVPR 2019, "
    "arXiv 1811.11431)",
    source="sacmehta/EdgeNets, official",
    num_classes=20,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=16,
    input=InputSpec.imagenet(),
    resize=ResizeRule("stretch", "pillow_bilinear"),
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="bu_dec_l4.merge_layer.3.weight",
    params=0,
    weights_licence="MIT",
    notes="19 train ids and background. The number of classes also sets a width: half of it, at most 16.",
)


@register(_SPEC.but(params=80_342, accuracy="Cityscapes val mIoU 53.9 at 512x1024, 47.3 at 256x512"))
def espnetv2_edgenets_s0_5(*, num_classes: int = 20) -> ESPNetv2EdgeNets:
    """Build EdgeNets' ESPNetv2, width 0.5."""
    return ESPNetv2EdgeNets(num_classes, scale=0.5)


@register(_SPEC.but(params=234_010, accuracy="Cityscapes val mIoU 60.1 at 512x1024, 52.2 at 256x512"))
def espnetv2_edgenets_s1_0(*, num_classes: int = 20) -> ESPNetv2EdgeNets:
    """Build EdgeNets' ESPNetv2, width 1.0."""
    return ESPNetv2EdgeNets(num_classes, scale=1.0)


@register(_SPEC.but(params=468_362, accuracy="Cityscapes val mIoU 63.8 at 512x1024, 54.6 at 256x512"))
def espnetv2_edgenets_s1_5(*, num_classes: int = 20) -> ESPNetv2EdgeNets:
    """Build EdgeNets' ESPNetv2, width 1.5."""
    return ESPNetv2EdgeNets(num_classes, scale=1.5)


@register(_SPEC.but(params=789_242, accuracy="Cityscapes val mIoU 66.4, test 66.2 at 512x1024"))
def espnetv2_edgenets_s2_0(*, num_classes: int = 20) -> ESPNetv2EdgeNets:
    """Build EdgeNets' ESPNetv2, width 2.0."""
    return ESPNetv2EdgeNets(num_classes, scale=2.0)


@register(
    _SPEC.but(
        num_classes=21,
        labels="voc",
        input_size=(256, 256),
        params=80_353,
        accuracy="PASCAL VOC val mIoU 39.82 at 256x256, 47.18 at 384x384",
        notes="The graph of espnetv2_edgenets_s0_5 with 21 outputs.",
    )
)
def espnetv2_edgenets_s0_5_pascal(*, num_classes: int = 21) -> ESPNetv2EdgeNets:
    """Build EdgeNets' ESPNetv2, width 0.5, for PASCAL VOC."""
    return ESPNetv2EdgeNets(num_classes, scale=0.5)
