"""PyTorch definitions of the networks, one family per file, and the registry that names them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.models.factory import create_model
    from edgeseg.models.registry import list_models, model_spec, register
    from edgeseg.models.spec import ModelSpec, custom_spec

__all__ = ["ModelSpec", "create_model", "custom_spec", "list_models", "model_spec", "register"]

_HOMES = {
    "ModelSpec": "edgeseg.models.spec",
    "create_model": "edgeseg.models.factory",
    "custom_spec": "edgeseg.models.spec",
    "list_models": "edgeseg.models.registry",
    "model_spec": "edgeseg.models.registry",
    "register": "edgeseg.models.registry",
}


def __getattr__(name: str) -> Any:  # the facts of networks that are not built need no torch
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeseg.models' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
