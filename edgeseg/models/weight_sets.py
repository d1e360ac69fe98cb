"""Which of a checkpoint's dictionaries are sets of weights, and which one is taken.

A training run stores more than one network: raw and averaged weights, student and teacher, generator and discriminator.
What is meant is taken where the file leaves no doubt; otherwise the sets are listed, and the user names one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgeseg.models.checkpoint_keys import plain_names
from edgeseg.models.readers import UnreadableError, Unsupported, Value, stands_for
from edgeseg.models.readers.parts import TensorNote
from edgeseg.text import one_line

__all__ = ["CHOOSE", "ROOT", "Notes", "WeightSet", "choose_set"]

Notes = dict[str, Value | Unsupported]
"""What stands for each tensor, by key."""
ROOT = "."
"""Names the tensors that stand in the file itself, in no dictionary of their own."""
CHOOSE = "choose one with --weights-key KEY (in Python weights_key=KEY)"
"""What to do where a file holds several sets."""

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "ema", "network", "weights", "params")
_TRAINING = re.compile(r"optim|sched|scaler|(^|_)(amp|rng|random)(_|$)", re.IGNORECASE)
_DEEPEST = 8
_MOST_LISTED = 8
_ALIKE = 0.5


@dataclass(frozen=True)
class WeightSet:
    """A set of weights in a checkpoint.

    Attributes:
        key: Keys of the dictionaries on the way to it, joined by dots; `ROOT` for the file itself.
        notes: What stands for each tensor, by key.
        others: Keys of the other sets in the file.
    """

    key: str
    notes: Notes
    others: tuple[str, ...] = ()


def choose_set(root: object, key: str | None) -> WeightSet | None:
    """Return the set of weights that is meant.

    Args:
        root: Of the tree that was read.
        key: Of the set, as the file has it, or a prefix that its keys share; None where the file must leave no doubt.

    Returns:
        The set; None where the file holds no tensors.

    Raises:
        UnreadableError: Several sets could be meant and none was named, or there is none of this name.
    """
    listed = dict(_sets(root, ()))
    if key is not None:
        chosen = listed.get(ROOT) if key == ROOT else _named(root, key)
        if not chosen and not listed:
            return None
        if not chosen:
            raise UnreadableError(f"holds no weights under '{one_line(key, 80)}'", _held(_networks(listed)))
        return WeightSet(key, chosen, _others(listed, chosen) or _siblings(listed, chosen))
    usual = _usual(root)
    if usual is None:
        found = _networks(listed) or listed
        if len(found) > 1:
            raise _ambiguous(list(found))
        return next((WeightSet(name, notes) for name, notes in found.items()), None)
    alike = [name for name, notes in listed.items() if notes != usual[1] and _are_alike(notes, usual[1])]
    if alike:
        raise _ambiguous([usual[0], *alike])
    return WeightSet(*usual, others=_others(listed, usual[1]))


def _sets(value: object, path: tuple[str, ...], seen: set[int] | None = None) -> Iterator[tuple[str, Notes]]:
    """Yield every dictionary that holds tensors, by its keys, but not those of an optimiser; each once."""
    seen = set() if seen is None else seen
    if not isinstance(value, dict) or id(value) in seen or len(path) > _DEEPEST:
        return
    seen.add(id(value))
    notes = _tensors(value)
    if notes:
        yield ".".join(path) or ROOT, notes
    for key, inner in value.items():
        if isinstance(key, str) and not _TRAINING.search(key):
            yield from _sets(inner, (*path, key), seen)


def _tensors(value: object) -> Notes:
    if not isinstance(value, dict):
        return {}
    notes = {str(key): stands_for(each) for key, each in value.items()}
    return {key: note for key, note in notes.items() if note is not None}


def _usual(root: object) -> tuple[str, Notes] | None:
    """Return the set in the innermost of the usual wrappers, or the file's own tensors; None where there is neither."""
    path: list[str] = []
    for _ in range(_DEEPEST):
        if not isinstance(root, dict):
            return None
        inner = next((key for key in _WRAPPERS if _tensors(root.get(key))), None)
        if inner is None:
            notes = _tensors(root)
            return (".".join(path) or ROOT, notes) if path or any(map(_has_sides, notes.values())) else None
        path.append(inner)
        root = root[inner]
    return None


def _named(value: object, key: str) -> Notes:
    """Return the tensors under a key: a dictionary's, or those whose own keys have it as a prefix, which is cut."""
    if not isinstance(value, dict):
        return {}
    if isinstance(value.get(key), dict):
        usual = _usual(value[key])
        return _tensors(value[key]) if usual is None else usual[1]
    for outer, inner in value.items():
        if isinstance(outer, str) and key.startswith(f"{outer}."):
            found = _named(inner, key.removeprefix(f"{outer}."))
            if found:
                return found
    notes = _tensors(value) or (_usual(value) or ("", {}))[1]
    prefix = f"{key.removesuffix('.')}."
    return {name.removeprefix(prefix): note for name, note in notes.items() if name.startswith(prefix)}


def _others(listed: Mapping[str, Notes], chosen: Notes) -> tuple[str, ...]:
    """Return the other sets of a network's weights; none where what is chosen is a part of a set."""
    if chosen not in listed.values():
        return ()
    return tuple(name for name, notes in _networks(listed).items() if notes != chosen)


def _siblings(listed: Mapping[str, Notes], part: Notes) -> tuple[str, ...]:
    """Return the prefixes of what a set holds besides a part of it."""
    name, note = next(iter(part.items()))
    for notes in listed.values():
        stored = next((key for key, each in notes.items() if each is note and key != name), None)
        if stored is not None:
            above, _, first = stored.removesuffix(f".{name}").rpartition(".")
            above += "." if above else ""
            beside = dict.fromkeys(above + key.removeprefix(above).split(".")[0] for key in notes)
            return tuple(key for key in beside if key != above + first)
    return ()


def _networks(listed: Mapping[str, Notes]) -> dict[str, Notes]:
    """Return the sets that look like those of a network: one of the keys ends in ``weight``."""
    return {
        name: notes
        for name, notes in listed.items()
        if any(key.rpartition(".")[2] in ("weight", "_weight") for key in notes)
    }


def _has_sides(note: Value | Unsupported) -> bool:
    return isinstance(note, Unsupported) or len(_shape(note) or ()) > 0


def _shape(note: Value | Unsupported) -> tuple[int, ...] | None:
    if isinstance(note, Unsupported):
        return None
    return note.size if isinstance(note, TensorNote) else note.shape


def _are_alike(one: Notes, other: Notes) -> bool:
    """Check whether two sets are of one network: they share at least half of their keys and shapes, prefixes aside."""
    first, second = ({(name, _shape(notes[key])) for name, key in plain_names(notes).items()} for notes in (one, other))
    return len(first & second) >= _ALIKE * len(first | second)


def _ambiguous(names: list[str]) -> UnreadableError:
    return UnreadableError(f"holds several sets of weights ({_quoted(names)})", CHOOSE)


def _held(listed: Mapping[str, Notes]) -> str:
    if len(listed) < 2:
        return "leave --weights-key out: the file has one set of weights"
    return f"it holds {_quoted(list(listed))}: {CHOOSE}"


def _quoted(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(f"'{one_line(name, 80)}'" for name in names[:_MOST_LISTED]) + more
