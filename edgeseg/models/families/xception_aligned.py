"""Aligned Xception-41 and -65, the backbones of DeepLabv3+.

Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018,
arXiv 1802.02611. Equals timm's ``xception41`` and ``xception65`` number for number, third-party ports of the authors'
TensorFlow code. Strided separable convolutions replace the max pools of Xception, and every depthwise convolution has
a BN; eps is 1e-3. Nothing is training-only. The thin "Xception-39" of BiSeNet and DFANet is another network.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from edgeseg.models.families.xception import XCEPTION_INPUT
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec

__all__ = ["AlignedXception", "xception41", "xception65", "xception65_os16"]

_EPS = 1e-3


class SeparableConvBN(nn.Module):
    """Depthwise 3x3, BN, 1x1, BN; ReLU after both BNs where `relu`."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, relu: bool = False
    ) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(
            in_channels, in_channels, 3, stride, dilation, dilation, groups=in_channels, bias=False
        )
        self.bn_dw = nn.BatchNorm2d(in_channels, eps=_EPS)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn_pw = nn.BatchNorm2d(out_channels, eps=_EPS)
        self.act: nn.Module = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / stride, W / stride)."""
        x = self.act(self.bn_dw(self.conv_dw(x)))
        y: Tensor = self.act(self.bn_pw(self.conv_pw(x)))
        return y

    def fuse(self) -> None:
        """Fold the BNs into their convolutions."""
        fold_bn_pair(self, "conv_dw", "bn_dw")
        fold_bn_pair(self, "conv_pw", "bn_pw")


class AlignedBlock(nn.Module):
    """Three separable convolutions, the third strides, and a shortcut.

    Args:
        in_channels: Input channels.
        widths: Output channels of the three.
        stride: Of the third and the shortcut.
        dilation: Of all three.
        last: The network's last block: ReLU after every BN in place of before every separable convolution, no shortcut.
    """

    def __init__(
        self, in_channels: int, widths: tuple[int, int, int], *, stride: int = 1, dilation: int = 1, last: bool = False
    ) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {}
        for k, (a, b) in enumerate(pairwise((in_channels, *widths)), start=1):
            if not last:
                layers[f"act{k}"] = nn.ReLU()
            layers[f"conv{k}"] = SeparableConvBN(a, b, stride=stride if k == 3 else 1, dilation=dilation, relu=last)
        self.stack = nn.Sequential()
        for name, layer in layers.items():
            self.stack.add_module(name, layer)
        self.skips = not last
        self.shortcut = None
        if self.skips and (stride > 1 or in_channels != widths[-1]):
            self.shortcut = ConvBN(in_channels, widths[-1], 1, stride=stride, relu=False, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, widths[2], H / stride, W / stride)."""
        y: Tensor = self.stack(x)
        if not self.skips:
            return y
        return y + (x if self.shortcut is None else self.shortcut(x))


class _Head(nn.Module):
    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


class AlignedXception(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.
        middle: Blocks of the middle flow: 8 or 16.
        output_stride: 32, or 16: the last strided block keeps its size and the block after it is dilated.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes), any height and width. `features`: the stem at stride 2, the first
        two blocks at 4 and 8, the end of the middle flow at 16, and the last block at `output_stride`.
    """

    def __init__(self, num_classes: int = 1000, *, middle: int = 8, output_stride: int = 32) -> None:
        super().__init__()
        last_stride, last_dilation = (2, 1) if output_stride == 32 else (1, 2)
        self.stem = nn.Sequential(ConvBN(3, 32, 3, stride=2, eps=_EPS), ConvBN(32, 64, 3, eps=_EPS))
        self.blocks = nn.Sequential(
            AlignedBlock(64, (128, 128, 128), stride=2),
            AlignedBlock(128, (256, 256, 256), stride=2),
            AlignedBlock(256, (728, 728, 728), stride=2),
            *(AlignedBlock(728, (728, 728, 728)) for _ in range(middle)),
            AlignedBlock(728, (728, 1024, 1024), stride=last_stride),
            AlignedBlock(1024, (1536, 1536, 2048), dilation=last_dilation, last=True),
        )
        self.head = _Head(2048, num_classes)
        self._ends = (0, 1, middle + 2, middle + 4)
        channels = zip((64, 128, 256, 728, 2048), (2, 4, 8, 16, output_stride), strict=True)
        self.feature_info = tuple(FeatureInfo(c, stride) for c, stride in channels)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute five maps of an image (N, 3, H, W); see the class."""
        x = self.stem(image)
        maps = [x]
        for k, block in enumerate(self.blocks):
            x = block(x)
            if k in self._ends:
                maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, num_classes); see the class."""
        logits: Tensor = self.head(self.blocks(self.stem(image)))
        return logits


_SPEC = ModelSpec(
    system="Xception (aligned)",
    year=2018,
    paper="Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation (ECCV 2018, "
    "arXiv 1802.02611)",
    source="huggingface/pytorch-image-models (xception_aligned), third-party",
    num_classes=1000,
    labels="generic",
    input_size=(299, 299),
    divisor=1,
    input=XCEPTION_INPUT,
    classes_key="head.fc.weight",
    params=26_969_560,
    weights_licence="Apache-2.0",
    notes="Classifier: one label per image. Published input: centre crop 299x299 of Pillow bicubic.",
)


@register(_SPEC)
def xception41(*, num_classes: int = 1000) -> AlignedXception:
    """Build Aligned Xception-41."""
    return AlignedXception(num_classes)


@register(_SPEC.but(params=39_916_312))
def xception65(*, num_classes: int = 1000) -> AlignedXception:
    """Build Aligned Xception-65."""
    return AlignedXception(num_classes, middle=16)


@register(_SPEC.but(params=39_916_312))
def xception65_os16(*, num_classes: int = 1000) -> AlignedXception:
    """Build Aligned Xception-65 at output stride 16, as segmentation heads use it."""
    return AlignedXception(num_classes, middle=16, output_stride=16)
