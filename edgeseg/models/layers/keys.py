"""Placing modules under dotted names, and publishing other names than those of the attributes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

__all__ = ["Rule", "publish_keys", "put_module"]

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A regular expression, and what replaces its matches, as ``re.sub`` takes them."""

_Rules = tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]


def put_module(owner: nn.Module, path: str, module: nn.Module) -> None:
    """Add `module` to `owner` under a dotted path; what is missing on the way becomes a plain container."""
    *parents, leaf = path.split(".")
    for name in parents:
        if name not in owner._modules:
            owner.add_module(name, nn.Module())
        owner = owner.get_submodule(name)
    owner.add_module(leaf, module)


def publish_keys(module: nn.Module, rules: Sequence[Rule]) -> None:
    """Give the state dict of a module the key names of another implementation of the same network.

    ``state_dict`` and ``load_state_dict``, of the module and of whatever holds it, then have the published names;
    attributes and ``named_parameters`` keep their own.

    Args:
        module: The network.
        rules: Applied in turn to every own key below `module`; the results must differ.
    """
    compiled = tuple((re.compile(pattern), new) for pattern, new in rules)
    module.register_state_dict_post_hook(partial(_rename_saved, compiled))  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(partial(_rename_loaded, compiled))  # type: ignore[no-untyped-call]


def _published(rules: _Rules, key: str) -> str:
    for pattern, new in rules:
        key = pattern.sub(new, key)
    return key


def _own_keys(module: nn.Module) -> list[str]:
    return [key for key, _ in (*module.named_parameters(), *module.named_buffers())]


def _rename(state: dict[str, Any], prefix: str, table: dict[str, str]) -> None:
    """Rename the entries below `prefix` in place; all are taken out first, since old and new names may overlap."""
    taken = {key: state.pop(key) for key in list(state) if key.startswith(prefix)}
    state.update({prefix + table.get(key[len(prefix) :], key[len(prefix) :]): value for key, value in taken.items()})


def _rename_saved(rules: _Rules, module: nn.Module, state: dict[str, Any], prefix: str, _metadata: object) -> None:
    _rename(state, prefix, {key: _published(rules, key) for key in _own_keys(module)})


def _rename_loaded(rules: _Rules, module: nn.Module, state: dict[str, Any], prefix: str, *_rest: object) -> None:
    _rename(state, prefix, {_published(rules, key): key for key in _own_keys(module)})
