"""The heads of DDRNet and PIDNet in mmsegmentation's form: DDRHead and PIDHead.

Hong et al., "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road Scenes", 2021,
arXiv 2101.06085; Xu et al., "PIDNet", CVPR 2023, arXiv 2206.02066. Equal to mmsegmentation 1.2.2's, which are
third-party. Both classify one map by BN, ReLU, 3x3, BN, ReLU and a 1x1; what they train with beside it is built on
request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from edgeseg.models.heads.base import DecodeHead, HeadOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.dual_resolution import SegmentMap
from edgeseg.models.layers.keys import Rule, publish_keys

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DDRHead", "PIDHead"]

_DDR_KEYS: tuple[Rule, ...] = ((r"^bn1\.", "0.bn."), (r"^conv1\.", "0.conv."), (r"^bn2\.", "1."))
_PID_KEYS: tuple[Rule, ...] = ((r"^bn1\.", "conv.bn."), (r"^conv1\.", "conv.conv."), (r"^bn2\.", "norm."))


def _segment_map(in_channels: int, out_channels: int, keys: tuple[Rule, ...]) -> SegmentMap:
    module = SegmentMap(in_channels, out_channels)
    publish_keys(module, keys)
    return module


@register_head("ddr")
class DDRHead(DecodeHead):
    """The head of DDRNet.

    Args:
        aux: Build what trains on the first of the backbone's maps, of half the channels.
        options: As `DecodeHead`.
    """

    def __init__(self, *, aux: bool = False, **options: Unpack[HeadOptions]) -> None:
        super().__init__(**options)
        self.head = _segment_map(self.in_channels, self.channels, _DDR_KEYS)
        self.checkpoint_ignores = () if aux else (r"aux_head\.", r"aux_cls_seg\.")
        self.aux = aux
        if aux:
            self.aux_head = _segment_map(self.in_channels // 2, self.channels, _DDR_KEYS)
            self.aux_cls_seg = nn.Conv2d(self.channels, self.num_classes, 1)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        y: Tensor = self.head(self.select(features))
        return y

    def training_logits(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Compute, with `aux`, the logits of the first map."""
        return [self.aux_cls_seg(self.aux_head(features[0]))] if self.aux else []


@register_head("pid")
class PIDHead(DecodeHead):
    """The head of PIDNet.

    Args:
        aux: Build what trains on the first two of the backbone's maps (detail and boundary), of half the channels.
        options: As `DecodeHead`.
    """

    def __init__(self, *, aux: bool = False, **options: Unpack[HeadOptions]) -> None:
        super().__init__(**options)
        self.i_head = _segment_map(self.in_channels, self.channels, _PID_KEYS)
        self.checkpoint_ignores = () if aux else (r"[pd]_head\.", r"[pd]_cls_seg\.")
        self.aux = aux
        if aux:
            half, edge = self.in_channels // 2, self.in_channels // 4
            self.p_head, self.d_head = (_segment_map(half, width, _PID_KEYS) for width in (self.channels, edge))
            self.p_cls_seg = nn.Conv2d(self.channels, self.num_classes, 1)
            self.d_cls_seg = nn.Conv2d(edge, 1, 1)

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that is classified."""
        y: Tensor = self.i_head(self.select(features))
        return y

    def training_logits(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Compute, with `aux`, the logits of the detail branch, and one of the boundary."""
        if not self.aux:
            return []
        return [self.p_cls_seg(self.p_head(features[0])), self.d_cls_seg(self.d_head(features[1]))]
