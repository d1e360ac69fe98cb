"""LETNet.

Xu et al., "Lightweight Real-Time Semantic Segmentation Network With Efficient Transformer and CNN", IEEE T-ITS 2023,
arXiv 2302.10484. Equals the authors' own implementation (IVIPLab/LETNet, ``LETNet.py``) number for number with one
repair: as published it cannot run, because ``LC3`` gives 16 channels where 32 are added; here it gives 32, as in
third-party copies and as the paper's parameter count says.

Attention runs within four parts of the pixels at stride 16, on their 3x3 windows. The scale of its products is that of
heads 36 wide although they are 18 wide, as published. ``PA1`` and ``PA2`` never run; they are in every published state
dict and therefore here, and drop out of the exported graph. Nothing is training-only. The classifier runs before the
published resize by two: both orders are the same function.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.layers.attention import attend
from edgeseg.models.layers.downsample import ConvPool
from edgeseg.models.layers.eca import EfficientChannelAttention
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.keys import publish_keys
from edgeseg.models.layers.prelu import EPS, BNPReLU, Conv, ConvBNPReLU
from edgeseg.models.layers.shuffle import channel_shuffle
from edgeseg.models.layers.windows import fold_windows, unfold_windows
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from edgeseg.models.layers.prelu import ConvOptions

__all__ = ["LETNet", "letnet"]

_ACT = "acti"
_DILATIONS = (1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32)
_HEADS = 8
_PARTS = 4
_WINDOW = 3


def bn_prelu(channels: int) -> BNPReLU:
    """Build BN and PReLU under the published keys."""
    module = BNPReLU(channels)
    publish_keys(module, ((r"^act\.", f"{_ACT}."),))
    return module


def conv_act(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int],
    *,
    key: str = "conv",
    **options: Unpack[ConvOptions],
) -> ConvBNPReLU:
    """Build a convolution without bias, BN, PReLU under the published keys; the convolution's is `key`."""
    module = ConvBNPReLU(in_channels, out_channels, kernel, **options)
    publish_keys(module, ((r"^conv\.", f"{key}."), (r"^bn\.", "bn_prelu.bn."), (r"^act\.", f"bn_prelu.{_ACT}.")))
    return module


def widen(in_channels: int, out_channels: int) -> ConvPool:
    """Build a strided convolution beside a max pool, BN, PReLU."""
    names = ("conv3x3.conv", "bn_prelu.bn")
    return ConvPool(
        in_channels, out_channels, names=names, bias=False, eps=EPS, act=(f"bn_prelu.{_ACT}", nn.PReLU(out_channels))
    )


