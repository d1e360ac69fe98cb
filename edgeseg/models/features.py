"""A backbone alone: its maps at several strides, declared, so that heads can sit on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from edgeseg.errors import UsageError

__all__ = ["Backbone", "FeatureInfo", "Features"]


@dataclass(frozen=True)
class FeatureInfo:
    """One map of a backbone.

    Attributes:
        channels: Of the map.
        reduction: Its stride: height and width are those of the image divided by it.
        main: The map that a head reads alone; where no map says so, it is the last.
    """

    channels: int
    reduction: int
    main: bool = False


@runtime_checkable
class Backbone(Protocol):
    """A network that can be used as a backbone: it declares its maps, in order of stride, and computes them."""

    feature_info: tuple[FeatureInfo, ...]

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute maps of an image (N, 3, H, W), one per entry of `feature_info`."""
        ...


class Features(nn.Module):
    """A backbone whose forward returns its maps.

    Args:
        network: A network with ``features`` and ``feature_info``. One whose published state dict holds a module named
            ``features`` calls its method ``feature_maps`` instead.

    Shape:
        image (N, 3, H, W) -> list of maps (N, channels, H / reduction, W / reduction), as `feature_info` declares.

    Example:
        >>> import torch
        >>> from edgeseg.models import create_model
        >>> backbone = Features(create_model("regseg"))
        >>> [(info.channels, info.reduction) for info in backbone.feature_info]
        [(48, 4), (128, 8), (320, 16)]
        >>> [tuple(x.shape) for x in backbone(torch.zeros(1, 3, 64, 128))]
        [(1, 48, 16, 32), (1, 128, 8, 16), (1, 320, 4, 8)]
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, Backbone):
            raise UsageError(f"{type(network).__name__} declares no features; choose a backbone")
        self.network = network
        self.feature_info: tuple[FeatureInfo, ...] = network.feature_info
        self._compute: Callable[[Tensor], list[Tensor]] = getattr(network, "feature_maps", network.features)

    def forward(self, image: Tensor) -> list[Tensor]:
        return self._compute(image)
