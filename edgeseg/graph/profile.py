"""Machine profiles: the figures of a class of machines by which the cost model turns work into seconds.

A profile says how many multiply-accumulates and bytes an engine gets through on such a machine. Only ratios matter,
since the cost model compares two ways to compute the same numbers. The profiles of the common classes ship with edgeseg
(``edgeseg/data/profiles``, each with the source of its figures); ``edgeseg benchmark profile FILE`` measures another.

There is one rate for every element type: the passes that ask for a price see graphs in fp32, and whether a graph in
fp16 or int8 is faster is measured, not estimated. Bytes are counted by the width of the elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgeseg.errors import InputError, UnknownNameError
from edgeseg.fields import FieldError, Fields, parse_object
from edgeseg.text import one_line

__all__ = [
    "DEFAULT_PROFILE",
    "KIND",
    "SCHEMA_VERSION",
    "MachineProfile",
    "active_profile",
    "load_profile",
    "profile_names",
    "using_profile",
]

DEFAULT_PROFILE = "x86-avx512"
"""Name of the profile an export uses where nothing is said, whatever machine it runs on: bundles are reproducible."""

KIND = "edgeseg-machine-profile"
"""What the field ``kind`` of a profile file says."""

SCHEMA_VERSION = 1
"""Version of the file's fields; newer ones are refused."""

_PROFILES = Path(__file__).resolve().parents[1] / "data" / "profiles"
_MOST_BYTES = 1 << 20
_EXPECTED = "expected a file of `edgeseg benchmark profile`"
_RATES = ("dense", "channelwise", "interpolation", "bandwidth")
_SLOWEST, _FASTEST = 1e6, 1e16


@dataclass(frozen=True, kw_only=True)
class MachineProfile:
    """What one class of machines computes and moves in a second, all `threads` of the engine together.

    Attributes:
        name: Of the class of machines, such as ``x86-avx512``.
        threads: Threads of the engine that the figures hold for; they are rates of all of them, not of each.
        dense: Multiply-accumulates per second of dense convolutions and matrix products.
        channelwise: Multiply-accumulates per second of what works per channel: depthwise convolutions, pooling,
            activations that are computed and not only selected.
        interpolation: Neighbours weighted per second by a resize; a linear one weighs four per output element.
        bandwidth: Bytes per second, read and written ones counted alike, of maps that no cache holds.
        node_seconds: Seconds to start a node.
        source: Where the figures come from, as a sentence.
    """

    name: str
    threads: int
    dense: float
    channelwise: float
    interpolation: float
    bandwidth: float
    node_seconds: float
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return the profile as plain JSON values."""
        return {"kind": KIND, "schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any) -> MachineProfile:
        """Read what `to_json` returns; ignore unknown fields.

        Raises:
            FieldError: A field is missing or not what it must be, or the file is of another kind or a newer version.
        """
        fields = Fields(data)
        fields.choice("kind", (KIND,))
        fields.integer("schema_version", 1, SCHEMA_VERSION)
        rates = {rate: fields.number(rate, _SLOWEST, _FASTEST) for rate in _RATES}
        return cls(
            name=fields.text("name", pattern=r"\S(?:[^\r\n]*\S)?"),
            threads=fields.integer("threads", 1, 4096),
            node_seconds=fields.number("node_seconds", 0.0, 1.0),
            source=fields.text("source", most=2000),
            **rates,
        )


def active_profile() -> MachineProfile:
    """Return the profile of the enclosing `using_profile`, or the default one outside of any."""
    return _ACTIVE.get() or load_profile(DEFAULT_PROFILE)


@contextmanager
def using_profile(profile: MachineProfile) -> Iterator[None]:
    """Price nodes by this profile within the block, in this thread."""
    token = _ACTIVE.set(profile)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


@cache
def profile_names() -> tuple[str, ...]:
    """Return the names of the profiles that ship with edgeseg, in alphabetical order."""
    return tuple(sorted(path.stem for path in _PROFILES.glob("*.json")))


def load_profile(profile: str | Path) -> MachineProfile:
    """Read a machine profile.

    >>> load_profile("x86-avx512").bandwidth
    10000000000.0

    Args:
        profile: Name of one that ships with edgeseg, or else the file of one.

    Raises:
        UnknownNameError: Neither such a name nor a file.
        InputError: The file cannot be read or is no machine profile.
    """
    if str(profile) in profile_names():
        return _shipped(str(profile))
    path = Path(profile)
    if not path.exists() and path.name == str(profile) and not path.suffix:
        raise UnknownNameError("machine profile", str(profile), profile_names())
    return _read(path)


_ACTIVE: ContextVar[MachineProfile | None] = ContextVar("machine profile", default=None)


@cache
def _shipped(name: str) -> MachineProfile:
    return _read(_PROFILES / f"{name}.json")


def _read(path: Path) -> MachineProfile:
    where = one_line(path)
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(f"cannot read '{where}': {reason}; {_EXPECTED}") from error
    if len(data) > _MOST_BYTES:
        raise InputError(f"'{where}' has more than {_MOST_BYTES} bytes, too many for a machine profile; {_EXPECTED}")
    try:
        return MachineProfile.from_json(_parsed(data))
    except FieldError as error:
        raise InputError(f"'{where}' is no machine profile: {error}; {_EXPECTED}") from error


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        return parse_object(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise FieldError("it is not UTF-8 text") from error
