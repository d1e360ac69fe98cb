"""Backbones by name, for composing networks: those built here, and every registered network that declares features."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

from torch import nn

from edgeseg.errors import UnknownNameError, UsageError
from edgeseg.models.factory import create_model
from edgeseg.models.features import Backbone
from edgeseg.models.registry import Registry, list_models

__all__ = ["can_dilate", "create_backbone", "list_backbones", "register_backbone"]

BACKBONES: Registry[Callable[..., nn.Module]] = Registry("backbone", "edgeseg.models.backbones", "edgeseg.models.mmseg")

_B = TypeVar("_B", bound=Callable[..., nn.Module])


def register_backbone(name: str) -> Callable[[_B], _B]:
    """Register a builder under a name; it takes ``output_stride`` as a keyword where it can dilate.

    Raises:
        EdgesegError: The name is taken.
    """

    def decorate(builder: _B) -> _B:
        BACKBONES.add(name, builder, getattr(builder, "func", builder).__module__)
        return builder

    return decorate


def list_backbones() -> list[str]:
    """List the names of the backbones that are not registered networks themselves.

    Example:
        >>> "resnet18_v1c" in list_backbones()
        True
    """
    return BACKBONES.names()


def can_dilate(name: str) -> bool:
    """Check whether the backbone of this name can be built for several output strides."""
    return name in BACKBONES and "output_stride" in inspect.signature(BACKBONES.find(name)).parameters


def create_backbone(name: str, *, output_stride: int | None = None) -> nn.Module:
    """Build a backbone with random weights.

    Args:
        name: Of `list_backbones`, or a registered network that declares features.
        output_stride: Of the last map; None is the backbone's own.

    Returns:
        A module with ``feature_info`` and ``features``.

    Raises:
        UnknownNameError: No such backbone; suggests the nearest.
        UsageError: The network declares no features, or cannot have the output stride.

    Example:
        >>> backbone = create_backbone("resnet18", output_stride=16)
        >>> [(info.channels, info.reduction) for info in backbone.feature_info]
        [(64, 4), (128, 8), (256, 16), (512, 16)]
    """
    options = {"output_stride": output_stride} if output_stride and can_dilate(name) else {}
    module = BACKBONES.find(name)(**options) if name in BACKBONES else _registered(name)
    if not isinstance(module, Backbone):
        raise UsageError(f"network '{name}' declares no features; choose a backbone, such as resnet18_v1c")
    last = module.feature_info[-1].reduction
    if output_stride not in (None, last):
        raise UsageError(f"backbone '{name}' has output stride {last} and no other; leave out output_stride")
    return module


def _registered(name: str) -> nn.Module:
    if name not in list_models():
        raise UnknownNameError("backbone", name, [*list_backbones(), *list_models()])
    return create_model(name)
