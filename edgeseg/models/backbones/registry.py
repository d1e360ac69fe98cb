"""Backbones by name, for composing networks: those built here, and every registered network that declares features."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

from torch import nn

from edgeseg.errors import EdgesegError, UnknownNameError, UsageError
from edgeseg.models.backbones.resnet import ResNet
from edgeseg.models.features import Backbone
from edgeseg.models.registry import create_model, list_models

__all__ = ["can_dilate", "create_backbone", "list_backbones", "register_backbone", "resnet"]

_B = TypeVar("_B", bound=Callable[..., nn.Module])
_BACKBONES: dict[str, Callable[..., nn.Module]] = {}
_STAGES: dict[int, tuple[tuple[int, int, int, int], tuple[int, int, int, int]]] = {
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
}
"""Strides and dilations of a ResNet's stages by its output stride."""


def register_backbone(name: str) -> Callable[[_B], _B]:
    """Register a builder under a name; it takes ``output_stride`` as a keyword where it can dilate.

    Raises:
        EdgesegError: The name is taken.
    """

    def decorate(builder: _B) -> _B:
        if name in _BACKBONES:
            raise EdgesegError(f"backbone '{name}' is registered twice; rename one")
        _BACKBONES[name] = builder
        return builder

    return decorate


def resnet(depth: int, *, stem: Literal["plain", "deep"] = "deep", output_stride: int = 32) -> ResNet:
    """A ResNet whose last stages dilate in place of striding; the deep stem is mmsegmentation's ResNetV1c.

    Raises:
        UsageError: `output_stride` is none of 8, 16, 32.
    """
    if output_stride not in _STAGES:
        raise UsageError(f"output_stride is {output_stride}; a ResNet takes 8, 16 or 32")
    strides, dilations = _STAGES[output_stride]
    return ResNet(depth, stem=stem, strides=strides, dilations=dilations)


for _depth in (18, 34, 50, 101):
    register_backbone(f"resnet{_depth}")(partial(resnet, _depth, stem="plain"))
    register_backbone(f"resnet{_depth}_v1c")(partial(resnet, _depth, stem="deep"))


def _load_backbones() -> None:
    """Import every module of this package; importing registers its backbones."""
    package = importlib.import_module("edgeseg.models.backbones")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"edgeseg.models.backbones.{module.name}")


def list_backbones() -> list[str]:
    """Names of the backbones that are not registered networks themselves."""
    _load_backbones()
    return sorted(_BACKBONES)


def can_dilate(name: str) -> bool:
    """Whether the backbone of this name can be built for several output strides."""
    _load_backbones()
    return name in _BACKBONES and "output_stride" in inspect.signature(_BACKBONES[name]).parameters


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
    """
    options = {"output_stride": output_stride} if output_stride and can_dilate(name) else {}
    module = _BACKBONES[name](**options) if name in list_backbones() else _registered(name)
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
