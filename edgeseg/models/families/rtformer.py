"""RTFormer.

Wang et al., "RTFormer: Efficient Design for Real-Time Semantic Segmentation with Transformer", NeurIPS 2022,
arXiv 2210.07124. Equals PaddlePaddle/PaddleSeg (``rtformer.py``, the authors' own) number for number, under its keys.
A dual-resolution network whose last two stages attend: the coarse branch to learned keys, the fine one to 12x12 places
of the coarse one. ``seghead_extra`` serves training only and is built with ``aux`` alone. The code has about 0.5 to
1.0 M parameters more than the paper's table.

The published code convolves with weights computed per image; here the same sums are matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.layers.attention import attend
from edgeseg.models.layers.context import DAPPM, bn_relu_conv
from edgeseg.models.layers.dual_resolution import SegmentHead, stem
from edgeseg.models.layers.max_pooling import AdaptiveMaxPool
from edgeseg.models.layers.residual import BasicBlock, residual_layer
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["RTFormer", "rtformer_base", "rtformer_slim"]

_HEADS = 8
_BINS = 12


class ExternalAttention(nn.Module):
    """BN, and attention to learned keys: softmax over the places, then each place's weights divided by their sum.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the product with the keys.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.k = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1))
        self.v = nn.Parameter(torch.empty(out_channels, out_channels, 1, 1))
        self.stride = stride
        for weight in (self.k, self.v):
            nn.init.normal_(weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / stride, W / stride)."""
        scores = F.conv2d(self.norm(x), self.k, stride=self.stride)
        n, c, h, w = scores.shape
        weights = scores.reshape(n, _HEADS, c // _HEADS, h * w).softmax(dim=3)
        weights = weights / (weights.sum(dim=2, keepdim=True) + 1e-6)
        return F.conv2d(weights.reshape(n, c, h, w), self.v)


class CrossAttention(nn.Module):
    """BN, and attention of every place of the fine map to a few places of the coarse one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, keys_values: Tensor) -> Tensor:
        """Turn maps (N, C, H, W), and keys and values (N, 2 * C, bins, bins), into (N, C, H, W)."""
        n, c, h, w = x.shape
        keys, values = keys_values.flatten(2).chunk(2, dim=1)
        mixed = attend(self.norm(x).flatten(2), keys, values, heads=1, scale=1.0 / _BINS)
        return mixed.reshape(n, c, h, w)


