"""Which engines there are: edgeseg's own, and those that other packages register.

A package registers an engine by an entry point in the group ``edgeseg.runtimes``; its name is the target, its object an
`Engine` of that name or a callable without arguments that returns one::

    [project.entry-points."edgeseg.runtimes"]
    toy = "edgeseg_toy_engine:ENGINE"

An entry point is loaded when its target, or a loop over all engines, asks for it. One that cannot be used breaks no
other target: `refused_engines` says why in one sentence, and so does whoever asks for it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata

from edgeseg.errors import TargetUnavailableError, UnknownNameError
from edgeseg.runtimes.engine import Engine
from edgeseg.runtimes.ncnn.engine import NCNN
from edgeseg.runtimes.openvino.engine import OPENVINO
from edgeseg.runtimes.ort.engine import ORT
from edgeseg.runtimes.tensorrt.engine import TRT, TRT_RTX
from edgeseg.runtimes.torch.engine import TORCH
from edgeseg.text import first_line, one_line

__all__ = ["BUILT_IN", "GROUP", "engine", "engines", "forget_engines", "refused_engines", "resolve_target"]

GROUP = "edgeseg.runtimes"
"""Entry point group of engines."""

BUILT_IN: tuple[Engine, ...] = (ORT, OPENVINO, NCNN, TRT, TRT_RTX, TORCH)
"""edgeseg's own engines, in the order they are listed."""


@dataclass
class _Registered:
    """What other packages registered.

    Attributes:
        engines: By name.
        refused: Target, with its package where the name is taken -> why it cannot be used.
    """

    engines: dict[str, Engine] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def engines() -> tuple[Engine, ...]:
    """List every engine that can be asked for: edgeseg's own, then registered ones by name."""
    return (*BUILT_IN, *_registered().engines.values())


def refused_engines() -> dict[str, str]:
    """Map each registered target that cannot be used to the sentence why."""
    return dict(_registered().refused)


def forget_engines() -> None:
    """Look for registered engines anew at the next question, after a package was installed."""
    _registered.cache_clear()


def resolve_target(word: str) -> str:
    """Return the canonical name of the target that `word` means.

    Args:
        word: A target's name or alias, in any case.

    Raises:
        UnknownNameError: The word names no target; the message suggests the nearest.
        TargetUnavailableError: A package registered the target, but not so that it can be used.
    """
    return engine(word).name


def engine(word: str) -> Engine:
    """Return the engine that `word` means.

    Args:
        word: A target's name or alias, in any case.

    Raises:
        UnknownNameError: The word names no target; the message suggests the nearest.
        TargetUnavailableError: A package registered the target, but not so that it can be used.
    """
    wanted = word.strip().lower()
    for record in _candidates():
        if wanted in map(str.lower, record.words):
            return record
    for name, reason in refused_engines().items():
        if name.lower() == wanted:
            raise TargetUnavailableError(reason)
    raise UnknownNameError("target", word, {known for record in engines() for known in record.words})


def _candidates() -> Iterator[Engine]:
    """Every engine, edgeseg's own before any entry point is loaded."""
    yield from BUILT_IN
    yield from _registered().engines.values()


@functools.lru_cache(maxsize=1)
def _registered() -> _Registered:
    """Load every entry point of the group once."""
    found = _Registered()
    taken = {word.lower(): record.name for record in BUILT_IN for word in record.words}
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, _package(entry))):
        try:
            record = _loaded(entry)
            _refuse_taken(record, taken)
        except _RefusedError as error:
            key = f"{entry.name} ({_package(entry)})" if entry.name.lower() in taken else entry.name
            found.refused[key] = f"the target '{one_line(entry.name)}' of {_package(entry)} cannot be used: {error}"
            continue
        found.engines[record.name] = record
        taken.update({word.lower(): record.name for word in record.words})
    return found


class _RefusedError(Exception):
    """Why an entry point cannot be used, and what to do."""


def _loaded(entry: metadata.EntryPoint) -> Engine:
    """Load an entry point's record."""
    try:
        found = entry.load()
        record = found() if callable(found) else found
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {first_line(error)}"
        raise _RefusedError(f"'{one_line(entry.value)}' failed ({cause}); repair or uninstall that package") from error
    if not isinstance(record, Engine):
        raise _RefusedError(
            f"'{one_line(entry.value)}' gave {type(record).__name__}, expected an edgeseg Engine; update that package"
        )
    if record.name != entry.name:
        raise _RefusedError(
            f"its record is named '{one_line(record.name)}', expected the entry point's name; update that package"
        )
    return record


def _refuse_taken(record: Engine, taken: dict[str, str]) -> None:
    """Refuse a name or alias that another engine has."""
    for word in record.words:
        owner = taken.get(word.lower())
        if owner is not None:
            kind = "name" if word == record.name else "alias"
            raise _RefusedError(
                f"its {kind} '{one_line(word)}' belongs to the target '{one_line(owner)}'; rename it, or uninstall one"
            )


def _package(entry: metadata.EntryPoint) -> str:
    """Name and version of the package that registered an entry point."""
    try:
        name, version = entry.dist.metadata["Name"], entry.dist.version  # type: ignore[union-attr]
    except Exception:  # its METADATA is lost or damaged
        return "an unknown package"
    return one_line(f"{name} {version}")
