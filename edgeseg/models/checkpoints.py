"""Reading published checkpoints and loading them by their own keys.

Formats: PyTorch (``.pth``, ``.pt``: plain, or wrapped in ``state_dict``, ``model`` and the like), safetensors, Paddle
(``.pdparams``), and ONNX initialisers. Networks keep the published key names, so loading is strict; the prefixes that
wrappers add are cut or added as the network needs them (`edgeseg.models.checkpoint_keys`), and what differs between
frameworks (Paddle's ``_mean`` and transposed Linear weights) is translated here, once.

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
from edgeseg.models.checkpoint_keys import Form, key_forms, leading_groups, of_training
from edgeseg.models.readers import Inert, Tree, UnreadableError, Unsupported, damaged, read_tree
from edgeseg.models.weight_sets import CHOOSE, ROOT, Notes, choose_set
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

_SAVE_PLAIN = "save plain tensors of numbers: torch.save(model.state_dict(), 'weights.pth')"
_LONGEST_KEY = 1000
_PADDLE_NAMES = "StructuredToParameterName@@"
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
        state: Tensors by stored key, on the CPU in their stored type, taken out of wrapping dictionaries.
        skipped: Names of classes whose objects the file holds besides, which were not built.
        key: Of the set of weights that was taken; ``"."`` where the tensors are the file's own.
        others: Keys of the other sets of weights in the file.
        name: Of the file.
    """

    state: dict[str, Tensor]
    skipped: tuple[str, ...] = ()
    key: str = ROOT
    others: tuple[str, ...] = ()
    name: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was chosen and what was passed over."""
        sentences = []
        if self.others:
            others = _some([f"'{_shown(key)}'" for key in self.others])
            sentences.append(f"{self.name}: the weights are those under '{_shown(self.key)}'; not taken: {others}")
        if self.skipped:
            sentences.append(
                f"{self.name}: objects that are no tensors were passed over, not built: {_some(self.skipped)}"
            )
        return tuple(sentences)


def read_checkpoint(path: str | Path, weights_key: str | None = None) -> dict[str, Tensor]:
    """Read a checkpoint file into a flat state dict; `open_checkpoint` also lists what was skipped.

    Args:
        path: ``.pth``, ``.pt``, ``.ckpt``, ``.safetensors``, ``.pdparams`` or ``.onnx``.
        weights_key: As `open_checkpoint` takes.

    Returns:
        Tensors on the CPU in their stored type, by stored key, taken out of wrapping dictionaries.

    Raises:
        CheckpointError: As `open_checkpoint`.

    Example:
        >>> torch.save({"epoch": 3, "state_dict": {"module.head.bias": torch.ones(2)}}, "weights.pth")
        >>> read_checkpoint("weights.pth")
        {'module.head.bias': tensor([1., 1.])}
    """
    return open_checkpoint(path, weights_key).state


def open_checkpoint(path: str | Path, weights_key: str | None = None) -> Checkpoint:
    """Read a checkpoint file.

    Nothing of the file runs, and no size that it states is believed before it was compared with the file's own. Objects
    that are neither tensors nor plain values (a training run's) are passed over.

    Args:
        path: As `read_checkpoint` takes.
        weights_key: The set of weights to take, where the file holds several: the keys of the dictionaries on the way
            to it, joined by dots, or a prefix of the tensors' own keys; ``"."`` is the file's own tensors.

    Raises:
        CheckpointError: Missing, empty, truncated, of another kind, could run code, holds no tensors, or holds several
            sets of weights of which none was named.

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
        chosen = choose_set(tree.root, weights_key)
        state = {} if chosen is None else _flat(chosen.notes, tree.size)
    except UnreadableError as error:
        raise CheckpointError(f"checkpoint '{shown}' {error}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint '{shown}' cannot be read ({first_line(error, 120)}); check the path and your permission"
        ) from error
    if chosen is None or not state:
        raise CheckpointError(f"checkpoint '{shown}' {_without_tensors(tree)}")
    if file.suffix.lower() == ".pdparams" or _has_paddle_names(tree.root):
        state = PaddleState(state)
    return Checkpoint(state, tree.skipped, chosen.key, chosen.others, one_line(file.name))


def _has_paddle_names(root: object) -> bool:
    return isinstance(root, dict) and _PADDLE_NAMES in root


def state_from_arrays(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a state dict from numpy arrays, keeping their precision; reads as if it came from a file."""
    return {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}


def stored_classes(state: Mapping[str, Tensor], key: str) -> int | None:
    """Return the number of classes a checkpoint was trained with: the first side of tensor `key`, None without it.

    The key may have a wrapper's prefix in the file.
    """
    stored = next((form.stored[key] for form in key_forms(state) if key in form.stored), None) if key else None
    tensor = None if stored is None else state[stored]
    return int(tensor.shape[0]) if tensor is not None and tensor.ndim > 0 else None


def load_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    what: str,
    suggest: Callable[[Mapping[str, Tensor]], str] | None = None,
) -> tuple[str, ...]:
    """Load `state` into `module` strictly, translating Paddle's conventions; precision stays that of the module.

    Keys are tried as stored, then with the prefixes that all of them share cut and those of the network's keys added;
    the first form that fits whole is taken.

    A module may declare ``checkpoint_ignores``: regular expressions of published keys it does not hold (dead or
    training-only parts, constants), and ``checkpoint_optional``: of own keys that a checkpoint may lack, because the
    constructor sets them. A tensor with two names needs one of them only.

    Args:
        module: The network; double it first to load float64 without rounding.
        state: Tensors by published key.
        what: Names the network in messages.
        suggest: Gives the end of the sentence for a checkpoint that does not fit, such as the network that it does fit.

    Returns:
        Sentences on what was done to the keys beyond a usual wrapper's prefix.

    Raises:
        CheckpointError: Missing or unexpected keys, or shapes that differ; lists them and names a network that fits.

    Example:
        >>> module = nn.Conv2d(1, 2, 1)
        >>> state = {"model.weight": torch.ones(2, 1, 1, 1), "model.bias": torch.zeros(2)}
        >>> load_state(module, state, what="a convolution")
        ()
        >>> module.weight.flatten().tolist()
        [1.0, 1.0]
        >>> load_state(module, {"weight": torch.ones(2, 1, 1, 1)}, what="a convolution")
        Traceback (most recent call last):
        edgeseg.errors.CheckpointError: the checkpoint does not fit a convolution: of 2 keys 1 missing (bias)
    """
    target = module.state_dict()
    fit = _best_fit(module, target, state)
    if fit.problems:
        ending = _parts_that_fit(module, target, state) or (suggest(fit.given) if suggest else "")
        raise CheckpointError(_describe_misfit(what, target, fit) + ending)
    state = fit.state
    complexes = [key for key in state if state[key].is_complex() and key in target and not target[key].is_complex()]
    if complexes:
        raise CheckpointError(
            f"the checkpoint holds complex numbers ({_some(complexes)}) where {what} has real ones; "
            "save the weights as real numbers"
        )
    module.load_state_dict({key: value for key, value in state.items() if key in target}, strict=False)
    notes = (f"{what}: {one_line(fit.form.note, 400)}",) if fit.form.note else ()
    kept = [key for key in target if of_training(key) and key not in state]
    return (*notes, f"{what}: what is of training alone stays as built: {_some(kept)}") if kept else notes


@dataclass(frozen=True)
class _Fit:
    """How a checkpoint fits a network with its keys in one form.

    Attributes:
        form: Of the keys.
        given: The state in that form.
        state: The same as PyTorch names and lays it, shared tensors under all of their names.
        missing: Keys of the network that the state lacks.
        unexpected: Keys of the state that the network lacks.
        shapes: Keys of both whose shapes differ.
    """

    form: Form
    given: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    missing: list[str]
    unexpected: list[str]
    shapes: list[str]

    @property
    def problems(self) -> int:
        """Keys that do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.shapes)


def _best_fit(module: nn.Module, target: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> _Fit:
    """Return the first form that fits whole; where none does, the nearest, a usual wrapper's prefixes cut."""
    best: _Fit | None = None
    for form in key_forms(state, target):
        fit = _fit(module, target, state, form)
        if not fit.problems:
            return fit
        if best is None or (fit.problems, not form.is_plain) <= (best.problems, not best.form.is_plain):
            best = fit
    return best or _fit(module, target, state, Form({key: key for key in state}))


def _fit(module: nn.Module, target: Mapping[str, Tensor], stored: Mapping[str, Tensor], form: Form) -> _Fit:
    given = _like(stored, {new: stored[old] for new, old in form.stored.items()})
    state: Mapping[str, Tensor] = from_paddle(without_ignored(given, module), module)
    state = {**state, **_aliases(module, state)}
    optional = getattr(module, "checkpoint_optional", ())
    wanted = [key for key in target if not COUNTER.search(key) and not of_training(key)]
    missing = [key for key in wanted if key not in state and not _matches(key, optional)]
    unexpected = [key for key in state if key not in target and not COUNTER.search(key)]
    shapes = [key for key in state if key in target and state[key].shape != target[key].shape]
    return _Fit(form, given, state, missing, unexpected, shapes)


def _parts_that_fit(module: nn.Module, target: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return the end of a sentence that names the parts of a checkpoint that fit by themselves, such as a teacher."""
    fitting = []
    for form in key_forms(state):
        for first, keys in leading_groups(form.stored).items():
            if 2 * len(keys) < len(target):
                continue
            part = _like(state, {key: state[form.stored[key]] for key in keys})
            if not _best_fit(module, target, part).problems:
                fitting.append(f"'{_shown(form.cut + first)}'")
    if not fitting:
        return ""
    return f"; the tensors under {_some(dict.fromkeys(fitting))} fit alone: {CHOOSE}"


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


def _flat(found: Notes, size: int) -> dict[str, Tensor]:
    """Return the tensors of a set in a file that unpacks to `size` bytes; each is read once."""
    arrays = {id(note): note.kept for note in found.values() if not isinstance(note, Unsupported)}
    if sum(arrays.values()) > size:
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


def _describe_misfit(what: str, target: Mapping[str, Tensor], fit: _Fit) -> str:
    parts = []
    if fit.missing:
        parts.append(f"{len(fit.missing)} missing ({_some(fit.missing)})")
    if fit.unexpected:
        parts.append(f"{len(fit.unexpected)} unexpected ({_some(fit.unexpected)})")
    if fit.shapes:
        differing = [
            f"{_shown(key)}: got {list(fit.state[key].shape)}, expected {list(target[key].shape)}" for key in fit.shapes
        ]
        parts.append(f"{len(fit.shapes)} of another shape ({_some(differing)})")
    return f"the checkpoint does not fit {what}: of {len(target)} keys " + ", ".join(parts)


def _some(items: Iterable[str], limit: int = 4) -> str:
    listed = list(items)
    more = f", and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(one_line(item, 200) for item in listed[:limit]) + more


def _shown(key: str) -> str:
    return one_line(key, 100)
