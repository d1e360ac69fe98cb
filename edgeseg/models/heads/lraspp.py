"""The decoder of MobileNetV3: a gated map, widened step by step with the backbone's early maps.

Howard et al., "Searching for MobileNetV3", ICCV 2019, arXiv 1905.02244. Equal to mmsegmentation 1.2.2's LRASPPHead,
third-party, which adds two early maps where the paper has one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgeseg.errors import SizeError, UsageError
from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.keys import put_module

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["LRASPPHead"]

WINDOW, STEP = 49, (16, 20)
"""Of the averages that the gate is made of."""


@register_head("lraspp")
class LRASPPHead(DecodeHead):
    """A 1x1 of the last map times a gate of its averages, then each earlier map is joined by a 1x1.

    Args:
        branch_channels: What the earlier maps are reduced to, first map first.
        eps: Of every BN.
        options: As `DecodeHead`; it reads a list of maps, the last at least 49x49.

    Shape:
        list of maps -> logits (N, num_classes, H, W) of the size of the first map.
    """

    default_transform = "multiple_select"
    reads_all = True

    def __init__(
        self, *, branch_channels: Sequence[int] = (32, 64), eps: float = 1e-5, **options: Unpack[HeadOptions]
    ) -> None:
        super().__init__(**options)
        self.steps = len(self.widths) - 1
        if len(branch_channels) != self.steps or self.input_transform != "multiple_select":
            raise UsageError(
                f"LRASPPHead got {len(self.widths)} maps with input_transform {self.input_transform} and "
                f"{len(branch_channels)} branch_channels; give multiple_select and one number per map but the last"
            )
        width = self.channels
        for k, (in_channels, branch) in enumerate(zip(self.widths, branch_channels, strict=False)):
            put_module(self, f"convs.conv{k}", nn.Conv2d(in_channels, branch, 1, bias=False))
            put_module(self, f"conv_ups.conv_up{k}", ConvBN(width + branch, width, 1, eps=eps))
        self.conv_up_input = nn.Conv2d(width, width, 1)
        self.aspp_conv = ConvBN(self.widths[-1], width, 1, eps=eps)
        gate = nn.Sequential(OrderedDict(conv=nn.Conv2d(self.widths[-1], width, 1, bias=False)))
        self.image_pool = nn.Sequential(nn.AvgPool2d(WINDOW, STEP), gate, nn.Sigmoid())

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps: it reads two early ones and the last."""
        chosen = (0, min(1, len(info) - 2), len(info) - 1)
        return {"in_channels": [info[k].channels for k in chosen], "in_index": list(chosen), "channels": 128}

    def _gated(self, x: Tensor) -> Tensor:
        """Compute the last map, reduced and weighed."""
        h, w = x.shape[2:]
        if min(h, w) < WINDOW:
            raise SizeError(
                f"LRASPPHead averages over {WINDOW}x{WINDOW} of a map of {h}x{w}; use larger pictures, at least 392 "
                "pixels high and wide where the map has stride 8"
            )
        y: Tensor = self.aspp_conv(x)
        return y * self.resize(self.image_pool(x), y)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        *early, last = self.select_all(features)
        y: Tensor = self.conv_up_input(self._gated(last))
        for k in reversed(range(self.steps)):
            x = early[k]
            branch = self.get_submodule(f"convs.conv{k}")(x)
            y = self.get_submodule(f"conv_ups.conv_up{k}")(torch.cat((self.resize(y, x), branch), dim=1))
        return y
