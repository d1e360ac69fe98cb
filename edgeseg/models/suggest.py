"""Which registered network a checkpoint fits, when it does not fit the one asked for.

Building every network to compare its keys takes long, so a bound comes first: fingerprints (`edgeseg.models.facts`)
bound how many tensors could agree at most, and only the networks with the highest bounds are built.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

from edgeseg.models import registry
from edgeseg.models.checkpoints import (
    COUNTER,
    PADDLE_LEAVES,
    PaddleState,
    from_paddle,
    is_paddle,
    stored_classes,
    without_ignored,
)
from edgeseg.models.facts import Fingerprint, fingerprint_of, read_fingerprints

__all__ = ["Given", "share", "suggest_network", "upper_share"]

_MOST_BUILT = 8
_LEAST = 0.5


def suggest_network(state: Mapping[str, Tensor], name: str) -> str:
    """Name a registered network whose keys and shapes the checkpoint has, or the nearest one.

    Args:
        state: Tensors by published key.
        name: The network asked for.

    Returns:
        The end of a sentence, from its semicolon on.

    Example:
        >>> state = registry.build_on_meta("pidnet_m").state_dict()
        >>> suggest_network(state, "pidnet_s")
        "; it fits 'pidnet_m': use that name"
    """
    best, agreed = _nearest(state, name)
    if agreed == 1.0 and best != name:
        return f"; it fits '{best}': use that name"
    if agreed == 1.0:
        count = stored_classes(state, registry.model_spec(name).classes_key)
        return f"; it fits '{name}' with {count} classes: pass num_classes={count}, or none to take them from the file"
    if agreed < _LEAST:
        return "; no registered network has these tensors"
    return f"; the nearest network is '{best}' ({agreed:.0%} of the tensors agree): check the variant"


def _nearest(state: Mapping[str, Tensor], name: str) -> tuple[str, float]:
    """Return the network with the largest share of tensors in common, and that share; the one asked for wins a tie."""
    order = list(dict.fromkeys((name, *registry.list_models())))
    bounds = _bounds(state, order)
    rank = {candidate: place for place, candidate in enumerate(order)}
    best, agreed = name, -1.0
    for candidate in sorted(order, key=lambda each: (-bounds[each], rank[each]))[:_MOST_BUILT]:
        if bounds[candidate] < max(_LEAST, agreed) or (bounds[candidate] == agreed and rank[candidate] > rank[best]):
            break
        found = share(state, candidate)
        if (found, -rank[candidate]) > (agreed, -rank[best]):
            best, agreed = candidate, found
    return best, agreed


def share(state: Mapping[str, Tensor], candidate: str) -> float:
    """Return the share of tensors in common with a registered network of the checkpoint's number of classes."""
    try:
        module = registry.build_on_meta(candidate, stored_classes(state, registry.model_spec(candidate).classes_key))
    except (RuntimeError, ValueError):  # this number of classes cannot be built
        return 0.0
    target, given = module.state_dict(), from_paddle(without_ignored(state, module), module)
    ours = {key: tuple(value.shape) for key, value in target.items() if not COUNTER.search(key)}
    theirs = {key: tuple(value.shape) for key, value in given.items() if not COUNTER.search(key)}
    same = sum(1 for key, shape in ours.items() if theirs.get(key) == shape)
    return same / max(1, len(ours.keys() | theirs.keys()))


def _bounds(state: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    """Return the largest share that each network could have; 1 for those without a fingerprint."""
    known = read_fingerprints()
    by_ignored: dict[tuple[str, ...], Given] = {}
    bounds = {}
    for name in names:
        print_ = known.get(name)
        if print_ is None:
            bounds[name] = 1.0
            continue
        if print_.ignores not in by_ignored:
            by_ignored[print_.ignores] = Given(state, print_.ignores)
        bounds[name] = upper_share(by_ignored[print_.ignores], print_)
    return bounds


class Given:
    """A checkpoint's side of the comparison.

    Attributes:
        sides: Shapes that each tensor may have, by key as a network names it.
        words: Fingerprints of them all.
        keys: The keys' part of a fingerprint, counted.
    """

    def __init__(self, state: Mapping[str, Tensor], ignores: tuple[str, ...]) -> None:
        paddle = isinstance(state, PaddleState) or is_paddle(key for key in state if not _ignored(key, ignores))
        self.sides = {
            _renamed(key, paddle): _orientations(tuple(value.shape), paddle)
            for key, value in state.items()
            if not COUNTER.search(key) and not _ignored(key, ignores)
        }
        self.words = {fingerprint_of(key, shape) for key, shapes in self.sides.items() for shape in shapes}
        self.keys = Counter(fingerprint_of(key, ()) >> 8 for key in self.sides)


def _ignored(key: str, ignores: tuple[str, ...]) -> bool:
    return any(re.search(pattern, key) for pattern in ignores)


def _renamed(key: str, paddle: bool) -> str:
    stem, _, leaf = key.rpartition(".")
    return f"{stem}.{PADDLE_LEAVES[leaf]}" if paddle and leaf in PADDLE_LEAVES else key


def _orientations(shape: tuple[int, ...], paddle: bool) -> tuple[tuple[int, ...], ...]:
    return (shape, shape[::-1]) if paddle and len(shape) == 2 else (shape,)


def upper_share(given: Given, known: Fingerprint) -> float:
    """Return the largest share of tensors that a checkpoint and a network can have in common."""
    free = [given.sides.get(key) for key in known.free]
    same = len(given.words & known.words) + sum(
        1 for shapes, sides in zip(free, known.free.values(), strict=True) if shapes and _may_be(shapes, sides)
    )
    ours = Counter(word >> 8 for word in known.words)
    common = sum((given.keys & ours).values()) + sum(1 for shapes in free if shapes)
    union = len(known.words) + len(known.free) + len(given.sides) - common
    return min(1.0, same / max(1, union))


def _may_be(shapes: tuple[tuple[int, ...], ...], sides: tuple[int, ...]) -> bool:
    """Check whether one of the shapes has these sides, where 0 stands for a side that follows the number of classes."""
    return any(
        len(shape) == len(sides) and all(side in (0, given) for given, side in zip(shape, sides, strict=True))
        for shape in shapes
    )
