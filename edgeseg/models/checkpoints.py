"""Reading published checkpoints and loading them by their own keys.

Formats: PyTorch (``.pth``, ``.pt``: plain, or wrapped in ``state_dict``, ``model``, ``module.`` and the like),
safetensors, Paddle (``.pdparams``), and ONNX initialisers. Networks keep the published key names, so loading is strict;
what differs between frameworks (Paddle's ``_mean`` and transposed Linear weights) is translated here, once.

Nothing of a file ever runs, and what it states is checked before memory is taken: see `edgeseg.models.readers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError
from edgeseg.models.readers import Inert, Tree, UnreadableError, Unsupported, Value, damaged, read_tree, stands_for
from edgeseg.text import first_line, one_line

__all__ = [
    "COUNTER",
    "PADDLE_LEAVES",
    "Checkpoint",
    "PaddleState",
    "from_paddle",
    "is_paddle",
    "load_state",
    "open_checkpoint",
    "read_checkpoint",
    "state_from_arrays",
    "stored_classes",
    "without_ignored",
]

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "ema", "network", "weights", "params")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_SAVE_PLAIN = "save plain tensors of numbers: torch.save(model.state_dict(), 'weights.pth')"
_LONGEST_KEY = 1000
_DEEPEST = 8
_PADDLE_NAMES = "StructuredToParameterName@@"
_WORD = re.compile(r"\w+")
COUNTER = re.compile(r"(^|\.)num_batches_tracked$")
"""Keys that count training steps; inference does without."""
PADDLE_LEAVES = {"_mean": "running_mean", "_variance": "running_var", "_weight": "weight"}
"""What Paddle calls a tensor, and PyTorch."""


class PaddleState(dict[str, Tensor]):
    """Tensors of a file that Paddle wrote: its Linear weights are transposed, whatever its other tensors are called."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file gives.

    Attributes:
        state: Tensors by key, on the CPU in their stored type, wrappers and ``module.`` prefixes removed.
        skipped: Names of classes whose objects the file holds besides, which were not built.
    """

    state: dict[str, Tensor]
    skipped: tuple[str, ...] = ()


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a checkpoint file into a flat state dict; `open_checkpoint` also lists what was skipped.

    Args:
        path: ``.pth``, ``.pt``, ``.ckpt``, ``.safetensors``, ``.pdparams`` or ``.onnx``.

    Returns:
        Tensors on the CPU in their stored type, wrappers and ``module.`` prefixes removed.

    Raises:
        CheckpointError: Missing, empty, truncated, of another kind, could run code, or holds no tensors.

    Example:
        >>> torch.save({"state_dict": {"module.head.bias": torch.ones(2)}}, "weights.pth")
        >>> read_checkpoint("weights.pth")
        {'head.bias': tensor([1., 1.])}
    """
    return open_checkpoint(path).state


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint file.

    Nothing of the file runs, and no size that it states is believed before it was compared with the file's own. Objects
    that are neither tensors nor plain values (a training run's) are passed over.

    Args:
        path: As `read_checkpoint` takes.

    Raises:
        CheckpointError: As `read_checkpoint`.

    Example:
        >>> torch.save({"model": {"head.bias": torch.ones(2)}, "options": torch.nn.ReLU()}, "epoch_9.pth")
        >>> checkpoint = open_checkpoint("epoch_9.pth")
        >>> list(checkpoint.state), checkpoint.skipped
        (['head.bias'], ('torch.nn.modules.activation.ReLU',))
    """
    file = Path(path)
    shown = one_line(file)
    try:
        if file.is_dir():
            raise CheckpointError(f"no checkpoint at '{shown}', which is a folder; give the weights file in it")
        if not file.is_file():
            raise CheckpointError(f"no checkpoint at '{shown}'; give the path of a weights file")
        if file.stat().st_size == 0:
            raise CheckpointError(f"checkpoint '{shown}' is empty (0 bytes); download or copy it again")
        tree = read_tree(file)
        state = _flat(tree)
    except UnreadableError as error:
        raise CheckpointError(f"checkpoint '{shown}' {error}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint '{shown}' cannot be read ({first_line(error, 120)}); check the path and your permission"
        ) from error
    if not state:
        raise CheckpointError(f"checkpoint '{shown}' {_without_tensors(tree)}")
    written_by_paddle = file.suffix.lower() == ".pdparams" or _has_paddle_names(tree.root)
    return Checkpoint(_strip_prefixes(PaddleState(state) if written_by_paddle else state), tree.skipped)


def _has_paddle_names(root: object) -> bool:
    return isinstance(root, dict) and _PADDLE_NAMES in root


def state_from_arrays(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a state dict from numpy arrays, keeping their precision; reads as if it came from a file."""
    return {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}


def stored_classes(state: Mapping[str, Tensor], key: str) -> int | None:
    """Return the number of classes a checkpoint was trained with: the first side of tensor `key`, None without it."""
    tensor = state.get(key)
    return int(tensor.shape[0]) if tensor is not None and tensor.ndim > 0 else None


def load_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    what: str,
    suggest: Callable[[Mapping[str, Tensor]], str] | None = None,
) -> None:
    """Load `state` into `module` strictly, translating Paddle's conventions; precision stays that of the module.

    A module may declare ``checkpoint_ignores``: regular expressions of published keys it does not hold (dead or
    training-only parts, constants), and ``checkpoint_optional``: of own keys that a checkpoint may lack, because the
    constructor sets them. A tensor with two names needs one of them only.

    Args:
        module: The network; double it first to load float64 without rounding.
        state: Tensors by published key.
        what: Names the network in messages.
        suggest: Gives the end of the sentence for a checkpoint that does not fit, such as the network that it does fit.

    Raises:
        CheckpointError: Missing or unexpected keys, or shapes that differ; lists them and names a network that fits.

    Example:
        >>> module = nn.Conv2d(1, 2, 1)
        >>> load_state(module, {"weight": torch.ones(2, 1, 1, 1), "bias": torch.zeros(2)}, what="a convolution")
        >>> module.weight.flatten().tolist()
        [1.0, 1.0]
        >>> load_state(module, {"weight": torch.ones(2, 1, 1, 1)}, what="a convolution")
        Traceback (most recent call last):
        edgeseg.errors.CheckpointError: the checkpoint does not fit a convolution: of 2 keys 1 missing (bias)
    """
    given = state
    state = from_paddle(without_ignored(state, module), module)
    target = module.state_dict()
    state = {**state, **_aliases(module, state)}
    optional = getattr(module, "checkpoint_optional", ())
    missing = [key for key in target if key not in state and not COUNTER.search(key) and not _matches(key, optional)]
    unexpected = [key for key in state if key not in target and not COUNTER.search(key)]
    shapes = [key for key in state if key in target and state[key].shape != target[key].shape]
    if missing or unexpected or shapes:
        problem = _describe_misfit(what, target, state, missing, unexpected, shapes)
        raise CheckpointError(problem + (suggest(given) if suggest else ""))
    complexes = [key for key in state if state[key].is_complex() and key in target and not target[key].is_complex()]
    if complexes:
        raise CheckpointError(
            f"the checkpoint holds complex numbers ({_some(complexes)}) where {what} has real ones; "
            "save the weights as real numbers"
        )
    module.load_state_dict({key: value for key, value in state.items() if key in target}, strict=False)


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(re.search(pattern, key) for pattern in patterns)


