"""Heads and necks by name, and from the configurations that mmsegmentation publishes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from edgeseg.errors import EdgesegError, UnknownNameError
from edgeseg.models.heads.base import DecodeHead, Neck

__all__ = [
    "build_from_config",
    "head_class",
    "list_heads",
    "list_necks",
    "neck_class",
    "register_head",
    "register_neck",
]

_H = TypeVar("_H", bound=DecodeHead)
_K = TypeVar("_K", bound=Neck)
_M = TypeVar("_M", bound=nn.Module)
_HEADS: dict[str, type[DecodeHead]] = {}
_NECKS: dict[str, type[Neck]] = {}
_DROPPED = {
    "type", "conv_cfg", "norm_cfg", "act_cfg", "init_cfg", "sampler", "ignore_index", "loss_decode", "loss_se_decode",
    "momentum", "pretrained", "drop_rate", "attn_drop_rate", "drop_path_rate", "init_std",
}  # fmt: skip
"""Published options that say nothing about inference, or what every head here has: BN and ReLU."""


def _free(kind: str, name: str, table: Mapping[str, type[nn.Module]], cls: type[nn.Module]) -> None:
    if name in table:
        raise EdgesegError(f"{kind} '{name}' is registered twice: in {table[name].__module__} and in {cls.__module__}")


def register_head(name: str) -> Callable[[type[_H]], type[_H]]:
    """Register a head under a short name such as ``"psp"``; its class has the published name.

    Raises:
        EdgesegError: The name is taken.
    """

    def decorate(cls: type[_H]) -> type[_H]:
        _free("head", name, _HEADS, cls)
        _HEADS[name] = cls
        return cls

    return decorate


def register_neck(name: str) -> Callable[[type[_K]], type[_K]]:
    """Register a neck; see `register_head`.

    Raises:
        EdgesegError: The name is taken.
    """

    def decorate(cls: type[_K]) -> type[_K]:
        _free("neck", name, _NECKS, cls)
        _NECKS[name] = cls
        return cls

    return decorate


def _load_families() -> None:
    """Import every module of this package; importing registers its heads."""
    package = importlib.import_module("edgeseg.models.heads")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"edgeseg.models.heads.{module.name}")


def list_heads() -> list[str]:
    """Names of the heads, in order."""
    _load_families()
    return sorted(_HEADS)


def list_necks() -> list[str]:
    """Names of the necks, in order."""
    _load_families()
    return sorted(_NECKS)


def head_class(name: str) -> type[DecodeHead]:
    """The head of a short name (``"psp"``) or of its published class name (``"PSPHead"``).

    Raises:
        UnknownNameError: No such head; suggests the nearest.
    """
    _load_families()
    return _find("head", _HEADS, name)


def neck_class(name: str) -> type[Neck]:
    """The neck of a short name (``"fpn"``) or of its published class name (``"FPN"``).

    Raises:
        UnknownNameError: No such neck; suggests the nearest.
    """
    _load_families()
    return _find("neck", _NECKS, name)


def _find(kind: str, table: Mapping[str, type[_M]], name: str) -> type[_M]:
    by_class = {cls.__name__: cls for cls in table.values()}
    if name not in table and name not in by_class:
        raise UnknownNameError(kind, name, table)
    return table[name] if name in table else by_class[name]


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What our constructors take: nested configurations stay, ``*_act_cfg`` become flags, an eps its own option."""
    kept = {key: value for key, value in config.items() if key not in _DROPPED}
    if "dw_act_cfg" in kept:
        kept["dw_act"] = kept.pop("dw_act_cfg") is not None
    norm = kept.pop("norm_layer", None) or config.get("norm_cfg")
    return {**kept, **_norm_eps(norm)}


def _norm_eps(norm: Mapping[str, Any] | None) -> dict[str, float]:
    """The eps of a layer norm's configuration, where it tells one."""
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
    """
    _load_families()
    known = {cls.__name__: cls for cls in (*_HEADS.values(), *_NECKS.values())}
    return _find("head or neck", known, str(config["type"]))(**{**_options(config), **changes})
