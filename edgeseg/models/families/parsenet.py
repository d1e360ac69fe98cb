"""ParseNet on VGG-16, with late fusion.

Liu, Rabinovich, Berg, "ParseNet: Looking Wider to See Better", ICLR 2016 workshop, arXiv 1506.04579. The layer list is
that of a third-party Caffe definition (debidatta/caffe-parsenet) derived from the authors' PASCAL network; the layers'
semantics are those of the authors' Caffe branch. It was transcribed, not run in Caffe: whether the authors' own release
has exactly these layer names and a learned deconvolution is uncertain. Two scores are summed, one of every pixel's
normalised features and one of the normalised global average. Nothing but dropouts is training-only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.norm import L2Norm
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = ["ParseNet", "parsenet_vgg16"]

_STAGES = ((64, 2, 1), (128, 2, 1), (256, 3, 1), (512, 3, 1), (512, 3, 2))
"""Channels, convolutions and dilation of VGG-16's stages."""


def bilinear_kernel(size: int) -> Tensor:
    """Compute the (size, size) weights of a transposed convolution of stride size / 2 that interpolates bilinearly."""
    factor = (size + 1) // 2
    center = factor - 1.0 if size % 2 else factor - 0.5
    line = 1.0 - (torch.arange(size, dtype=torch.float64) - center).abs() / factor
    return line[:, None] * line[None, :]


class ParseNet(nn.Module):
    """The network.

    Args:
        num_classes: Output channels.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H, W), any height and width: the published network ends in a
        learned 16x16 deconvolution at stride 8, which is part of the weights. `features`: VGG's conv2 to conv5 at
        strides 2, 4, 8, 8.
    """

    feature_info = (FeatureInfo(128, 2), FeatureInfo(256, 4), FeatureInfo(512, 8), FeatureInfo(512, 8))

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        in_channels = 3
        for stage, (channels, convs, dilation) in enumerate(_STAGES, start=1):
            for k in range(1, convs + 1):
                conv = nn.Conv2d(in_channels, channels, 3, 1, dilation, dilation)
                self.add_module(f"conv{stage}_{k}", conv)
                in_channels = channels
        self.fc6 = nn.Conv2d(512, 1024, 3, 1, 12, 12)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        self.fc7_norm = L2Norm(1024)
        self.pool6_1x1_norm = L2Norm(1024)
        self.fc7_norm_score = nn.Conv2d(1024, num_classes, 1)
        self.pool6_1x1_norm_score = nn.Conv2d(1024, num_classes, 1)
        self.upscore = nn.ConvTranspose2d(num_classes, num_classes, 16, 8, 4, groups=num_classes)
        self.dropout, self.global_dropout = nn.Dropout(0.5), nn.Dropout(0.3)
        with torch.no_grad():  # training starts from bilinear interpolation
            self.upscore.weight.copy_(bilinear_kernel(16).expand_as(self.upscore.weight))

    def _stage(self, stage: int, x: Tensor) -> Tensor:
        for k in range(1, _STAGES[stage - 1][1] + 1):
            x = torch.relu(self.get_submodule(f"conv{stage}_{k}")(x))
        return x

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute the outputs of the stages conv2 to conv5 for an image (N, 3, H, W)."""
        x, maps = self._stage(1, image), []
        for stage in (2, 3, 4, 5):
            x = F.max_pool2d(x, 2, 2, ceil_mode=True) if stage < 5 else F.max_pool2d(x, 3, 1, 1)
            x = self._stage(stage, x)
            maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at input size; see the class."""
        x = F.max_pool2d(self.features(image)[-1], 3, 1, 1)
        x = self.dropout(torch.relu(self.fc6(x)))
        x = self.dropout(torch.relu(self.fc7(x)))
        local = self.fc7_norm_score(self.fc7_norm(x))
        whole = self.global_dropout(self.pool6_1x1_norm(x.mean((2, 3), keepdim=True)))
        logits: Tensor = self.upscore(local + self.pool6_1x1_norm_score(whole))
        return logits[:, :, : image.shape[2], : image.shape[3]]

    def fuse(self) -> None:
        """Move the scales into the scoring convolutions."""
        self.fc7_norm.fold_scale_into(self.fc7_norm_score)
        self.pool6_1x1_norm.fold_scale_into(self.pool6_1x1_norm_score)


@register(
    ModelSpec(
        system="ParseNet",
        year=2016,
        paper="ParseNet: Looking Wider to See Better (ICLR 2016 workshop, arXiv 1506.04579)",
        source="debidatta/caffe-parsenet (prototxt, transcribed), third-party; layers of weiliu89/caffe, official",
        num_classes=19,
        labels="cityscapes",
        input_size=(512, 512),
        divisor=1,
        input=InputSpec("bgr", (104.00698793, 116.66876762, 122.67891434)),
        classes_key="fc7_norm_score.weight",
        params=20_529_785,
        accuracy="PASCAL VOC 2012 test mIoU 69.8, PASCAL-Context val 40.4 (paper)",
        notes="Transcribed from a Caffe definition and never run there; the authors' layer names and their learned "
        "deconvolution are uncertain. Published networks have 21 PASCAL VOC classes.",
    )
)
def parsenet_vgg16(*, num_classes: int = 19) -> ParseNet:
    """Build ParseNet on VGG-16."""
    return ParseNet(num_classes)
