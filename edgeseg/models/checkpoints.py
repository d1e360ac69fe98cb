"""Reading published checkpoints and loading them by their own keys.

Formats: PyTorch (``.pth``, ``.pt``: plain, or wrapped in ``state_dict``, ``model``, ``module.`` and the like),
safetensors, Paddle (``.pdparams``), and ONNX initialisers. Networks keep the published key names, so loading is strict;
what differs between frameworks (Paddle's ``_mean`` and transposed Linear weights) is translated here, once.

Nothing is ever unpickled that could run code: PyTorch files are read with ``weights_only=True``, Paddle files by an
unpickler that knows numpy arrays and nothing else.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError

__all__ = ["held_classes", "load_state", "read_checkpoint", "state_from_arrays"]

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "ema", "network", "weights", "params")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_PICKLED = re.compile(r"GLOBAL |allowlisted|unrecognized function|must be imported|is blocked")
_LOSS = re.compile(r"^(module\.)?(\w*loss\w*|criterion)\.")
_COUNTER = re.compile(r"(^|\.)num_batches_tracked$")
_PADDLE_LEAVES = {"_mean": "running_mean", "_variance": "running_var", "_weight": "weight"}
_PADDLE_NAME = "StructuredToParameterName@@"


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a checkpoint file into a flat state dict.

    Args:
        path: ``.pth``, ``.pt``, ``.ckpt``, ``.safetensors``, ``.pdparams`` or ``.onnx``.

    Returns:
        Tensors on the CPU in their stored type, wrappers and ``module.`` prefixes removed.

    Raises:
        CheckpointError: Missing, empty, truncated, needs pickle, or holds no tensors.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"no checkpoint at '{file}'; give the path of a weights file")
    if file.stat().st_size == 0:
        raise CheckpointError(f"checkpoint '{file}' is empty (0 bytes); download or copy it again")
    readers = {".safetensors": _read_safetensors, ".pdparams": _read_paddle, ".onnx": _read_onnx}
    loaded = readers.get(file.suffix.lower(), _read_torch)(file)
    state = _unwrap(loaded)
    if not state:
        kind = type(loaded).__name__
        raise CheckpointError(f"checkpoint '{file}' holds no tensors (found a {kind}); expected a state dict")
    return _strip_prefixes(state)


def state_from_arrays(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict from numpy arrays, keeping their precision; reads as if it came from a file."""
    return {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}


def held_classes(state: Mapping[str, Tensor], key: str) -> int | None:
    """Number of classes a checkpoint was trained with: first dimension of tensor `key`, None where it is absent."""
    tensor = state.get(key)
    return int(tensor.shape[0]) if tensor is not None and tensor.ndim > 0 else None


def load_state(module: nn.Module, state: Mapping[str, Tensor], *, what: str, name: str = "") -> None:
    """Load `state` into `module` strictly, translating Paddle's conventions; precision stays that of the module.

    A module may declare ``checkpoint_ignores``: regular expressions of published keys it does not hold (dead or
    training-only parts, constants), and ``checkpoint_optional``: of own keys that a checkpoint may lack, because the
    constructor sets them. A tensor with two names needs one of them only.

    Args:
        module: The network; double it first to load float64 without rounding.
        state: Tensors by published key.
        what: Names the network in messages.
        name: Its registry name; with it, a checkpoint that does not fit is compared with every registered network.

    Raises:
        CheckpointError: Missing or unexpected keys, or shapes that differ; lists them and names a network that fits.
    """
    given = state
    state = _from_paddle(_without_ignored(state, module), module)
    target = module.state_dict()
    state = {**state, **_aliases(module, state)}
    optional = getattr(module, "checkpoint_optional", ())
    missing = [key for key in target if key not in state and not _COUNTER.search(key) and not _matches(key, optional)]
    unexpected = [key for key in state if key not in target and not _COUNTER.search(key)]
    shapes = [key for key in state if key in target and state[key].shape != target[key].shape]
    if missing or unexpected or shapes:
        problem = _describe_misfit(what, target, state, missing, unexpected, shapes)
        raise CheckpointError(problem + _suggest_network(given, name))
    module.load_state_dict({key: value for key, value in state.items() if key in target}, strict=False)


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(re.search(pattern, key) for pattern in patterns)


