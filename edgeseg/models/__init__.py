"""PyTorch definitions of the networks, one family per file, and the registry that names them."""

from edgeseg.models.registry import create_model, list_models, model_spec, register
from edgeseg.models.spec import ModelSpec

__all__ = ["ModelSpec", "create_model", "list_models", "model_spec", "register"]
