"""Heads and necks by name, and from the configurations that mmsegmentation publishes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import nn

from edgeseg.errors import UnknownNameError
from edgeseg.models.heads.base import DecodeHead, Neck
from edgeseg.models.registry import Registry

__all__ = [
    "build_from_config",
    "head_class",
    "list_heads",
    "list_necks",
    "neck_class",
    "register_head",
    "register_neck",
]

HEADS: Registry[type[DecodeHead]] = Registry("head", "edgeseg.models.heads")
NECKS: Registry[type[Neck]] = Registry("neck", "edgeseg.models.heads")

_H = TypeVar("_H", bound=DecodeHead)
_K = TypeVar("_K", bound=Neck)
_M = TypeVar("_M", bound=nn.Module)
_DROPPED = {
    "type", "conv_cfg", "norm_cfg", "act_cfg", "init_cfg", "sampler", "ignore_index", "loss_decode", "loss_se_decode",
    "momentum", "pretrained", "drop_rate", "attn_drop_rate", "drop_path_rate", "init_std",
}  # fmt: skip
"""Published options that say nothing about inference, or what every head here has: BN and ReLU."""


def register_head(name: str) -> Callable[[type[_H]], type[_H]]:
    """Register a head under a short name such as ``"psp"``; its class has the published name.

    Raises:
        EdgesegError: The name is taken.
    """

    def decorate(cls: type[_H]) -> type[_H]:
        HEADS.add(name, cls, cls.__module__)
        return cls

    return decorate


def register_neck(name: str) -> Callable[[type[_K]], type[_K]]:
    """Register a neck; see `register_head`.

    Raises:
        EdgesegError: The name is taken.
    """

    def decorate(cls: type[_K]) -> type[_K]:
        NECKS.add(name, cls, cls.__module__)
        return cls

    return decorate


def list_heads() -> list[str]:
    """List the names of the heads, in order.

    Example:
        >>> "psp" in list_heads()
        True
    """
    return HEADS.names()


def list_necks() -> list[str]:
    """List the names of the necks, in order.

    Example:
        >>> list_necks()
        ['fpn', 'mla']
    """
    return NECKS.names()


def head_class(name: str) -> type[DecodeHead]:
    """Look up the head of a short name (``"psp"``) or of its published class name (``"PSPHead"``).

    Raises:
        UnknownNameError: No such head; suggests the nearest.

    Example:
        >>> head_class("psp") is head_class("PSPHead")
        True
    """
    return _by_class(HEADS).get(name) or HEADS.find(name)


def neck_class(name: str) -> type[Neck]:
    """Look up the neck of a short name (``"fpn"``) or of its published class name (``"FPN"``).

    Raises:
        UnknownNameError: No such neck; suggests the nearest.
    """
    return _by_class(NECKS).get(name) or NECKS.find(name)


def _by_class(classes: Iterable[type[_M]]) -> dict[str, type[_M]]:
    return {cls.__name__: cls for cls in classes}


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what constructors here take; nested configurations stay, ``*_act_cfg`` become flags, an eps an option."""
    kept = {key: value for key, value in config.items() if key not in _DROPPED}
    if "dw_act_cfg" in kept:
        kept["dw_act"] = kept.pop("dw_act_cfg") is not None
    norm = kept.pop("norm_layer", None) or config.get("norm_cfg")
    return {**kept, **_norm_eps(norm)}


def _norm_eps(norm: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the eps of a layer norm's configuration, where it has one."""
    return {"norm_eps": norm["eps"]} if norm and norm.get("type") == "LN" and "eps" in norm else {}


def build_from_config(config: Mapping[str, Any], **changes: Any) -> nn.Module:
    """Build a head or neck from a published configuration.

    Args:
        config: ``type`` is the published class name; the rest are its options. What concerns training is left out.
        changes: Options that replace those of `config`.

    Returns:
        The module, with random weights.

    Raises:
        UnknownNameError: No such class.

    Example:
        >>> import torch
        >>> config = {"type": "FCNHead", "in_channels": 16, "channels": 8, "norm_cfg": {"type": "BN"}}
        >>> head = build_from_config(config, num_classes=3)
        >>> head([torch.zeros(2, 16, 8, 16)]).shape
        torch.Size([2, 3, 8, 16])
    """
    known: dict[str, type[nn.Module]] = {**_by_class(HEADS), **_by_class(NECKS)}
    name = str(config["type"])
    if name not in known:
        raise UnknownNameError("head or neck", name, known)
    return known[name](**{**_options(config), **changes})