def without_ignored(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Drop the published keys that the module declares not to hold."""
    ignores = getattr(module, "checkpoint_ignores", ())
    return _like(state, {key: value for key, value in state.items() if not _matches(key, ignores)})


def _like(state: Mapping[str, Tensor], kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what is kept of a state, as Paddle's where it was."""
    return PaddleState(kept) if isinstance(state, PaddleState) else kept


def _aliases(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of absent keys whose tensor the module shares with a key that is present."""
    by_tensor: dict[int, list[str]] = {}
    for key, tensor in (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ):
        by_tensor.setdefault(id(tensor), []).append(key)
    found: dict[str, Tensor] = {}
    for keys in by_tensor.values():
        present = next((key for key in keys if key in state), None)
        if present is not None:
            found.update({key: state[present] for key in keys if key not in state})
    return found


def _flat(tree: Tree) -> dict[str, Tensor]:
    """Return the tensors of a tree, looking through the usual wrappers; each is read once, and those left out never."""
    found = {key: note for key, note in _unwrap(tree.root).items() if note is not None}
    arrays = {id(note): note.kept for note in found.values() if not isinstance(note, Unsupported)}
    if sum(arrays.values()) > tree.size:
        raise damaged("its arrays hold the same bytes many times")
    made: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    for key, note in found.items():
        if len(key) > _LONGEST_KEY:
            raise damaged(f"a tensor's name has {len(key):,} characters")
        if isinstance(note, Unsupported):
            raise UnreadableError(f"holds {note.kind}, '{one_line(key, 80)}', which edgeseg does not take", _SAVE_PLAIN)
        if id(note) not in made:
            made[id(note)] = note.tensor()
        state[key] = made[id(note)]
    return state


def _without_tensors(tree: Tree) -> str:
    """Return what a file without tensors holds instead, and what to do."""
    kind = f"pickled {tree.root.name}" if isinstance(tree.root, Inert) else type(tree.root).__name__
    names = one_line(", ".join(tree.skipped), 100)
    others = f" and holds pickled objects besides tensors, which are not built ({names})" if names else ""
    return (
        f"holds no tensors (found a {one_line(kind, 60)}){others}; expected a state dict: "
        "torch.save(model.state_dict(), 'weights.pth')"
    )


def _unwrap(root: object) -> dict[str, Value | Unsupported | None]:
    """Return what stands for a tensor, by key, in the innermost of the usual wrappers; None for other values."""
    for _ in range(_DEEPEST):
        if not isinstance(root, dict):
            return {}
        notes = {str(key): stands_for(value) for key, value in root.items()}
        inner = next((root[key] for key in _WRAPPERS if _holds_tensors(root.get(key))), None)
        if inner is None:
            return notes
        root = inner
    return {}


def _holds_tensors(value: object) -> bool:
    return isinstance(value, dict) and any(stands_for(each) is not None for each in value.values())


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove a wrapper's prefix as long as every key carries it; a training wrapper's loss constants go with it."""
    while True:
        network = [key for key in state if not _of_loss(key)]
        prefix = next((p for p in _PREFIXES if network and all(key.startswith(p) for key in network)), None)
        if prefix is None:
            return state
        state = _like(
            state, {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        )


def _of_loss(key: str) -> bool:
    first = key.removeprefix("module.").split(".", 1)[0]
    return "." in key and (first == "criterion" or ("loss" in first and _WORD.fullmatch(first) is not None))


def is_paddle(keys: Iterable[str]) -> bool:
    """Check whether a state was read from Paddle's own file, or its keys are as Paddle names them."""
    return isinstance(keys, PaddleState) or any(key.endswith(("._mean", "._variance")) for key in keys)


def from_paddle(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Translate Paddle's BatchNorm statistics, PReLU slopes and transposed Linear weights; others pass unchanged."""
    if not is_paddle(state):
        return dict(state)
    linear = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    translated: dict[str, Tensor] = {}
    for key, value in state.items():
        stem, _, leaf = key.rpartition(".")
        new = f"{stem}.{PADDLE_LEAVES[leaf]}" if leaf in PADDLE_LEAVES else key
        translated[new] = value.t() if new in linear and value.ndim == 2 else value
    return translated


def _describe_misfit(
    what: str,
    target: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({_some(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected ({_some(unexpected)})")
    if shapes:
        differing = [
            f"{_shown(key)}: got {list(state[key].shape)}, expected {list(target[key].shape)}" for key in shapes
        ]
        parts.append(f"{len(shapes)} of another shape ({_some(differing)})")
    return f"the checkpoint does not fit {what}: of {len(target)} keys " + ", ".join(parts)


def _some(items: Iterable[str], limit: int = 4) -> str:
    listed = list(items)
    more = f", and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(one_line(item, 200) for item in listed[:limit]) + more


def _shown(key: str) -> str:
    return one_line(key, 100)
