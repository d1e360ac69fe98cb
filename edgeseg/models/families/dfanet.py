"""DFANet, in two third-party readings, and its Xception-A as an ImageNet classifier.

Li et al., "DFANet: Deep Feature Aggregation for Real-Time Semantic Segmentation", CVPR 2019, arXiv 1904.02216. There is
no official code. ``dfanet_a`` and ``dfanet_xception_a_cls`` equal huaifeng1993/DFANet number for number,
``dfanet_a_zh320`` and ``dfanet_b_zh320`` equal zh320/realtime-semantic-segmentation-pytorch. The two differ in blocks,
depth, attention and decoder, and none has the size the paper gives (7.8 M for A). Three thin Xceptions stand in a row,
each fed by the one before.

huaifeng1993's decoder applies ``conv5`` to both coarse maps; its ``conv4`` is in every state dict and never runs.
Nothing is training-only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.folding import fold_distant
from edgeseg.models.layers.pixelwise import PixelLinear
from edgeseg.models.layers.resize import resize_like, upsample
from edgeseg.models.layers.separable import SeparableConv
from edgeseg.models.layers.sequential import conv_bn_relu
from edgeseg.models.layers.squeeze import LinearGate
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec

__all__ = [
    "DFANet",
    "DFANetZh320",
    "XceptionA",
    "dfanet_a",
    "dfanet_a_zh320",
    "dfanet_b_zh320",
    "dfanet_xception_a_cls",
]

Widths = tuple[int, int, int]
"""Channels of the three stages of a thin Xception."""

_STEM = 8
_HIDDEN = 1000
_A: Widths = (48, 96, 192)
_B: Widths = (32, 64, 128)


def joined(first: Tensor, second: Tensor) -> Tensor:
    """Compute both maps, one after the other."""
    return torch.cat((first, second), dim=1)


class ThinBlock(nn.Module):
    """Three separable convolutions, each with BN and ReLU, plus a 1x1 of the input in every block; no ReLU after.

    Args:
        in_channels: Input channels.
        out_channels: Output channels; the inner ones are a quarter.
        stride: Of the first convolution and the 1x1.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        inner = out_channels // 4
        for k, (a, b, s) in enumerate(((in_channels, inner, stride), (inner, inner, 1), (inner, out_channels, 1))):
            depthwise, pointwise = nn.Conv2d(a, a, 3, s, 1, groups=a), nn.Conv2d(a, b, 1)
            conv = SeparableConv(depthwise, pointwise, names=("conv1", "pointwise"))
            self.add_module(f"conv{k + 1}", nn.Sequential(conv, nn.BatchNorm2d(b), nn.ReLU()))
        self.projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        y = x
        for name in ("conv1", "conv2", "conv3"):
            y = self.get_submodule(name)(y)
        out: Tensor = y + self.projection(x)
        return out

    def fuse(self) -> None:
        """Fold each BN into the 1x1 before it."""
        for name in ("conv1", "conv2", "conv3"):
            fold_distant(self, f"{name}.0.pointwise", f"{name}.1")


