"""Copies of modules, those too that `copy.deepcopy` refuses, and modules without the wrappers of training."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from types import CellType, FunctionType, MethodType

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.text import first_line

__all__ = ["copy_module", "unwrap"]

_ATTACHED = ("_trainer", "trainer", "_fabric")
_REGISTRIES = ("_parameters", "_buffers", "_modules")
_HANDLES = frozenset(
    (
        "AveragedModel",
        "DataParallel",
        "DeepSpeedEngine",
        "DistributedDataParallel",
        "MMDataParallel",
        "MMDistributedDataParallel",
        "_FabricModule",
    )
)
"""Classes that hand their calls to ``.module`` as it stands."""


def unwrap(module: nn.Module) -> nn.Module:
    """Give the module inside wrappers that only hand calls on: DataParallel, averaged, ``torch.compile``.

    Example:
        >>> type(unwrap(nn.DataParallel(nn.Identity()))).__name__
        'Identity'
    """
    while True:
        inner = _handed_to(module)
        if inner is None:
            return module
        module = inner


def copy_module(module: nn.Module) -> nn.Module:
    """Copy a module.

    Parameters, buffers and submodules are always copies. An attribute that cannot be copied does not matter to them: a
    tensor with a history (an old-style ``weight_norm``, a stored activation) is copied without it, and anything else
    (a lock, a writer) is shared with the original. So is a trainer, which holds data and other modules.

    Raises:
        UsageError: The module refuses all the same; names the attribute and the way out.
    """
    with torch.no_grad(), warnings.catch_warnings():  # TorchScript's copies have a history otherwise
        warnings.simplefilter("ignore")
        return _copied(module)


def _copied(module: nn.Module) -> nn.Module:
    memo = _trainers(module)
    try:
        return _rebound(copy.deepcopy(module, memo), memo)
    except Exception as error:
        refused = error
    memo = _trainers(module)
    kept: list[str] = []
    for _, value in _attributes(module):
        if isinstance(value, Tensor) and value.grad_fn is not None:
            memo[id(value)] = value.detach().clone()
    for name, value in _attributes(module):
        if id(value) not in memo and not _copies(value, memo):
            memo[id(value)] = value
            kept.append(name)
    try:
        return _rebound(copy.deepcopy(module, memo), memo)
    except Exception as error:
        which = f" at the attribute {', '.join(kept)}" if kept else ""
        raise UsageError(
            f"a {type(module).__name__} cannot be copied{which} ({first_line(refused)}); remove what cannot be copied, "
            "or export it as package.module:factory, whose module is used as it is"
        ) from error


def _rebound(copied: nn.Module, memo: Mapping[int, object]) -> nn.Module:
    """Make functions among a copy's attributes refer to the copy: ``deepcopy`` leaves them with the original's modules.

    A function that ``torch.compile`` gave is the one that was compiled again.
    """
    for part in copied.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, (FunctionType, MethodType)):
                vars(part)[name] = _with_copies(getattr(value, "_torchdynamo_orig_callable", value), memo)
    return copied


def _with_copies(value: object, memo: Mapping[int, object]) -> object:
    """A function or method with the copies of the modules that it refers to; anything else as it is."""
    if isinstance(value, MethodType) and id(value.__self__) in memo:
        return MethodType(value.__func__, memo[id(value.__self__)])
    if not isinstance(value, FunctionType) or not value.__closure__:
        return value
    cells = tuple(_cell_with_copies(cell, memo) for cell in value.__closure__)
    if cells == value.__closure__:
        return value
    made = FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
    made.__kwdefaults__ = value.__kwdefaults__
    return made


def _cell_with_copies(cell: CellType, memo: Mapping[int, object]) -> CellType:
    try:
        held = cell.cell_contents
    except ValueError:  # of a name that has no value yet
        return cell
    found = memo.get(id(held), held) if isinstance(held, nn.Module) else _with_copies(held, memo)
    return cell if found is held else CellType(found)


def _trainers(module: nn.Module) -> dict[int, object]:
    """What runs the training of a LightningModule, to be shared by its copies."""
    attached = [value for name, value in _attributes(module) if name.rpartition(".")[2] in _ATTACHED]
    return {id(value): value for value in attached if value is not None}


def _handed_to(module: nn.Module) -> nn.Module | None:
    """The module that a wrapper hands its calls to; None where it is no such wrapper, or has hooks that may do more."""
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    inner = getattr(module, "_orig_mod", None)
    if inner is None and _HANDLES.intersection(kind.__name__ for kind in type(module).__mro__):
        inner = getattr(module, "module", None)
    return inner if isinstance(inner, nn.Module) else None


def _attributes(module: nn.Module) -> Iterator[tuple[str, object]]:
    """Names and values of all that a module and its submodules hold, but for parameters and submodules."""
    for path, part in module.named_modules():
        buffers = vars(part).get("_buffers") or {}
        plain = {name: value for name, value in vars(part).items() if name not in _REGISTRIES}
        for name, value in {**plain, **buffers}.items():
            yield f"{path}.{name}" if path else name, value


def _copies(value: object, memo: dict[int, object]) -> bool:
    try:
        copy.deepcopy(value, dict(memo))
    except Exception:
        return False
    return True
