"""ENet.

Paszke et al., "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation", 2016, arXiv 1606.02147.
The authors' code is Lua Torch; this equals the port davidtvs/PyTorch-ENet number for number, and PaddleSeg's ENet, the
same graph under the same keys. Against the paper (as far as known) the encoder's last 1x1 of a bottleneck has an
activation before the addition. Nothing is training-only but dropout.

Max unpooling goes to the places of the encoder's pools; it is written without indices (`layers.unpool`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.layers.downsample import ConvPool
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.layers.unpool import max_pool_places, max_unpool
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, ResizeRule

__all__ = ["ENet", "enet", "enet_paddleseg"]

Act = Callable[[], nn.Module]


def prelu() -> nn.Module:
    """Build PReLU with one slope for all channels: the encoder's activation."""
    return nn.PReLU(1)


def row(*layers: nn.Module) -> nn.Sequential:
    """Build every convolution of `layers` followed by its BN."""
    norms = [nn.BatchNorm2d(x.out_channels) for x in layers if isinstance(x, nn.Conv2d)]
    filled: list[nn.Module] = []
    for layer in layers:
        filled += [layer, norms.pop(0)] if isinstance(layer, nn.Conv2d) else [layer]
    return nn.Sequential(*filled)


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    d: int = 1,
) -> nn.Conv2d:
    """Build a convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding, d, bias=False)


class Bottleneck(nn.Module):
    """1x1 to a quarter, 3x3 (dilated, or 5x1 and 1x5), 1x1 back, plus the input."""

    def __init__(self, channels: int, *, dilation: int = 1, asymmetric: bool = False, act: Act = prelu) -> None:
        super().__init__()
        n = channels // 4
        self.ext_conv1 = row(conv(channels, n, 1), act())
        if asymmetric:
            self.ext_conv2 = row(conv(n, n, (5, 1), padding=(2, 0)), act(), conv(n, n, (1, 5), padding=(0, 2)), act())
        else:
            self.ext_conv2 = row(conv(n, n, 3, padding=dilation, d=dilation), act())
        self.ext_conv3 = row(conv(n, channels, 1), act())
        self.out_activation = act()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out_activation(x + self.ext_conv3(self.ext_conv2(self.ext_conv1(x))))
        return y


class DownBottleneck(nn.Module):
    """2x2 with stride 2, 3x3, 1x1, plus the pooled input in the first channels; also gives the pool's places."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        n = in_channels // 4
        self.extra = out_channels - in_channels
        self.ext_conv1 = row(conv(in_channels, n, 2, stride=2), prelu())
        self.ext_conv2 = row(conv(n, n, 3, padding=1), prelu())
        self.ext_conv3 = row(conv(n, out_channels, 1), prelu())
        self.out_activation = prelu()

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        pooled, places = max_pool_places(x)
        main = F.pad(pooled, (0, 0, 0, 0, 0, self.extra))
        return self.out_activation(main + self.ext_conv3(self.ext_conv2(self.ext_conv1(x)))), places


