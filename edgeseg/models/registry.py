"""Registries: networks, heads, necks and backbones by name. Modules register what they define where they define it.

One class serves all of them: it imports the modules of its packages when it is first asked, refuses a name that is
taken, and suggests the nearest one for a name that does not exist.
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from edgeseg.errors import EdgesegError, UnknownNameError, UsageError
from edgeseg.models.spec import ModelSpec
from edgeseg.text import natural_key

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "NETWORKS",
    "Network",
    "Registry",
    "build_network",
    "build_on_meta",
    "list_models",
    "model_spec",
    "register",
]

T = TypeVar("T")


class Registry(Generic[T]):
    """Things by name.

    Args:
        kind: What they are called in messages, such as ``"network"``.
        packages: Packages whose modules register them; imported when the registry is first asked.
        hint: What to do when no suggestion fits.

    Example:
        >>> colours: Registry[str] = Registry("colour")
        >>> colours.add("red", "#ff0000", module="palette")
        >>> colours.names("r*"), colours.find("red"), "blue" in colours
        (['red'], '#ff0000', False)
        >>> colours.find("rad")
        Traceback (most recent call last):
        edgeseg.errors.UnknownNameError: unknown colour 'rad': did you mean 'red'?
    """

    def __init__(self, kind: str, *packages: str, hint: str = "") -> None:
        self._kind, self._packages, self._hint = kind, packages, hint
        self._entries: dict[str, tuple[T, str]] = {}
        self._loaded = False

    def add(self, name: str, value: T, module: str) -> None:
        """Register `value`, defined in `module`, under a name.

        Raises:
            EdgesegError: The name is taken; the message names both modules.
        """
        if name in self._entries:
            first = self._entries[name][1]
            raise EdgesegError(f"{self._kind} '{name}' is registered twice: in {first} and in {module}; rename one")
        self._entries[name] = value, module

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for name in self._packages:
            package = importlib.import_module(name)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{name}.{module.name}")

    def names(self, pattern: str = "*") -> list[str]:
        """Return the names that match a shell pattern, in natural order (q3, q5, q8, q10)."""
        self._load()
        return sorted(fnmatch.filter(self._entries, pattern), key=natural_key)

    def find(self, name: str) -> T:
        """Return what is registered under a name.

        Raises:
            UnknownNameError: Nothing is; suggests the nearest names.
        """
        self._load()
        if name not in self._entries:
            raise UnknownNameError(self._kind, name, self._entries, hint=self._hint)
        return self._entries[name][0]

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[T]:
        self._load()
        return (value for value, _ in self._entries.values())


# --- networks ----------------------------------------------------------------------------------------------------


class Builder(Protocol):
    """Builds a network in its published inference form; every option is keyword-only."""

    def __call__(self, *, num_classes: int) -> nn.Module:
        """Build the network with `num_classes` output channels and random weights."""
        ...


@dataclass(frozen=True)
class Network:
    """A registered network.

    Attributes:
        builder: Builds it; takes ``num_classes``, and ``aux`` where it has training-only parts.
        spec: Its conventions and facts.
    """

    builder: Callable[..., nn.Module]
    spec: ModelSpec


NETWORKS: Registry[Network] = Registry(
    "network", "edgeseg.models.families", "edgeseg.models.mmseg", hint="`edgeseg models` lists them."
)

_B = TypeVar("_B", bound=Callable[..., "nn.Module"])


def register(spec: ModelSpec, *, name: str | None = None) -> Callable[[_B], _B]:
    """Register a builder of a network.

    Args:
        spec: Conventions and facts of the network.
        name: Registry name; the builder's own where it is left out.

    Returns:
        A decorator that gives the builder back.

    Raises:
        EdgesegError: The name is taken; the message names both modules.

    Example:
        A module of `edgeseg.models.families` would have::

            @register(ModelSpec(system="Mine", ...))
            def mine(*, num_classes: int = 19) -> nn.Module: ...

        >>> from edgeseg.models import create_model, model_spec
        >>> from edgeseg.models.families.regseg import RegSeg
        >>> own = register(model_spec("regseg").but(system="Mine"), name="regseg_of_mine")
        >>> builder = own(lambda *, num_classes: RegSeg(num_classes))
        >>> type(create_model("regseg_of_mine")).__name__, model_spec("regseg_of_mine").system
        ('RegSeg', 'Mine')
    """

    def decorate(builder: _B) -> _B:
        key = name or builder.__name__
        NETWORKS.add(key, Network(builder, spec.but(name=key)), builder.__module__)
        return builder

    return decorate


def list_models(pattern: str = "*") -> list[str]:
    """List the registered networks.

    Args:
        pattern: Shell pattern that names must match.

    Returns:
        Names in natural order (q3, q5, q8, q10).

    Example:
        >>> list_models("pidnet_*")
        ['pidnet_l', 'pidnet_m', 'pidnet_s']
    """
    return NETWORKS.names(pattern)


def model_spec(name: str) -> ModelSpec:
    """Look up the conventions and facts of a registered network.

    Raises:
        UnknownNameError: No such network; suggests the nearest names.

    Example:
        >>> spec = model_spec("pidnet_s")
        >>> spec.num_classes, spec.input_size, spec.divisor
        (19, (1024, 2048), 8)
    """
    return NETWORKS.find(name).spec


def build_network(name: str, num_classes: int, *, aux: bool = False) -> nn.Module:
    """Build a registered network with random weights.

    Args:
        name: Registry name.
        num_classes: Output channels.
        aux: Build the training-only parts too.

    Raises:
        UnknownNameError: No such network.
        UsageError: It has no training-only parts.
    """
    builder = NETWORKS.find(name).builder
    if not aux:
        return builder(num_classes=num_classes)
    if "aux" not in inspect.signature(builder).parameters:
        raise UsageError(f"network '{name}' has no training-only parts; leave out aux")
    return builder(num_classes=num_classes, aux=True)


def build_on_meta(name: str, num_classes: int | None = None, *, aux: bool = False) -> nn.Module:
    """Build a registered network without allocating its weights (for counting and comparing keys)."""
    import torch

    with torch.device("meta"):
        return build_network(name, num_classes or model_spec(name).num_classes, aux=aux)
