"""STDC-Seg, and the STDC networks as ImageNet classifiers.

Fan et al., "Rethinking BiSeNet For Real-time Semantic Segmentation", CVPR 2021, arXiv 2104.13188. Equals the authors'
own implementation (MichaelFan01/STDC-Seg, ``models/model_stages.py`` and ``nets/stdcnet.py``) number for number, with
plain BN in the head as in the authors' TensorRT file. Training-only, built with ``aux`` alone: the heads at strides 16
and 32, the four detail heads, of which published training uses stride 8, and the ImageNet classifier in the backbone.

The authors' training code has in-place activated BN in the head, whose scale is abs(weight) + 1e-5: turn weights
trained with it into those of the plain BN here with `plain_bn_state`. Published state dicts hold the backbone twice.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeseg.models.backbones.stdc import OFFICIAL, STDC, STDC1_BLOCKS, STDC2_BLOCKS, STDCStyle
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.bisenet import ContextRefinement, OutputHead
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec

__all__ = [
    "STDCClassifier",
    "STDCSeg",
    "STDCTrunk",
    "plain_bn_state",
    "stdc1_cls",
    "stdc1_seg",
    "stdc2_cls",
    "stdc2_seg",
]

_EPS = 1e-5


def plain_bn_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict trained with in-place activated BN outside the backbone (the authors') for `STDCSeg`."""
    head_bn = {key.removesuffix("running_mean") + "weight" for key in state if key.endswith(".running_mean")}
    head_bn = {key for key in head_bn if not key.startswith("cp.backbone.")}
    return {key: value.abs() + _EPS if key in head_bn else value for key, value in state.items()}


class ContextPath(ContextRefinement):
    """The backbone, and its two deepest maps refined by attention and brought to stride 8."""

    def __init__(self, blocks: tuple[int, int, int], *, imagenet_classes: int | None, style: STDCStyle) -> None:
        super().__init__(512, 1024)
        self.backbone = STDC(blocks, style=style, aliases=style is OFFICIAL, imagenet_classes=imagenet_classes)

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Compute the backbone's five maps of an image, and the context at strides 8 and 16."""
        maps = self.backbone.feature_maps(image)
        return maps, *self.refine(*maps[2:])


class FeatureFusion(nn.Module):
    """Joins two maps by a 1x1 and raises each channel by a weight from its average."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convblk = ConvBN(in_channels, out_channels, 1)
        self.conv1 = nn.Conv2d(out_channels, out_channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(out_channels // 4, out_channels, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x: Tensor = self.convblk(torch.cat((detail, context), dim=1))
        weights = torch.sigmoid(self.conv2(torch.relu(self.conv1(x.mean((2, 3), keepdim=True)))))
        return x * weights + x


class STDCTrunk(nn.Module):
    """The backbone, the context path and their fusion.

    Args:
        blocks: Of the backbone: `STDC1_BLOCKS` or `STDC2_BLOCKS`.
        imagenet_classes: Classes of the backbone's ImageNet classifier; None leaves it out.
        style: Of the backbone.

    Shape:
        image (N, 3, H, W) -> the backbone's map at stride 8 (256 channels), the context at strides 16 and 8, and the
        fused map (256 channels, stride 8); any H and W, sizes rounded up.
    """

    feature_info: tuple[FeatureInfo, ...] = (
        FeatureInfo(256, 8),
        FeatureInfo(128, 16),
        FeatureInfo(128, 8),
        FeatureInfo(256, 8, main=True),
    )

    def __init__(
        self,
        blocks: tuple[int, int, int] = STDC1_BLOCKS,
        *,
        imagenet_classes: int | None = None,
        style: STDCStyle = OFFICIAL,
    ) -> None:
        super().__init__()
        self.cp = ContextPath(blocks, imagenet_classes=imagenet_classes, style=style)
        self.ffm = FeatureFusion(384, 256)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute four maps of an image; see the class."""
        maps, fine, coarse = self.cp(image)
        return [maps[2], coarse, fine, self.ffm(maps[2], fine)]