class UpBottleneck(nn.Module):
    """1x1, transposed 2x2, 1x1, plus the unpooled 1x1 of the input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        n = in_channels // 4
        self.main_conv1 = row(conv(in_channels, out_channels, 1))
        self.ext_conv1 = row(conv(in_channels, n, 1), nn.ReLU())
        self.ext_tconv1 = nn.ConvTranspose2d(n, n, 2, 2, bias=False)
        self.ext_tconv1_bnorm = nn.BatchNorm2d(n)
        self.ext_conv2 = row(conv(n, out_channels, 1))

    def forward(self, x: Tensor, places: list[Tensor], size: tuple[int, int]) -> Tensor:
        main = max_unpool(self.main_conv1(x), places, size)
        ext = self.ext_tconv1_bnorm(self.ext_tconv1(self.ext_conv1(x), output_size=list(size)))
        return torch.relu(main + self.ext_conv2(torch.relu(ext)))

    def fuse(self) -> None:
        """Fold the BN into the transposed convolution."""
        fold_bn_pair(self, "ext_tconv1", "ext_tconv1_bnorm")


def add_stage(owner: nn.Module, stage: int, first: int) -> list[str]:
    """Add the eight bottlenecks of stage 2 or 3 to `owner`, numbered from `first`; returns their names in order."""
    names = []
    for k in range(8):
        kind, dilation = (
            ("regular", 1) if k in (0, 4) else ("asymmetric", 1) if k in (2, 6) else ("dilated", 2 ** (k // 2 + 1))
        )
        names.append(f"{kind}{stage}_{first + k}")
        owner.add_module(names[-1], Bottleneck(128, dilation=dilation, asymmetric=kind == "asymmetric"))
    return names


def size_of(x: Tensor) -> tuple[int, int]:
    """Return the height and width."""
    return x.shape[-2], x.shape[-1]


class ENet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H, W); any H and W from 16 on.
    """

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        names = ("main_branch", "batch_norm")
        act = ("out_activation", prelu())
        self.initial_block = ConvPool(3, 16, names=names, pool=3, bias=False, eps=1e-5, act=act)
        self.downsample1_0 = DownBottleneck(16, 64)
        self.stage1 = [f"regular1_{k}" for k in range(1, 5)]
        for name in self.stage1:
            self.add_module(name, Bottleneck(64))
        self.downsample2_0 = DownBottleneck(64, 128)
        self.stage23 = add_stage(self, 2, 1) + add_stage(self, 3, 0)
        self.upsample4_0 = UpBottleneck(128, 64)
        self.regular4_1 = Bottleneck(64, act=nn.ReLU)
        self.regular4_2 = Bottleneck(64, act=nn.ReLU)
        self.upsample5_0 = UpBottleneck(64, 16)
        self.regular5_1 = Bottleneck(16, act=nn.ReLU)
        self.transposed_conv = nn.ConvTranspose2d(16, num_classes, 3, 2, 1, bias=False)

    def _run(self, names: list[str], x: Tensor) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at input size; see the class."""
        half = self.initial_block(image)
        quarter, places1 = self.downsample1_0(half)
        quarter = self._run(self.stage1, quarter)
        eighth, places2 = self.downsample2_0(quarter)
        x = self.upsample4_0(self._run(self.stage23, eighth), places2, size_of(quarter))
        x = self.upsample5_0(self.regular4_2(self.regular4_1(x)), places1, size_of(half))
        logits: Tensor = self.transposed_conv(self.regular5_1(x), output_size=list(size_of(image)))
        return logits


_SPEC = ModelSpec(
    system="ENet",
    year=2016,
    paper="ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation (arXiv 1606.02147)",
    source="davidtvs/PyTorch-ENet, third-party",
    num_classes=19,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=1,
    input=InputSpec.unit_scale((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    resize=ResizeRule("stretch", "pillow_bilinear"),
    classes_key="",
    params=351_660,
    accuracy="Cityscapes val mIoU 59.5 at 512x1024 (davidtvs' README; paper, test: 58.3)",
    weights_licence="MIT",
    logit_tolerance=0.1,
    notes="No published tensor tells the number of classes: pass num_classes with weights. davidtvs' Cityscapes "
    "weights have 20 outputs, of which 0 is unlabelled and k is train id k - 1; its CamVid weights have 12.",
)


@register(_SPEC)
def enet(*, num_classes: int = 19) -> ENet:
    """Build ENet as davidtvs/PyTorch-ENet has it."""
    return ENet(num_classes)


@register(
    _SPEC.but(
        source="PaddlePaddle/PaddleSeg, third-party",
        input=InputSpec.unit_scale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        resize=ResizeRule(),
        accuracy="Cityscapes val mIoU 67.42 at 512x1024 (PaddleSeg's README)",
        weights_licence="Apache-2.0",
        notes="The same graph as enet, other weights and input.",
    )
)
def enet_paddleseg(*, num_classes: int = 19) -> ENet:
    """Build PaddleSeg's ENet: the graph of `enet` with PaddleSeg's input convention."""
    return ENet(num_classes)
