"""FANet.

Hu et al., "Real-time Semantic Segmentation with Fast Attention", IEEE Robotics and Automation Letters 2021, arXiv
2007.03815. Equals the authors' own training code (feinanshan/FANet, ``Train/ptsemseg/models/fanet``) number for number;
their ``Testing`` model skips its BNs and measures speed only. FANet-34 is the training head on the ResNet-34 of
``Testing``. Attention without softmax is linear in the number of pixels: keys times values come first.

All four stages of the ResNet stride, so the maps lie at strides 8 to 64 whatever their published names say.
Training-only: the heads ``clslayer_32`` and ``clslayer_16`` and what only they read; ``ffm_8.smooth`` and ``ffm_4.up``
are published and never used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UsageError
from edgeseg.models.backbones.resnet import ResNet
from edgeseg.models.layers.bisenet import OutputHead
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec

__all__ = ["FANet", "fanet_18", "fanet_34"]

_SLOPE = 0.01
"""Of the leaky ReLUs; also the default of ``F.leaky_relu``."""
_KEYS = 32
_DAMPING = 1.0 / 64.0
_WIDTHS = {32: 512, 16: 256, 8: 128, 4: 64}
"""Channels by the published number of the map, which is half its stride."""


def _unit(x: Tensor) -> Tensor:
    """Compute every pixel's channel vector of a map (N, C, H, W) at length one, as (N, C, H W)."""
    x = x * torch.rsqrt((x * x).sum(dim=1, keepdim=True).clamp_min(1e-24))
    return x.flatten(2)


class FastAttention(nn.Module):
    """Attention by unit-length queries and keys, without softmax, plus the input and a coarser map.

    Args:
        width: Channels.
        up: Build the 1x1 towards the finer module.
        smooth: Build the 3x3 towards a head.
    """

    def __init__(self, width: int, *, up: bool, smooth: bool) -> None:
        super().__init__()
        self.damped = False
        self.w_qs = ConvBN(width, _KEYS, 1, relu=False)
        self.w_ks = ConvBN(width, _KEYS, 1, relu=False)
        self.w_vs = ConvBN(width, width, 1, act=F.leaky_relu)
        self.latlayer3 = ConvBN(width, width, 1, act=F.leaky_relu)
        self.up = ConvBN(width, width // 2, 1, padding=1, act=F.leaky_relu) if up else None
        self.smooth = ConvBN(width, 128, 3, act=F.leaky_relu) if smooth else None

    def attend(self, x: Tensor) -> Tensor:
        """Compute attention of a map (N, width, H, W) to itself, after ``latlayer3``."""
        q, k, v = _unit(self.w_qs(x)), _unit(self.w_ks(x)), self.w_vs(x).flatten(2)
        if self.damped:
            k, v = k * _DAMPING, v * _DAMPING
        mixed = v @ k.transpose(1, 2)
        y: Tensor = self.latlayer3((mixed @ q).reshape(x.shape))
        return y

    def forward(self, x: Tensor, coarser: Tensor | None = None) -> Tensor:
        """Turn maps (N, width, H, W), and what the coarser module's ``up`` made, into (N, width, H, W)."""
        y = self.attend(x) + x
        return y if coarser is None else y + resize_like(coarser, y, align_corners=True)

    def fuse(self) -> None:
        """Keep the sum over all pixels inside the range of fp16: keys and values shrink, the weights after them grow.

        Both factors are powers of two, so the result is the same to the last bit.
        """
        conv = self.latlayer3.get_submodule("conv")
        if not self.damped:
            with torch.no_grad():
                conv.get_parameter("weight").div_(_DAMPING**2)
            self.damped = True


class FANet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        depth: Of the ResNet: 18 or 34.
        aux: Build the training heads.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8), sizes rounded up, then resized bilinearly to the
        image (align_corners True).
    """

    def __init__(self, num_classes: int = 19, *, depth: int = 18, aux: bool = False) -> None:
        super().__init__()
        self.resnet = ResNet(depth, strides=(2, 2, 2, 2), slope=_SLOPE)
        for name, width in _WIDTHS.items():
            module = FastAttention(width, up=aux or name != 4, smooth=aux or name in (16, 4))
            self.add_module(f"ffm_{name}", module)
        self.clslayer_32 = OutputHead(128, 64, num_classes, act=F.leaky_relu) if aux else None
        self.clslayer_16 = OutputHead(128, 64, num_classes, act=F.leaky_relu) if aux else None
        self.clslayer_8 = OutputHead(256, 256, num_classes, act=F.leaky_relu)
        dead = (r"^clslayer_(32|16)\.", r"^ffm_(32|8)\.smooth\.", r"^ffm_4\.up\.")
        self.checkpoint_ignores = () if aux else dead

    def _attended(self, image: Tensor) -> dict[int, Tensor]:
        """Return the maps of the four modules by their published numbers."""
        maps: dict[int, Tensor] = {}
        coarser: Tensor | None = None
        for name, x in zip(_WIDTHS, reversed(self.resnet.features(image)), strict=True):
            module = self.get_submodule(f"ffm_{name}")
            maps[name] = module(x, coarser)
            coarser = module.get_submodule("up")(maps[name]) if name != 4 else None
        return maps

    def _smooth(self, maps: dict[int, Tensor], name: int) -> Tensor:
        y: Tensor = self.get_submodule(f"ffm_{name}.smooth")(maps[name])
        return y

    def _classify(self, fine: Tensor, middle: Tensor) -> Tensor:
        joined = torch.cat((resize_like(middle, fine, align_corners=True), fine), dim=1)
        logits: Tensor = self.clslayer_8(joined)
        return logits

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        maps = self._attended(image)
        return self._classify(self._smooth(maps, 4), self._smooth(maps, 16))

    def forward_train(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute logits at strides 8, 32 and 64.

        Raises:
            UsageError: Built without `aux`.
        """
        if self.clslayer_16 is None or self.clslayer_32 is None:
            raise UsageError("FANet was built without its training heads; build it with aux=True to train")
        maps = self._attended(image)
        middle = self._smooth(maps, 16)
        coarse = self.clslayer_32(self._smooth(maps, 32))
        return self._classify(self._smooth(maps, 4), middle), self.clslayer_16(middle), coarse


_SPEC = ModelSpec(
    system="FANet",
    year=2020,
    paper="Real-time Semantic Segmentation with Fast Attention (RA-L 2021, arXiv 2007.03815)",
    source="feinanshan/FANet, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=1,
    input=InputSpec.imagenet(),
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="clslayer_8.conv_out.weight",
    params=13_080_128,
    params_note="The published count, 13,970,176, includes the training heads and unused convolutions, built with aux.",
    accuracy="Cityscapes test mIoU 74.4 at 1024x2048",
    weights_licence="MIT",
)


@register(_SPEC)
def fanet_18(*, num_classes: int = 19, aux: bool = False) -> FANet:
    """Build FANet-18."""
    return FANet(num_classes, aux=aux)


@register(
    _SPEC.but(
        params=23_188_288,
        params_note="The published count, 24,078,336, includes the training heads and unused convolutions, built with "
        "aux.",
        accuracy="Cityscapes test mIoU 75.5 at 1024x2048",
    )
)
def fanet_34(*, num_classes: int = 19, aux: bool = False) -> FANet:
    """Build FANet-34."""
    return FANet(num_classes, depth=34, aux=aux)