class STDCSeg(STDCTrunk):
    """The segmentation network.

    Args:
        num_classes: Output channels.
        blocks: Of the backbone: `STDC1_BLOCKS` or `STDC2_BLOCKS`.
        aux: Build the training heads and the backbone's ImageNet classifier.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, ceil(H / 8), ceil(W / 8)), any size. The published code then
        resizes bilinearly to the input size (align_corners True).
    """

    def __init__(
        self, num_classes: int = 19, *, blocks: tuple[int, int, int] = STDC1_BLOCKS, aux: bool = False
    ) -> None:
        super().__init__(blocks, imagenet_classes=1000 if aux else None)
        self.conv_out = OutputHead(256, 256, num_classes)
        if aux:
            self._add_training_heads(num_classes)
        self.checkpoint_ignores = (
            () if aux else (r"^conv_out(16|32|_sp\d+)\.", r"^cp\.backbone\.(conv_last|fc|bn|linear)\.")
        )

    def _add_training_heads(self, num_classes: int) -> None:
        self.conv_out16 = OutputHead(128, 64, num_classes)
        self.conv_out32 = OutputHead(128, 64, num_classes)
        for info in self.cp.backbone.feature_info[:-1]:
            self.add_module(f"conv_out_sp{info.reduction}", OutputHead(info.channels, 64, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.conv_out(self.features(image)[-1])
        return logits

    def forward_train(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute logits, those of the heads at strides 8 and 16, and the detail logit at stride 8; needs `aux`."""
        eighth, coarse, fine, fused = self.features(image)
        detail = self.get_submodule("conv_out_sp8")(eighth)
        return self.conv_out(fused), self.conv_out16(fine), self.conv_out32(coarse), detail


class STDCClassifier(STDC):
    """The backbone with its ImageNet classifier.

    The published BN between the two linear layers (``bn``) is in the state dict and never applied.

    Args:
        num_classes: Output channels.
        blocks: `STDC1_BLOCKS` or `STDC2_BLOCKS`.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes), any size.
    """

    def __init__(self, num_classes: int = 1000, *, blocks: tuple[int, int, int] = STDC1_BLOCKS) -> None:
        super().__init__(blocks, aliases=True, imagenet_classes=num_classes)
        self.dropout = nn.Dropout(0.2)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, num_classes); see the class."""
        x = self.conv_last(self.feature_maps(image)[-1])
        x = torch.relu(self.fc((x * x).mean((2, 3))))
        logits: Tensor = self.linear(self.dropout(x))
        return logits


_PAPER = "Rethinking BiSeNet For Real-time Semantic Segmentation (CVPR 2021, arXiv 2104.13188)"

_SPEC = ModelSpec(
    system="STDC",
    year=2021,
    paper=_PAPER,
    source="MichaelFan01/STDC-Seg, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(512, 1024),
    divisor=1,
    input=InputSpec.imagenet(),
    postprocess=PostprocessSpec(align_corners=True),
    classes_key="conv_out.conv_out.weight",
    params=8_275_104,
    params_note="the published state also holds the training heads and the ImageNet classifier; built with aux",
    accuracy="Cityscapes val mIoU 72.2 at 512x1024, 74.5 at 768x1536",
    weights_licence="MIT",
    notes="The authors' weights were trained with in-place activated BN in the head: convert them with "
    "edgeseg.models.families.stdc.plain_bn_state. Their TensorRT file resizes the logits by nearest, which is "
    "another output.",
)


@register(_SPEC)
def stdc1_seg(*, num_classes: int = 19, aux: bool = False) -> STDCSeg:
    """Build STDC1-Seg."""
    return STDCSeg(num_classes, aux=aux)


@register(_SPEC.but(params=12_305_568, accuracy="Cityscapes val mIoU 74.2 at 512x1024, 77.0 at 768x1536"))
def stdc2_seg(*, num_classes: int = 19, aux: bool = False) -> STDCSeg:
    """Build STDC2-Seg."""
    return STDCSeg(num_classes, blocks=STDC2_BLOCKS, aux=aux)


_CLASSIFIER = ModelSpec(
    system="STDC",
    year=2021,
    paper=_PAPER,
    source="MichaelFan01/STDC-Seg, official",
    num_classes=1000,
    labels="generic",
    input_size=(224, 224),
    divisor=1,
    input=InputSpec.imagenet(),
    classes_key="linear.weight",
    params=8_443_552,
    accuracy="ImageNet val top-1 73.91 at 224x224 (the authors' checkpoint name)",
    weights_licence="MIT",
    notes="Classifier: one label per image. The authors state no input normalisation; ImageNet's is assumed.",
)


@register(_CLASSIFIER)
def stdc1_cls(*, num_classes: int = 1000) -> STDCClassifier:
    """Build STDC1 (STDCNet813) on ImageNet."""
    return STDCClassifier(num_classes)


@register(_CLASSIFIER.but(params=12_474_016, accuracy=""))
def stdc2_cls(*, num_classes: int = 1000) -> STDCClassifier:
    """Build STDC2 (STDCNet1446) on ImageNet."""
    return STDCClassifier(num_classes, blocks=STDC2_BLOCKS)
