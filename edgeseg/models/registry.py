"""The registry: one name, one builder, one `ModelSpec`. Families register with `register` where they are defined."""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgeseg.errors import EdgesegError, UnknownNameError, UsageError
from edgeseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["create_model", "list_models", "model_spec", "register"]


class Builder(Protocol):
    """Builds a network in its published inference form; every option is keyword-only."""

    def __call__(self, *, num_classes: int) -> nn.Module:
        """Build the network with `num_classes` output channels and random weights."""
        ...


_B = TypeVar("_B", bound=Callable[..., "nn.Module"])
_BUILDERS: dict[str, Callable[..., nn.Module]] = {}
_SPECS: dict[str, ModelSpec] = {}
_loaded = False


def register(spec: ModelSpec, *, name: str | None = None) -> Callable[[_B], _B]:
    """Register a builder under its function name (or `name`).

    Raises:
        EdgesegError: The name is taken; the message names both modules.
    """

    def decorate(builder: _B) -> _B:
        key = name or builder.__name__
        if key in _BUILDERS:
            first, second = _BUILDERS[key].__module__, builder.__module__
            raise EdgesegError(f"network '{key}' is registered twice: in {first} and in {second}; rename one")
        _BUILDERS[key] = builder
        _SPECS[key] = spec.but(name=key)
        return builder

    return decorate


def _load_families() -> None:
    """Import every family module beside this one, once; importing registers its networks."""
    global _loaded
    if _loaded:
        return
    machinery = {"registry", "spec", "checkpoints", "count", "facts", "features", "suggest"}
    package = importlib.import_module("edgeseg.models")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg and module.name not in machinery:
            importlib.import_module(f"edgeseg.models.{module.name}")
    _loaded = True


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell pattern, in natural order (q3, q5, q8, q10)."""
    _load_families()
    return sorted(fnmatch.filter(_BUILDERS, pattern), key=_natural)


def model_spec(name: str) -> ModelSpec:
    """The `ModelSpec` of a registered network.

    Raises:
        UnknownNameError: No such network; suggests the nearest names.
    """
    _load_families()
    if name not in _SPECS:
        raise UnknownNameError("network", name, _SPECS, hint="`edgeseg models` lists them.")
    return _SPECS[name]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    weights: str | Path | None = None,
    aux: bool = False,
    features_only: bool = False,
) -> nn.Module:
    """Build a registered network in eval mode.

    Args:
        name: Registry name, such as ``"espnet_p2_q8"``.
        num_classes: Output channels. Without it: what `weights` holds, else the published number.
        weights: A published checkpoint (PyTorch, Paddle, safetensors); without it the weights are random.
        aux: Build the training-only parts too (auxiliary, detail and boundary heads). Inference does not use them.
        features_only: Return the network as a backbone: its forward gives maps at several strides (`Features`).

    Returns:
        A module whose ``forward`` takes float images (N, 3, H, W), normalised as `model_spec(name).input` says, and
        returns logits (N, num_classes, h, w) at the network's own stride.

    Raises:
        UnknownNameError: No such network.
        UsageError: `num_classes` is not positive, or the network has no training-only parts or no features.
        CheckpointError: The checkpoint cannot be read or does not fit.
    """
    from edgeseg.models import checkpoints
    from edgeseg.models.features import Features

    spec = model_spec(name)
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"num_classes is {num_classes}; it must be at least 1")
    state = None if weights is None else checkpoints.read_checkpoint(weights)
    if num_classes is None:
        held = None if state is None else checkpoints.held_classes(state, spec.classes_key)
        num_classes = held or spec.num_classes
    module = _build(name, num_classes, aux).eval()
    if state is not None:
        checkpoints.load_state(module, state, what=f"{name} with {num_classes} classes", name=name)
    return Features(module).eval() if features_only else module


def _build(name: str, num_classes: int, aux: bool) -> nn.Module:
    if not aux:
        return _BUILDERS[name](num_classes=num_classes)
    if "aux" not in inspect.signature(_BUILDERS[name]).parameters:
        raise UsageError(f"network '{name}' has no training-only parts; leave out aux")
    return _BUILDERS[name](num_classes=num_classes, aux=True)


def build_on_meta(name: str, num_classes: int | None = None, *, aux: bool = False) -> nn.Module:
    """Build a registered network without allocating its weights (for counting and comparing keys)."""
    import torch

    spec = model_spec(name)
    with torch.device("meta"):
        return _build(name, num_classes or spec.num_classes, aux)