def _separable(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build a depthwise 3x3, BN, ReLU; 1x1 with bias, BN, ReLU."""
    depthwise = nn.Conv2d(in_channels, in_channels, 3, 1, 1, groups=in_channels, bias=False)
    return nn.Sequential(
        nn.Sequential(depthwise, nn.BatchNorm2d(in_channels), nn.ReLU()),
        conv_bn_relu(in_channels, out_channels, 1, bias=True),
    )


class XceptionBlock(nn.Module):
    """zh320's block: two separable convolutions, a 3x3 with four filters per channel, a 1x1 and ReLU.

    The input is added where the shape stays; a strided block adds a 1x1 of it; else nothing is added.

    Args:
        in_channels: Input channels.
        out_channels: Output channels; the inner ones are a quarter.
        stride: Of the last 3x3.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        inner = out_channels // 4
        widen = nn.Conv2d(inner, out_channels, 3, stride, 1, groups=inner, bias=False)
        self.conv = nn.Sequential(
            _separable(in_channels, inner),
            _separable(inner, inner),
            nn.Sequential(widen, nn.BatchNorm2d(out_channels), nn.ReLU()),
            nn.Conv2d(out_channels, out_channels, 1, bias=False),
            nn.ReLU(),
        )
        self.conv_stride = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if stride > 1 else None
        self.add = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.conv(x)
        if self.conv_stride is not None:
            y = y + self.conv_stride(x)
        return x + y if self.add else y


class MaxAttention(nn.Module):
    """zh320's channel weights: from the global maxima by a linear layer and a 1x1 with BN and ReLU, no sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = PixelLinear(channels, _HIDDEN)
        self.conv = conv_bn_relu(_HIDDEN, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.conv(self.linear(x.amax((2, 3), keepdim=True)))
        return x * weights


class Stage(nn.Module):
    """Blocks in a row; the first strides.

    Args:
        key: Name of the row.
        block: Kind of block.
        in_channels: Input channels.
        out_channels: Output channels.
        blocks: How many.
    """

    def __init__(
        self, key: str, block: type[ThinBlock] | type[XceptionBlock], in_channels: int, out_channels: int, blocks: int
    ) -> None:
        super().__init__()
        self.key = key
        rest = (block(out_channels, out_channels) for _ in range(blocks - 1))
        self.add_module(key, nn.Sequential(block(in_channels, out_channels, stride=2), *rest))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, ceil(H / 2), ceil(W / 2))."""
        y: Tensor = self.get_submodule(self.key)(x)
        return y


class Branch(nn.Module):
    """One thin Xception: three stages, and channel weights on the last map.

    Args:
        stages: The three.
        attention: Key and module of the channel weights.
    """

    def __init__(self, stages: list[Stage], attention: tuple[str, nn.Module]) -> None:
        super().__init__()
        self.enc2, self.enc3, self.enc4 = stages
        self.key = attention[0]
        self.add_module(*attention)

    def forward(self, x: Tensor, extra: tuple[Tensor, ...] = ()) -> tuple[list[Tensor], Tensor]:
        """Compute the maps of the stages and the weighed last one; `extra` joins the inputs of stages 2 and 3."""
        a = self.enc2(x)
        b = self.enc3(joined(a, extra[0]) if extra else a)
        c = self.enc4(joined(b, extra[1]) if extra else b)
        return [a, b, c], self.get_submodule(self.key)(c)


def _later(widths: Widths) -> Widths:
    """Return the input channels of the stages of the second and third branch."""
    a, b, c = widths
    return a + c, a + b, b + c


def thin_branch(in_channels: Widths, widths: Widths = _A) -> Branch:
    """Describe huaifeng1993's branch: thin blocks, and the sigmoid of two linear layers on the averages."""
    rows = zip(in_channels, widths, (3, 6, 3), strict=True)
    squeeze, excite = nn.Linear(widths[2], _HIDDEN, bias=False), nn.Linear(_HIDDEN, widths[2], bias=False)
    gate = LinearGate("fc", (squeeze, nn.ReLU(), excite, nn.Sigmoid()))
    return Branch([Stage("build", ThinBlock, *row) for row in rows], ("atten", gate))


def xception_branch(in_channels: Widths, widths: Widths) -> Branch:
    """Describe zh320's branch."""
    rows = zip(in_channels, widths, (4, 6, 4), strict=True)
    return Branch([Stage("conv", XceptionBlock, *row) for row in rows], ("fc_attention", MaxAttention(widths[2])))


class Encoder(nn.Module):
    """Stem and three branches; each is fed by the one before."""

    def __init__(self, widths: Widths = _A) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(3, _STEM, 3, stride=2)
        self.branch0 = thin_branch((_STEM, *widths[:2]), widths)
        self.branch1 = thin_branch(_later(widths), widths)
        self.branch2 = thin_branch(_later(widths), widths)

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute the first map of an image, and the weighed last map of each branch."""
        maps, weighed = self.branch0(self.conv1(image))
        first, last = [maps[0]], [weighed]
        for branch in (self.branch1, self.branch2):
            x = joined(maps[0], resize_like(weighed, maps[0], align_corners=True))
            maps, weighed = branch(x, (maps[1], maps[2]))
            first.append(maps[0])
            last.append(weighed)
        return first, last


class Decoder(nn.Module):
    """Adds all maps at stride 4: the fine ones through a 3x3, the coarse ones as they are."""

    def __init__(self, num_classes: int, *, widths: Widths = _A, inner: int = 64) -> None:
        super().__init__()
        for k in range(6):
            self.add_module(f"conv{k}", conv_bn_relu(widths[0] if k < 3 else widths[2], inner, 1))
        self.conv_add1 = conv_bn_relu(inner, inner, 3, bias=True)
        self.conv_cls = nn.Conv2d(inner, num_classes, 3, 1, 1, bias=False)

    def _reduced(self, maps: list[Tensor], convs: tuple[int, int, int]) -> list[Tensor]:
        return [self.get_submodule(f"conv{k}")(x) for k, x in zip(convs, maps, strict=True)]

    def forward(self, first: list[Tensor], last: list[Tensor]) -> Tensor:
        x, *rest = self._reduced(first, (0, 1, 2))
        coarse = [resize_like(y, x, align_corners=True) for y in (*rest, *self._reduced(last, (3, 5, 5)))]
        fine = self.conv_add1(x + coarse[0] + coarse[1])
        logits: Tensor = self.conv_cls(fine + coarse[2] + coarse[3] + coarse[4])
        return logits


class DFANet(nn.Module):
    """huaifeng1993's network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 4, W / 4); H and W are multiples of 4. The published code then
        resizes bilinearly by 4 (align_corners True).
    """

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 4; see the class."""
        logits: Tensor = self.decoder(*self.encoder(image))
        return logits


class XceptionA(nn.Module):
    """huaifeng1993's Xception-A: the stem and first branch as a classifier.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes), any size. `features`: strides 4, 8 and 16.
    """

    feature_info = tuple(FeatureInfo(width, 4 << k) for k, width in enumerate(_A))

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(3, _STEM, 3, stride=2)
        self.branch = thin_branch((_STEM, *_A[:2]))
        self.classifier = nn.Sequential(nn.Linear(_A[2], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, num_classes))

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute three maps of an image (N, 3, H, W); the channel weights are left out."""
        maps: list[Tensor] = self.branch(self.conv1(image))[0]
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, num_classes); see the class."""
        _, weighed = self.branch(self.conv1(image))
        logits: Tensor = self.classifier(weighed.mean((2, 3)))
        return logits


class DecoderZh320(nn.Module):
    """zh320's decoder: two sums of logits at stride 4, of the fine maps and of the coarse ones."""

    def __init__(self, num_classes: int, widths: Widths) -> None:
        super().__init__()
        for k in (1, 2, 3):
            self.add_module(f"enc_conv{k}", conv_bn_relu(widths[0], 48, 3))
            last = nn.Conv2d(128, num_classes, 1, bias=False)
            self.add_module(f"fc_conv{k}", nn.Sequential(conv_bn_relu(widths[2], 128, 3), last))
        self.conv_enc = nn.Conv2d(48, num_classes, 1, bias=False)

    def _enlarged(self, name: str, maps: list[Tensor], like: Tensor) -> Tensor:
        """Compute the sum of all maps, convolved and resized."""
        found = [self.get_submodule(f"{name}{k + 1}")(x) for k, x in enumerate(maps)]
        resized = [x if x.shape[2:] == like.shape[2:] else resize_like(x, like, align_corners=True) for x in found]
        return resized[0] + resized[1] + resized[2]

    def forward(self, first: list[Tensor], last: list[Tensor]) -> Tensor:
        fine = self.conv_enc(self._enlarged("enc_conv", first, first[0]))
        y: Tensor = fine + self._enlarged("fc_conv", last, first[0])
        return y


class DFANetZh320(nn.Module):
    """zh320's network.

    Args:
        num_classes: Output channels.
        widths: Of the backbones: (48, 96, 192) is A, (32, 64, 128) is B.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 4, W / 4); H and W are multiples of 64. The published code
        then resizes bilinearly by 4 (align_corners True).
    """

    def __init__(self, num_classes: int = 19, *, widths: Widths = _A) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(3, _STEM, 3, stride=2)
        self.backbone1 = xception_branch((_STEM, *widths[:2]), widths)
        self.backbone2 = xception_branch(_later(widths), widths)
        self.backbone3 = xception_branch(_later(widths), widths)
        self.decoder = DecoderZh320(num_classes, widths)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 4; see the class."""
        maps, weighed = self.backbone1(self.conv1(image))
        first, last = [maps[0]], [weighed]
        for backbone in (self.backbone2, self.backbone3):
            x = joined(upsample(weighed, 4, align_corners=True), maps[0])
            maps, weighed = backbone(x, (maps[1], maps[2]))
            first.append(maps[0])
            last.append(weighed)
        logits: Tensor = self.decoder(first, last)
        return logits


_SPEC = ModelSpec(
    system="DFANet",
    year=2019,
    paper="DFANet: Deep Feature Aggregation for Real-Time Semantic Segmentation (CVPR 2019, arXiv 1904.02216)",
    source="huaifeng1993/DFANet, third-party",
    num_classes=19,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=4,
    input=InputSpec.imagenet("bgr"),
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="decoder.conv_cls.weight",
    params=2_187_216,
    params_note="12,416 of them (decoder.conv4) are dead and drop out at export",
    accuracy="Cityscapes test mIoU 70.3 at 512x1024, 71.3 at 1024x1024 (the paper's network, which is larger)",
    weights_licence="MIT (file header)",
    notes="No official code. The published reading feeds BGR images with ImageNet's RGB-ordered constants, and trains "
    "20 outputs (19 is void).",
)

_SPEC_ZH320 = _SPEC.but(
    source="zh320/realtime-semantic-segmentation-pytorch, third-party",
    input_size=(1024, 1024),
    divisor=64,
    input=InputSpec.imagenet(),
    classes_key="decoder.conv_enc.weight",
    params=3_046_952,
    params_note="",
    weights_licence="Apache-2.0",
    notes="No official code; a third-party reading.",
)


@register(_SPEC)
def dfanet_a(*, num_classes: int = 19) -> DFANet:
    """Build DFANet-A of huaifeng1993."""
    return DFANet(num_classes)


@register(_SPEC_ZH320)
def dfanet_a_zh320(*, num_classes: int = 19) -> DFANetZh320:
    """Build DFANet-A of zh320."""
    return DFANetZh320(num_classes)


@register(_SPEC_ZH320.but(params=1_806_888, accuracy=""))
def dfanet_b_zh320(*, num_classes: int = 19) -> DFANetZh320:
    """Build DFANet-B of zh320."""
    return DFANetZh320(num_classes, widths=_B)


@register(
    _SPEC.but(
        num_classes=1000,
        labels="generic",
        input_size=(224, 224),
        divisor=1,
        input=InputSpec.imagenet(),
        postprocess=PostprocessSpec(),
        classes_key="classifier.2.weight",
        params=1_840_464,
        params_note="",
        accuracy="",
        notes="Classifier: one label per image. No input normalisation is stated; ImageNet's is assumed.",
    )
)
def dfanet_xception_a_cls(*, num_classes: int = 1000) -> XceptionA:
    """Build Xception-A of huaifeng1993 on ImageNet."""
    return XceptionA(num_classes)
