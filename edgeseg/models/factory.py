"""Building registered networks, with or without a checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import nn

from edgeseg.errors import UsageError
from edgeseg.models.checkpoints import Checkpoint, load_state, open_checkpoint, stored_classes
from edgeseg.models.features import Features
from edgeseg.models.registry import build_network, model_spec
from edgeseg.models.suggest import suggest_network

__all__ = ["create_loaded", "create_model"]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    aux: bool = False,
    features_only: bool = False,
) -> nn.Module:
    """Build a registered network in eval mode.

    Args:
        name: Registry name, such as ``"espnet_p2_q8"``.
        num_classes: Output channels. Without it: what `weights` holds, else the published number.
        weights: A published checkpoint (PyTorch, Paddle, safetensors); without it the weights are random.
        weights_key: The set of weights to take, where the file holds several.
        aux: Build the training-only parts too (auxiliary, detail and boundary heads). Inference does not use them.
        features_only: Return the network as a backbone: its forward gives maps at several strides (`Features`).

    Returns:
        A module whose ``forward`` takes float images (N, 3, H, W), normalised as `model_spec(name).input` says, and
        returns logits (N, num_classes, h, w) at the network's own stride.

    Raises:
        UnknownNameError: No such network.
        UsageError: `num_classes` is not positive, or the network has no training-only parts or no features.
        CheckpointError: The checkpoint cannot be read or does not fit.

    Example:
        >>> import torch
        >>> network = create_model("regseg", num_classes=3)
        >>> network(torch.zeros(1, 3, 64, 128)).shape
        torch.Size([1, 3, 16, 32])
        >>> backbone = create_model("regseg", features_only=True)
        >>> [tuple(x.shape) for x in backbone(torch.zeros(1, 3, 64, 128))]
        [(1, 48, 16, 32), (1, 128, 8, 16), (1, 320, 4, 8)]
    """
    model_spec(name)  # an unknown name is told before the file is read
    checkpoint = None if weights is None else open_checkpoint(weights, weights_key)
    module, _ = create_loaded(name, checkpoint, num_classes, aux=aux)
    return Features(module).eval() if features_only else module


def create_loaded(
    name: str, checkpoint: Checkpoint | None, num_classes: int | None = None, *, aux: bool = False
) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a registered network in eval mode, and load a checkpoint that was read.

    Args:
        name: Registry name.
        checkpoint: None for random weights.
        num_classes: As `create_model` takes.
        aux: As `create_model` takes.

    Returns:
        The network, and sentences on what was done to the checkpoint's keys.

    Raises:
        UnknownNameError: No such network.
        UsageError: `num_classes` is not positive, or the network has no training-only parts.
        CheckpointError: The checkpoint does not fit.
    """
    spec = model_spec(name)
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"num_classes is {num_classes}; it must be at least 1")
    if num_classes is None:
        stored = None if checkpoint is None else stored_classes(checkpoint.state, spec.classes_key)
        num_classes = stored or spec.num_classes
    module = build_network(name, num_classes, aux=aux).eval()
    if checkpoint is None:
        return module, ()
    what = f"{name} with {num_classes} classes"
    return module, load_state(module, checkpoint.state, what=what, suggest=partial(suggest_network, name=name))
