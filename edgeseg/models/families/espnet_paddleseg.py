"""PaddleSeg's ESPNetV1, a third-party variant of ESPNet.

Mehta et al., ECCV 2018, arXiv 1803.06815. Equals PaddlePaddle/PaddleSeg ``espnetv1.py`` number for number. It is not
the authors' network (`espnet`): the image is averaged to each level's size, every level is projected to the classes
with bias, BN and a single-slope PReLU, the first convolution pads below and to the right only, BN eps is 1e-5, and the
order of two concatenations differs.

``br3`` and ``level2_proj`` of the decoder are in every published state dict but never run (2,527 of the parameters at
19 classes); they drop out at export.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.layers.esp import DownSampler, ESPBlock, ESPStyle
from edgeseg.models.layers.folding import fold_distant
from edgeseg.models.layers.paddleseg import EPS, PaddleConv
from edgeseg.models.layers.pooling import adaptive_avg_pool
from edgeseg.models.layers.prelu import BNPReLU
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["ESPNetPaddleSeg", "espnet_paddleseg"]

_STYLE = ESPStyle(reduce="conv1", branch="d_conv{}", bare=True, eps=EPS)


def image_like(image: Tensor, x: Tensor) -> Tensor:
    """Compute the image averaged to the height and width of `x`."""
    return adaptive_avg_pool(image, (int(x.shape[-2]), int(x.shape[-1])))


class _Encoder(nn.Module):
    def __init__(self, num_classes: int, p: int, q: int) -> None:
        super().__init__()
        self.level1 = PaddleConv(3, 16, 3, stride=2)
        self.br1 = BNPReLU(19, eps=EPS)
        self.proj1 = PaddleConv(19, num_classes, 1)
        self.level2_0 = DownSampler(19, 64, style=_STYLE)
        self.level2 = nn.Sequential(*(ESPBlock(64, 64, style=_STYLE) for _ in range(p)))
        self.br2 = BNPReLU(131, eps=EPS)
        self.proj2 = PaddleConv(131, num_classes, 1)
        self.level3_0 = DownSampler(131, 128, style=_STYLE)
        self.level3 = nn.Sequential(*(ESPBlock(128, 128, style=_STYLE) for _ in range(q)))
        self.br3 = BNPReLU(256, eps=EPS)
        self.proj3 = PaddleConv(256, num_classes, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.level1(image)
        x = self.br1(torch.cat((x, image_like(image, x)), dim=1))
        half = self.proj1(x)
        down = self.level2_0(x)
        x = self.br2(torch.cat((self.level2(down), down, image_like(image, down)), dim=1))
        quarter = self.proj2(x)
        down = self.level3_0(x)
        eighth = self.proj3(self.br3(torch.cat((self.level3(down), down), dim=1)))
        return half, quarter, eighth


class ESPNetPaddleSeg(nn.Module):
    """The network.

    Args:
        num_classes: Output channels, at least 5: the decoder's ESP block splits them among five branches.
        p: ESP blocks of level 2.
        q: ESP blocks of level 3.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H, W); H and W are multiples of 8.
    """

    def __init__(self, num_classes: int = 19, *, p: int = 2, q: int = 3) -> None:
        super().__init__()
        c = num_classes
        self.encoder = _Encoder(c, p, q)
        self.level3_up = nn.ConvTranspose2d(c, c, 2, 2, bias=False)
        self.br3 = nn.BatchNorm2d(c, eps=EPS)
        self.level2_proj = nn.Conv2d(131, c, 1, bias=False)
        block = ESPBlock(2 * c, c, residual=False, style=_STYLE)
        self.combine_l2_l3 = nn.Sequential(BNPReLU(2 * c, eps=EPS), block)
        self.level2_up = nn.Sequential(nn.ConvTranspose2d(c, c, 2, 2, bias=False), BNPReLU(c, eps=EPS))
        self.out_proj = PaddleConv(2 * c, c, 3)
        self.out_up = nn.ConvTranspose2d(c, c, 2, 2, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at input size; see the class."""
        half, quarter, eighth = self.encoder(image)
        x = self.combine_l2_l3(torch.cat((self.level3_up(eighth), quarter), dim=1))
        x = self.out_proj(torch.cat((self.level2_up(x), half), dim=1))
        logits: Tensor = self.out_up(x)
        return logits

    def fuse(self) -> None:
        """Fold the BN of ``level2_up`` into its transposed convolution."""
        fold_distant(self, "level2_up.0", "level2_up.1.bn")


@register(
    ModelSpec(
        system="ESPNet",
        year=2018,
        paper="ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for Semantic Segmentation (ECCV 2018, "
        "arXiv 1803.06815)",
        source="PaddlePaddle/PaddleSeg, third-party",
        num_classes=19,
        labels="cityscapes",
        input_size=(512, 1024),
        divisor=8,
        input=InputSpec.unit_scale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        classes_key="out_up.weight",
        params=204_568,
        accuracy="Cityscapes val mIoU 61.82 at 512x1024 (PaddleSeg's README)",
        weights_licence="Apache-2.0",
        notes="br3 and level2_proj are dead in the published state and drop out at export.",
    )
)
def espnet_paddleseg(*, num_classes: int = 19) -> ESPNetPaddleSeg:
    """Build PaddleSeg's ESPNetV1 (p 2, q 3)."""
    return ESPNetPaddleSeg(num_classes)
