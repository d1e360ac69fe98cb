"""The names that a checkpoint's tensors may have in the network: as stored, or with shared prefixes cut or added.

Wrappers put a component in front of every key (``module.``, ``model.``, ``_orig_mod.``), and networks are saved with or
without them. Which is right is not guessed from the name of the prefix: the forms are tried on the network in turn.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

__all__ = ["Form", "key_forms", "leading_groups", "of_training", "plain_names"]

_USUAL = ("module.", "_orig_mod.", "model.")
_INSIDE = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_DEEPEST = 8
_WORD = re.compile(r"\w+")
_COUNTS = ("n_averaged", "decay", "num_updates", "initted", "step")
"""Keys of wrappers that average weights."""


@dataclass(frozen=True)
class Form:
    """New names for a checkpoint's keys.

    Attributes:
        stored: The stored key, by its new name.
        dropped: Keys of training alone, which have none.
        cut: Prefix that every key lost.
        added: Prefix that every key was given.
    """

    stored: dict[str, str]
    dropped: tuple[str, ...] = ()
    cut: str = ""
    added: str = ""

    @property
    def note(self) -> str:
        """A sentence on what was done beyond a usual wrapper's prefix; empty where that is nothing."""
        parts = []
        if self.cut and not self.is_plain:
            parts.append(f"the prefix '{self.cut}' of every key was cut")
        if self.added:
            parts.append(f"the prefix '{self.added}' was put before every key")
        if self.dropped:
            more = ", ..." if len(self.dropped) > 3 else ""
            parts.append(f"keys of training alone were left out: {', '.join(self.dropped[:3])}{more}")
        return "; ".join(parts)

    @property
    def is_plain(self) -> bool:
        """Whether only prefixes of the usual wrappers are cut."""
        return not self.added and all(f"{part}." in _USUAL for part in self.cut.split(".")[:-1])


def key_forms(keys: Collection[str], wanted: Collection[str] = ()) -> Iterator[Form]:
    """Yield the forms that a network's keys may have in a file, as stored first.

    Args:
        keys: Of the checkpoint.
        wanted: Of the network; without them no prefix is added.
    """
    tried: set[tuple[str, ...]] = set()
    prefixes = ("", *_shared_prefixes([key for key in wanted if not of_training(key)]))
    for base in _bases(keys):
        for form in _cuts(base):
            for prefix in prefixes:
                made = Form({f"{prefix}{new}": old for new, old in form.stored.items()}, form.dropped, form.cut, prefix)
                names = tuple(made.stored)
                if names and names not in tried:
                    tried.add(names)
                    yield made


def plain_names(keys: Collection[str]) -> dict[str, str]:
    """Return the stored key by its name without any prefix that all keys share, and without keys of training alone."""
    *_, base = _bases(keys)
    *_, last = _cuts(base)
    return last.stored


def leading_groups(keys: Collection[str]) -> dict[str, list[str]]:
    """Return the keys by their first component; none where there is only one."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        first, dot, _ = key.partition(".")
        if dot:
            groups.setdefault(first, []).append(key)
    return groups if len(groups) > 1 else {}


def _bases(keys: Collection[str]) -> Iterator[Form]:
    """Yield the keys as stored, without those of training alone, and without wrappers inside of the network."""
    stored = Form({key: key for key in keys})
    yield stored
    network = _without_training(stored)
    yield network
    inside = {_without_wrappers(new): old for new, old in network.stored.items()}
    if len(inside) == len(network.stored):
        yield Form(inside, network.dropped)


def _without_training(form: Form) -> Form:
    kept = {new: old for new, old in form.stored.items() if not of_training(new)}
    dropped = tuple(old for new, old in form.stored.items() if new not in kept)
    return Form(kept, dropped) if kept else form


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _INSIDE)


def _cuts(form: Form) -> Iterator[Form]:
    """Yield a form, then the same with each component cut that all its keys begin with."""
    yield form
    for prefix in _shared_prefixes(form.stored):
        yield Form({new.removeprefix(prefix): old for new, old in form.stored.items()}, form.dropped, prefix)


def _shared_prefixes(keys: Collection[str]) -> list[str]:
    """Return the prefixes that all keys have, the shortest first; each leaves a name."""
    if not keys:
        return []
    shortest = min(keys, key=lambda key: key.count(".")).split(".")[:-1]
    prefixes = []
    for count in range(1, min(len(shortest), _DEEPEST) + 1):
        prefix = ".".join(shortest[:count]) + "."
        if not all(key.startswith(prefix) for key in keys):
            break
        prefixes.append(prefix)
    return prefixes


def of_training(key: str) -> bool:
    """Check whether a key is a loss's, or counts the steps that an average was taken over.

    Example:
        >>> of_training("criterion.weight"), of_training("head.weight")
        (True, False)
    """
    inner = key.removeprefix("module.")
    if inner in _COUNTS:
        return True
    first = inner.split(".", 1)[0]
    return "." in inner and (first == "criterion" or ("loss" in first and _WORD.fullmatch(first) is not None))
