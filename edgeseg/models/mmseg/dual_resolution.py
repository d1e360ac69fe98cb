"""DDRNet and PIDNet as mmsegmentation's backbones: the authors' graphs under mmsegmentation's keys.

They differ from `edgeseg.models.families.ddrnet` and `edgeseg.models.families.pidnet` in one thing: the stem's
convolutions have no bias. Equal to mmsegmentation 1.2.2, third-party.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from edgeseg.models.backbones.registry import register_backbone
from edgeseg.models.families.ddrnet import NORMAL, SLIM, DDRNetTrunk, Plan
from edgeseg.models.families.pidnet import PIDNetTrunk
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.keys import Rule, publish_keys

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from edgeseg.models.families.pidnet import PIDNetOptions

__all__ = ["PIDNET_L", "PIDNET_M", "PIDNET_S", "DDRNetBackbone", "ddrnet", "pidnet"]

_BLOCKS: tuple[Rule, ...] = (
    (r"^conv1\.0\.", "stem.0.conv."),
    (r"^conv1\.1\.", "stem.0.bn."),
    (r"^conv1\.3\.", "stem.1.conv."),
    (r"^conv1\.4\.", "stem.1.bn."),
    (r"\.conv(\d)\.", r".conv\1.conv."),
    (r"\.bn(\d)\.", r".conv\1.bn."),
    (r"^layer1\.", "stem.2."),
    (r"^layer2\.", "stem.4."),
)
"""The stem and the residual blocks."""

_POOLING: tuple[Rule, ...] = (
    (r"^(spp\.(?:scale0|scale_process|process\d|compression|shortcut)|dfm\.conv)\.0\.", r"\1.bn."),
    (r"^(spp\.(?:scale0|scale_process|process\d|compression|shortcut)|dfm\.conv)\.2\.", r"\1.conv."),
    (r"^(spp\.scale[1-4])\.1\.", r"\1.1.bn."),
    (r"^(spp\.scale[1-4])\.3\.", r"\1.1.conv."),
    (r"^spp\.scale(\d)\.", r"spp.scales.\1."),
    (r"^spp\.scale_process\.", "spp.processes."),
    *((rf"^spp\.process{k + 1}\.", f"spp.processes.{k}.") for k in range(4)),
)
"""Where BN and ReLU stand before the convolution."""


def _branch(own: str, published: str) -> tuple[Rule, ...]:
    """Renumber layers 3, 4 and 5 of a branch as 0, 1 and 2 of a list."""
    return tuple((rf"^layer{k + 3}{own}\.", f"{published}_branch_layers.{k}.") for k in range(3))


def _exchange(own: str, published: str) -> tuple[Rule, ...]:
    """Renumber a convolution with BN after layers 3 and 4 as 1 and 2."""
    return tuple(
        (rf"^{own}{k + 2}((?:\.f_[ip])?)\.{i}\.", rf"{published}_{k}\1.{leaf}.")
        for k in (1, 2)
        for i, leaf in enumerate(("conv", "bn"))
    )


_DDR_KEYS: tuple[Rule, ...] = (
    *_BLOCKS,
    *_POOLING,
    *_branch("", "context"),
    *_branch("_", "spatial"),
    *_exchange("compression", "compression"),
    (r"^down4\.0\.", "down_2.0.conv."),
    (r"^down4\.1\.", "down_2.0.bn."),
    (r"^down4\.3\.", "down_2.1.conv."),
    (r"^down4\.4\.", "down_2.1.bn."),
    *_exchange("down", "down"),
)
_PID_KEYS: tuple[Rule, ...] = (
    *_BLOCKS,
    *_POOLING,
    (r"\.downsample\.0\.", ".downsample.conv."),
    (r"\.downsample\.1\.", ".downsample.bn."),
    *_branch("", "i"),
    *_branch("_", "p"),
    *_branch("_d", "d"),
    *_exchange("compression", "compression"),
    *_exchange("diff", "diff"),
    (r"\.f_x\.", ".f_p."),
    (r"\.f_y\.", ".f_i."),
    *_exchange("pag", "pag"),
    (r"^dfm\.conv_([pi])\.0\.", r"dfm.f_\1.conv."),
    (r"^dfm\.conv_([pi])\.1\.", r"dfm.f_\1.bn."),
)


class DDRNetBackbone(DDRNetTrunk):
    """DDRNet as a backbone.

    Args:
        plan: Widths and depths.

    Shape:
        image (N, 3, H, W) -> the detail branch after the first exchange (2 planes) and the sum of both branches at the
        end (4 planes), both at stride 8; H and W are multiples of 8.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(replace(plan, stem_bias=False))
        self.feature_info = tuple(FeatureInfo(width * plan.planes, 8) for width in (2, 4))
        publish_keys(self, _DDR_KEYS)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute two maps of an image; see the class."""
        return list(self.maps(image))


def ddrnet(plan: Plan = NORMAL) -> DDRNetBackbone:
    """Build DDRNet-23 by its widths and depths."""
    return DDRNetBackbone(plan)


PIDNET_S: PIDNetOptions = {}
PIDNET_M: PIDNetOptions = {"planes": 64}
PIDNET_L: PIDNetOptions = {"m": 3, "n": 4, "planes": 64, "ppm_planes": 112, "large": True}


def pidnet(**options: Unpack[PIDNetOptions]) -> PIDNetTrunk:
    """Build PIDNet by its widths and depths: `PIDNET_S`, `PIDNET_M` or `PIDNET_L`."""
    module = PIDNetTrunk(stem_bias=False, **options)
    publish_keys(module, _PID_KEYS)
    return module


register_backbone("ddrnet_23_mmseg")(ddrnet)
register_backbone("ddrnet_23_slim_mmseg")(partial(ddrnet, SLIM))
register_backbone("pidnet_s_mmseg")(partial(pidnet, **PIDNET_S))
register_backbone("pidnet_m_mmseg")(partial(pidnet, **PIDNET_M))
register_backbone("pidnet_l_mmseg")(partial(pidnet, **PIDNET_L))