class ConvMLP(nn.Module):
    """BN, 3x3, GELU, 3x3, both with bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.gelu(self.conv1(self.norm(x))))
        return y


def injection(in_channels: int, inner: int, out_channels: int) -> nn.Sequential:
    """Build BN, ReLU and a 3x3 with stride 2, twice."""
    layers: list[nn.Module] = []
    for a, b in ((in_channels, inner), (inner, out_channels)):
        layers += [nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, b, 3, 2, 1, bias=False)]
    return nn.Sequential(*layers)


class AttentionBlock(nn.Module):
    """Attention in both branches, and both exchange.

    Args:
        low: Channels of the coarse map.
        high: Channels of the fine map.
        out_channels: Output channels of the coarse map; where more than `low`, its size is halved.
        inject: Add the fine map to the coarse one at the end.
    """

    def __init__(self, low: int, high: int, out_channels: int, *, inject: bool) -> None:
        super().__init__()
        self.halves = low != out_channels
        if self.halves:
            self.attn_shortcut_l = nn.Sequential(nn.BatchNorm2d(low), nn.Conv2d(low, out_channels, 1, 2, bias=False))
        self.attn_l = ExternalAttention(low, out_channels, stride=2 if self.halves else 1)
        self.mlp_l = ConvMLP(out_channels)
        self.compression = nn.Sequential(*bn_relu_conv(out_channels, high, 1))
        self.attn_h = CrossAttention(high)
        self.mlp_h = ConvMLP(high)
        project = nn.Conv2d(out_channels, 2 * high, 1, bias=False)
        self.cross_kv = nn.Sequential(nn.BatchNorm2d(out_channels), AdaptiveMaxPool(_BINS), project)
        self.down = injection(high, 2 * high, out_channels) if inject else None

    def forward(self, high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """Turn a fine and a coarse map into a fine and a coarse map."""
        low = (self.attn_shortcut_l(low) if self.halves else low) + self.attn_l(low)
        low = low + self.mlp_l(low)
        high = high + resize_like(self.compression(low), high)
        high = high + self.attn_h(high, self.cross_kv(low))
        high = high + self.mlp_h(high)
        return high, low if self.down is None else low + self.down(high)


class RTFormer(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        planes: Channels of the first layer.
        head: Width of the heads.
        injects: Whether each of the two attention blocks adds the fine map to the coarse one.
        aux: Build the training head.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 8), ceil(W / 8)), any size; the published code then
        resizes bilinearly to the input size (align_corners False).
    """

    def __init__(
        self,
        num_classes: int = 19,
        *,
        planes: int = 64,
        head: int = 128,
        injects: tuple[bool, bool] = (True, False),
        aux: bool = False,
    ) -> None:
        super().__init__()
        c = planes
        self.conv1 = stem(c)
        self.layer1 = residual_layer(BasicBlock, c, c, 2)
        self.layer2 = residual_layer(BasicBlock, c, 2 * c, 2, stride=2)
        self.layer3 = residual_layer(BasicBlock, 2 * c, 4 * c, 2, stride=2)
        self.layer3_ = residual_layer(BasicBlock, 2 * c, 2 * c, 1)
        self.compression3 = nn.Sequential(*bn_relu_conv(4 * c, 2 * c, 1))
        self.layer4 = AttentionBlock(4 * c, 2 * c, 8 * c, inject=injects[0])
        self.layer5 = AttentionBlock(8 * c, 2 * c, 8 * c, inject=injects[1])
        self.spp = DAPPM(8 * c, 128, 2 * c)
        self.seghead = SegmentHead(4 * c, 2 * head, num_classes)
        self.seghead_extra = SegmentHead(2 * c, head, num_classes) if aux else None
        self.checkpoint_ignores = () if aux else (r"^seghead_extra\.",)

    def _compute(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits, and the fine map before attention."""
        x2 = self.layer2(torch.relu(self.layer1(self.conv1(image))))
        x3 = self.layer3(torch.relu(x2))
        y = x2 + resize_like(self.compression3(x3), x2)
        y = self.layer3_(torch.relu(y))
        high, low = self.layer4(torch.relu(y), torch.relu(x3))
        high, low = self.layer5(torch.relu(high), torch.relu(low))
        return self.seghead(torch.cat((high, resize_like(self.spp(low), high)), dim=1)), y

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        return self._compute(image)[0]

    def forward_train(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute logits, and with `aux` those of the training head, both at stride 8."""
        logits, y = self._compute(image)
        return (logits,) if self.seghead_extra is None else (logits, self.seghead_extra(y))


_SPEC = ModelSpec(
    system="RTFormer",
    year=2022,
    paper="RTFormer: Efficient Design for Real-Time Semantic Segmentation with Transformer (NeurIPS 2022, "
    "arXiv 2210.07124)",
    source="PaddlePaddle/PaddleSeg, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=1,
    input=InputSpec.imagenet(),
    classes_key="seghead.conv2.weight",
    params=17_765_971,
    params_note="the published state also holds the training head; built with aux",
    weights_licence="Apache-2.0",
)


@register(_SPEC.but(params=5_365_043, accuracy="Cityscapes val mIoU 76.31 at 1024x2048"))
def rtformer_slim(*, num_classes: int = 19, aux: bool = False) -> RTFormer:
    """Build RTFormer-Slim."""
    return RTFormer(num_classes, planes=32, head=64, injects=(True, True), aux=aux)


@register(_SPEC.but(accuracy="Cityscapes val mIoU 79.24 at 1024x2048"))
def rtformer_base(*, num_classes: int = 19, aux: bool = False) -> RTFormer:
    """Build RTFormer-Base."""
    return RTFormer(num_classes, aux=aux)
