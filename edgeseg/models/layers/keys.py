"""Placing modules under dotted names, so that our keys are the published ones."""

from __future__ import annotations

from torch import nn

__all__ = ["put_module"]


def put_module(owner: nn.Module, path: str, module: nn.Module) -> None:
    """Add `module` to `owner` under a dotted path; what is missing on the way becomes a plain container."""
    *parents, leaf = path.split(".")
    for name in parents:
        if name not in owner._modules:
            owner.add_module(name, nn.Module())
        owner = owner.get_submodule(name)
    owner.add_module(leaf, module)
