"""Copies of modules, those too that `copy.deepcopy` refuses, and modules without the wrappers of training."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.text import first_line

__all__ = ["copy_module", "unwrap"]

_REGISTRIES = ("_parameters", "_buffers", "_modules")


def unwrap(module: nn.Module) -> nn.Module:
    """Give the module inside DataParallel, DistributedDataParallel and ``torch.compile``.

    Example:
        >>> type(unwrap(nn.DataParallel(nn.Identity()))).__name__
        'Identity'
    """
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def copy_module(module: nn.Module) -> nn.Module:
    """Copy a module.

    Parameters, buffers and submodules are always copies. An attribute that cannot be copied does not matter to them: a
    tensor with a history (an old-style ``weight_norm``, a stored activation) is copied without it, and anything else
    (a lock, a writer) is shared with the original.

    Raises:
        UsageError: The module refuses all the same; names the attribute and the way out.
    """
    try:
        return copy.deepcopy(module)
    except Exception as error:
        refused = error
    memo: dict[int, object] = {}
    kept: list[str] = []
    for _, value in _attributes(module):
        if isinstance(value, Tensor) and value.grad_fn is not None:
            memo[id(value)] = value.detach().clone()
    for name, value in _attributes(module):
        if id(value) not in memo and not _copies(value, memo):
            memo[id(value)] = value
            kept.append(name)
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        which = f" at the attribute {', '.join(kept)}" if kept else ""
        raise UsageError(
            f"a {type(module).__name__} cannot be copied{which} ({first_line(refused)}); remove what cannot be copied, "
            "or export it as package.module:factory, whose module is used as it is"
        ) from error


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
