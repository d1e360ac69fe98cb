"""FCN heads: plain (the dilated FCN of the PSPNet line) and depthwise separable (Fast-SCNN).

Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, arXiv 1411.4038; Poudel et al.,
"Fast-SCNN", BMVC 2019, arXiv 1902.04502. Equal to mmsegmentation 1.2.2's FCNHead and DepthwiseSeparableFCNHead, both
third-party: no transposed convolutions and no skips.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgeseg.models.heads.base import DecodeHead, HeadOptions, Unit, units
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.separable import separable_conv_bn

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DepthwiseSeparableFCNHead", "FCNHead", "FCNOptions"]


class FCNOptions(HeadOptions, total=False):
    """Options of `FCNHead` that its subclasses pass on."""

    num_convs: int
    kernel_size: int
    concat_input: bool
    dilation: int


@register_head("fcn")
class FCNHead(DecodeHead):
    """Convolution blocks, one more over the input and their result where `concat_input`, and the classifier.

    Args:
        num_convs: Blocks; 0 classifies the input itself, whose channels are then `channels`.
        kernel_size: Of all blocks.
        concat_input: Join the input with the result of the blocks.
        dilation: Of the blocks, not of the one after the concatenation.
        unit: Makes the blocks.
        options: As `DecodeHead`.
    """

    def __init__(
        self,
        *,
        num_convs: int = 2,
        kernel_size: int = 3,
        concat_input: bool = True,
        dilation: int = 1,
        unit: Unit = ConvBN,
        **options: Unpack[HeadOptions],
    ) -> None:
        super().__init__(**options)
        self.concat_input = concat_input
        self.convs = units(self.in_channels, self.channels, kernel_size, num_convs, unit=unit, dilation=dilation)
        if concat_input:
            self.conv_cat = unit(self.in_channels + self.channels, self.channels, kernel_size)

    def between(self, x: Tensor) -> Tensor:
        """Compute what happens after the first block; subclasses put their attention here."""
        return x

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        x = y = self.select(features)
        if len(self.convs):
            y = self.convs[1:](self.between(self.convs[0](x)))
        joined: Tensor = self.conv_cat(torch.cat((x, y), dim=1)) if self.concat_input else y
        return joined


@register_head("sep_fcn")
class DepthwiseSeparableFCNHead(FCNHead):
    """`FCNHead` with depthwise separable convolutions.

    Args:
        dw_act: ReLU after the depthwise convolutions (``dw_act_cfg`` in mmsegmentation).
        options: As `FCNHead`.
    """

    def __init__(self, *, dw_act: bool = False, **options: Unpack[FCNOptions]) -> None:
        super().__init__(unit=partial(separable_conv_bn, inner_relu=dw_act), **options)
