"""The ``torch`` target: plain PyTorch, the reference the others are compared with."""

from __future__ import annotations

__all__ = ["TORCH_WEIGHTS"]

TORCH_WEIGHTS = "torch/weights.safetensors"
"""File of a bundle with the network's weights."""