class DABModule(nn.Module):
    """Bottleneck of a dense 3x1 and 1x3, then two depthwise pairs, one dilated, both weighted by channel; a shuffle.

    Args:
        channels: Of the map.
        dilation: Of the second pair.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        half = channels // 2
        self.bn_relu_1 = bn_prelu(channels)
        self.conv1x1_in = Conv(channels, half, 1)
        self.conv3x1 = conv_act(half, half, (3, 1))
        self.conv1x3 = conv_act(half, half, (1, 3))
        for prefix, d in (("d", 1), ("dd", dilation)):
            self.add_module(f"{prefix}conv3x1", conv_act(half, half, (3, 1), dilation=d, groups=half))
            self.add_module(f"{prefix}conv1x3", conv_act(half, half, (1, 3), dilation=d, groups=half))
        self.ca11 = EfficientChannelAttention(half)
        self.ca22 = EfficientChannelAttention(half)
        self.bn_relu_2 = bn_prelu(half)
        self.conv1x1 = Conv(half, channels, 1)

    def _branch(self, prefix: str, x: Tensor) -> Tensor:
        for name in ("conv3x1", "conv1x3"):
            x = self.get_submodule(prefix + name)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        y = self.conv1x3(self.conv3x1(self.conv1x1_in(self.bn_relu_1(x))))
        y = self.ca11(self._branch("d", y)) + self.ca22(self._branch("dd", y)) + y
        y = self.conv1x1(self.bn_relu_2(y)) + x
        return channel_shuffle(y, y.shape[1] // 2)


def dab_block(number: int, channels: int, dilations: tuple[int, ...]) -> nn.Sequential:
    """Build modules in a row, under their published names."""
    named = ((f"DAB_Module_{number}_{k}", DABModule(channels, d)) for k, d in enumerate(dilations))
    return nn.Sequential(OrderedDict(named))


class Attention(nn.Module):
    """Tokens are narrowed to half and attend to those of their own part only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.reduce = nn.Linear(width, half, bias=False)
        self.qkv = nn.Linear(half, 3 * half, bias=False)
        self.proj = nn.Linear(half, width)
        self.scale = (width // _HEADS) ** -0.5

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(self.reduce(tokens)).transpose(1, 2).chunk(3, dim=1)
        size = max(tokens.shape[1] // _PARTS, 1)
        parts = zip(q.split(size, dim=2), k.split(size, dim=2), v.split(size, dim=2), strict=True)
        y = torch.cat([attend(*part, heads=_HEADS, scale=self.scale) for part in parts], dim=2)
        out: Tensor = self.proj(y.transpose(1, 2))
        return out


class MLP(nn.Module):
    """Linear to a quarter of the width, ReLU, Linear back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width // 4)
        self.fc2 = nn.Linear(width // 4, width)

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.fc2(torch.relu(self.fc1(tokens)))
        return y


class Transformer(nn.Module):
    """One block on tokens (N, L, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.atten = Attention(width)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = MLP(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.atten(self.norm1(tokens))
        y: Tensor = tokens + self.mlp(self.norm2(tokens))
        return y


class Upsample(nn.Module):
    """Transposed convolution by two, BN, ReLU6."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, 1)
        self.bn = nn.BatchNorm2d(out_channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the BN into the transposed convolution."""
        fold_bn_pair(self, "conv", "bn")


class LongConnection(nn.Module):
    """3x1 and 1x3 with bias and nothing between, from the encoder to the decoder."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.dconv3x1 = nn.Conv2d(in_channels, in_channels // 2, (3, 1), 1, (1, 0))
        self.dconv1x3 = nn.Conv2d(in_channels // 2, out_channels, (1, 3), 1, (0, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dconv1x3(self.dconv3x1(x))
        return y


class PixelWeights(nn.Module):
    """The map times the sigmoid of a 1x1 of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x))


class LETNet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 2, W / 2); H and W are multiples of 16. A bilinear resize to
        the input size (align_corners False) completes the published function. The parts that attend depend on the size.
    """

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        self.init_conv = nn.Sequential(conv_act(3, 32, 3), conv_act(32, 32, 3), conv_act(32, 32, 3, stride=2))
        self.bn_prelu_1 = bn_prelu(32)
        self.downsample_1 = widen(32, 64)
        self.DAB_Block_1 = dab_block(1, 64, (2, 2, 2))
        self.bn_prelu_2 = bn_prelu(64)
        self.downsample_2 = widen(64, 128)
        self.DAB_Block_2 = dab_block(2, 128, _DILATIONS)
        self.bn_prelu_3 = bn_prelu(128)
        self.downsample_3 = conv_act(128, 32, 3, stride=2, key="conv3x3.conv")
        self.DAB_Block_3 = dab_block(3, 32, _DILATIONS)
        self.bn_prelu_4 = bn_prelu(32)
        self.transformer1 = Transformer(32 * _WINDOW**2)
        for k, (in_channels, skip) in enumerate(((32, 32), (16, 128), (16, 64))):
            self.add_module(f"DAB_Block_{4 + k}", dab_block(4 + k, in_channels, (2, 2, 2)))
            self.add_module(f"LC{3 - k}", LongConnection(skip, in_channels))
            self.add_module(f"upsample_{1 + k}", Upsample(in_channels, 16))
            self.add_module(f"bn_prelu_{5 + k}", bn_prelu(16))
            self.add_module(f"PA{1 + k}", PixelWeights(16))
        self.classifier = nn.Sequential(Conv(16, num_classes, 1))

    def _encode(self, image: Tensor) -> list[Tensor]:
        """Compute maps at strides 4, 8, 16."""
        x, maps = self.bn_prelu_1(self.init_conv(image)), []
        for k in (1, 2, 3):
            for name in (f"downsample_{k}", f"DAB_Block_{k}", f"bn_prelu_{k + 1}"):
                x = self.get_submodule(name)(x)
            maps.append(x)
        return maps

    def _attend(self, x: Tensor) -> Tensor:
        """Apply the transformer to the 3x3 windows of a map (N, 32, h, w)."""
        windows = unfold_windows(x, _WINDOW)
        tokens = self.transformer1(windows.flatten(2).transpose(1, 2))
        return fold_windows(tokens.transpose(1, 2).reshape(windows.shape), _WINDOW)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 2; see the class."""
        maps = self._encode(image)
        x = self._attend(maps[-1])
        for k, skip in enumerate(reversed(maps)):
            block, connection = self.get_submodule(f"DAB_Block_{4 + k}"), self.get_submodule(f"LC{3 - k}")
            x = block(x) + connection(skip)
            x = self.get_submodule(f"upsample_{1 + k}")(x)
            x = self.get_submodule("PA3")(x) if k == 2 else x
            x = self.get_submodule(f"bn_prelu_{5 + k}")(x)
        logits: Tensor = self.classifier(x)
        return logits


@register(
    ModelSpec(
        system="LETNet",
        year=2023,
        paper="Lightweight Real-Time Semantic Segmentation Network With Efficient Transformer and CNN (IEEE T-ITS "
        "2023, arXiv 2302.10484)",
        source="IVIPLab/LETNet, official, with one repair (LC3)",
        num_classes=19,
        labels="cityscapes",
        input_size=(512, 1024),
        divisor=16,
        input=InputSpec(mean=(73.1583, 82.9090, 72.3924)),
        classes_key="classifier.0.conv.weight",
        params=951_216,
        accuracy="Cityscapes test mIoU 72.8 at 512x1024; CamVid 70.5 at 360x480",
        weights_licence="MIT",
        notes="As published the network cannot run; LC3 is repaired. CamVid weights take mean 99.6254, 103.3298, "
        "105.6578.",
    )
)
def letnet(*, num_classes: int = 19) -> LETNet:
    """Build LETNet."""
    return LETNet(num_classes)