def _without_ignored(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Drop the published keys that the module declares not to hold."""
    ignores = getattr(module, "checkpoint_ignores", ())
    return {key: value for key, value in state.items() if not _matches(key, ignores)}


def _aliases(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values of absent keys whose tensor the module shares with a key that is present."""
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


def _read_torch(file: Path) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _PICKLED.search(str(error)):
            raise CheckpointError(
                f"checkpoint '{file}' holds pickled objects besides tensors, which could run code and are not loaded; "
                "re-save its state dict where you trust it: torch.save(model.state_dict(), 'weights.pth')"
            ) from error
        raise CheckpointError(
            f"checkpoint '{file}' is damaged or not a PyTorch file; download or copy it again"
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        IndexError,
        struct.error,
    ) as error:
        raise CheckpointError(
            f"checkpoint '{file}' is damaged or truncated ({_first_line(error)}); download or copy it again"
        ) from error


def _read_safetensors(file: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint '{file}' is not a whole safetensors file ({_first_line(error)}); download or copy it again"
        ) from error


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays in plain containers and refuses everything else."""

    _ALLOWED = frozenset(
        {
            ("collections", "OrderedDict"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "scalar"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise CheckpointError(
                f"the Paddle checkpoint holds a pickled {module}.{name}, which could run code and is not loaded; "
                "re-save it where you trust it with paddle.save(model.state_dict(), 'weights.pdparams')"
            )
        return super().find_class(module.replace("numpy._core", "numpy.core") if np.__version__ < "2" else module, name)


def _read_paddle(file: Path) -> object:
    try:
        with file.open("rb") as stream:
            loaded = _ArrayUnpickler(stream).load()
    except (pickle.UnpicklingError, EOFError, ValueError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint '{file}' is damaged or truncated ({_first_line(error)}); download or copy it again"
        ) from error
    if isinstance(loaded, dict):
        loaded.pop(_PADDLE_NAME, None)
    return loaded


def _read_onnx(file: Path) -> object:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import numpy_helper

    try:
        graph = onnx.load(file).graph
    except (DecodeError, OSError, ValueError) as error:
        raise CheckpointError(f"'{file}' is not a whole ONNX file ({_first_line(error)}); copy it again") from error
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _unwrap(loaded: object) -> dict[str, Tensor]:
    """Flat tensors of a loaded object, looking through the usual wrappers."""
    if not isinstance(loaded, Mapping):
        return {}
    for key in _WRAPPERS:
        inner = loaded.get(key)
        if isinstance(inner, Mapping) and any(isinstance(v, (Tensor, np.ndarray)) for v in inner.values()):
            return _unwrap(inner)
    tensors: dict[str, Tensor] = {}
    for key, value in loaded.items():
        if isinstance(value, np.ndarray):
            tensors[str(key)] = torch.from_numpy(np.array(value))
        elif isinstance(value, Tensor):
            tensors[str(key)] = value.detach()
    return tensors


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove a wrapper's prefix as long as every key carries it; a training wrapper's loss constants go with it."""
    while True:
        network = [key for key in state if not _LOSS.search(key)]
        prefix = next((p for p in _PREFIXES if network and all(key.startswith(p) for key in network)), None)
        if prefix is None:
            return state
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _from_paddle(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Translate Paddle's BatchNorm statistics, PReLU slopes and transposed Linear weights; others pass unchanged."""
    if not any(key.endswith(("._mean", "._variance")) for key in state):
        return dict(state)
    linear = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    translated: dict[str, Tensor] = {}
    for key, value in state.items():
        stem, _, leaf = key.rpartition(".")
        new = f"{stem}.{_PADDLE_LEAVES[leaf]}" if leaf in _PADDLE_LEAVES else key
        translated[new] = value.t() if new in linear else value
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
        told = [f"{key}: got {list(state[key].shape)}, expected {list(target[key].shape)}" for key in shapes]
        parts.append(f"{len(shapes)} of another shape ({_some(told)})")
    return f"the checkpoint does not fit {what}: of {len(target)} keys " + ", ".join(parts)


def _suggest_network(state: Mapping[str, Tensor], name: str) -> str:
    """Name a registered network whose keys and shapes the checkpoint has, or the nearest one."""
    if not name:
        return ""
    from edgeseg.models import registry

    shares = {candidate: _share(state, candidate) for candidate in (name, *registry.list_models())}
    best = max(shares, key=lambda candidate: shares[candidate])
    share = shares[best]
    if share == 1.0 and best != name:
        return f"; it fits '{best}': use that name"
    if share == 1.0:
        held = held_classes(state, registry.model_spec(name).classes_key)
        return f"; it fits '{name}' with {held} classes: pass num_classes={held}, or none to take them from the file"
    if share < 0.5:
        return "; no registered network has these tensors"
    return f"; the nearest network is '{best}' ({share:.0%} of the tensors agree): check the variant"


def _share(state: Mapping[str, Tensor], candidate: str) -> float:
    """Share of tensors that a registered network, built with the checkpoint's number of classes, has in common."""
    from edgeseg.models import registry

    try:
        module = registry.build_on_meta(candidate, held_classes(state, registry.model_spec(candidate).classes_key))
    except (RuntimeError, ValueError):  # this number of classes cannot be built
        return 0.0
    return _overlap(module.state_dict(), _from_paddle(_without_ignored(state, module), module))


def _overlap(target: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> float:
    """Share of tensors (counters aside) present on both sides with one shape."""
    ours = {key: tuple(value.shape) for key, value in target.items() if not _COUNTER.search(key)}
    theirs = {key: tuple(value.shape) for key, value in state.items() if not _COUNTER.search(key)}
    same = sum(1 for key, shape in ours.items() if theirs.get(key) == shape)
    return same / max(1, len(ours.keys() | theirs.keys()))


def _some(items: Iterable[str], limit: int = 4) -> str:
    listed = list(items)
    more = f", and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
