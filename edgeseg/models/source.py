"""What is exported: a registered network, a module of the user's own, or a factory named ``package.module:factory``."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from edgeseg.errors import EdgesegError, ExportError, UsageError
from edgeseg.models import ModelSpec, custom_spec, model_spec
from edgeseg.models.checkpoints import Checkpoint, load_state, open_checkpoint
from edgeseg.models.copying import copy_module, unwrap
from edgeseg.models.factory import create_loaded
from edgeseg.text import first_line

__all__ = ["NetworkSource", "resolve_network"]


@dataclass(frozen=True)
class NetworkSource:
    """A network ready to export.

    Attributes:
        module: In eval mode and float32, on the CPU.
        spec: Its conventions; ``spec.num_classes`` is what it really returns.
        origin: Registry name, ``package.module:factory``, or the class of a module that was handed in.
        weights: Where the weights came from, in words.
        by_name: Whether `origin` builds the network again.
        labels_chosen: Whether the user chose the label set, which must then fit the network's classes.
        input_chosen: Whether the user gave mean, std and channel order, which must then fit the network's channels.
        notes: Sentences the user must see, such as which of a checkpoint's sets of weights was taken.
    """

    module: nn.Module
    spec: ModelSpec
    origin: str
    weights: str
    by_name: bool = True
    labels_chosen: bool = False
    input_chosen: bool = False
    notes: tuple[str, ...] = ()

    @property
    def registered(self) -> bool:
        """Whether it is one of edgeseg's own networks, built by name."""
        return self.by_name and ":" not in self.origin

    def but(self, **conventions: Any) -> NetworkSource:
        """The same network with other conventions.

        Args:
            conventions: Fields of `ModelSpec`, such as ``input``, ``resize``, ``postprocess``, ``labels``.
        """
        labels, given = self.labels_chosen or "labels" in conventions, self.input_chosen or "input" in conventions
        return replace(self, spec=self.spec.but(**conventions), labels_chosen=labels, input_chosen=given)


def resolve_network(
    network: str | nn.Module,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    num_classes: int | None = None,
    spec: ModelSpec | None = None,
) -> NetworkSource:
    """Find or build the network to export.

    Args:
        network: Registry name, ``package.module:factory`` (a callable without required arguments), or a module.
        weights: Checkpoint; for a factory or module its own ``state_dict`` keys.
        weights_key: The set of weights to take, where the checkpoint holds several.
        num_classes: Output channels of a registered network.
        spec: Conventions; required knowledge for a network of the user's own, else the registry's. A module or factory
            may carry it as an attribute ``edgeseg_spec``.

    Raises:
        UnknownNameError: No such registered network.
        UsageError: The factory cannot be imported or does not give a module, classes are given for one, or a key is
            given without weights.
        ExportError: The factory's module or the factory itself fails.
        CheckpointError: The checkpoint cannot be read or does not fit.

    Example:
        >>> source = resolve_network("regseg", num_classes=3)
        >>> source.origin, source.weights, source.spec.input_size
        ('regseg', 'random (seed 0)', (1024, 2048))
        >>> resolve_network(nn.Conv2d(3, 2, 1)).but(labels="generic").origin
        'Conv2d'
    """
    if weights_key is not None and weights is None:
        raise UsageError("weights_key (--weights-key) says which weights of a file; give the file (--weights) too")
    if num_classes is not None and (isinstance(network, nn.Module) or ":" in network):
        raise UsageError("num_classes (--classes) is for registered networks; a network of your own decides it itself")
    if isinstance(network, nn.Module):
        return _from_module(network, type(unwrap(network)).__name__, _opened(weights, weights_key), spec)
    if ":" in network:
        return _from_module(_call_factory(network), network, _opened(weights, weights_key), spec)
    base = model_spec(network)
    checkpoint = _opened(weights, weights_key)
    with torch.random.fork_rng(devices=[]):  # the caller's own random numbers go on as they would have
        torch.manual_seed(0)
        module, notes = create_loaded(network, checkpoint, num_classes)
    source = NetworkSource(module.float(), base, network, _origin_of(checkpoint, "random (seed 0)"))
    return _with_spec(_noted(source, checkpoint, notes), spec)


def _opened(weights: str | Path | None, key: str | None) -> Checkpoint | None:
    return None if weights is None else open_checkpoint(weights, key)


def _origin_of(checkpoint: Checkpoint | None, otherwise: str) -> str:
    """Where weights came from: a file, and the set in it where there are others."""
    if checkpoint is None:
        return otherwise
    return f"{checkpoint.name}, {checkpoint.key}" if checkpoint.others else checkpoint.name


def _noted(source: NetworkSource, checkpoint: Checkpoint | None, notes: tuple[str, ...]) -> NetworkSource:
    return replace(source, notes=(() if checkpoint is None else checkpoint.notes) + notes)


def _from_module(
    module: nn.Module, origin: str, checkpoint: Checkpoint | None, spec: ModelSpec | None
) -> NetworkSource:
    module = _own(unwrap(module), origin).float().cpu().eval()
    notes = () if checkpoint is None else load_state(module, checkpoint.state, what=origin)
    carried = getattr(module, "edgeseg_spec", None)
    usual = custom_spec(origin)
    base = carried if isinstance(carried, ModelSpec) else usual
    source = NetworkSource(module, base, origin, _origin_of(checkpoint, "as built"), by_name=":" in origin)
    source = replace(source, input_chosen=base.input != usual.input)
    return _with_spec(_noted(source, checkpoint, notes), spec)


def _own(module: nn.Module, origin: str) -> nn.Module:
    """Copy a module; a factory's that cannot be copied is nobody else's, and taken as it is."""
    try:
        return copy_module(module)
    except UsageError:
        if ":" not in origin:
            raise
        return module


def _with_spec(source: NetworkSource, spec: ModelSpec | None) -> NetworkSource:
    """Return the network with the conventions that were given, if any were."""
    if spec is None:
        return source
    given = source.input_chosen or spec.input != source.spec.input
    return replace(source, spec=spec, labels_chosen=spec.labels != source.spec.labels, input_chosen=given)


def _call_factory(path: str) -> nn.Module:
    module_name, _, attribute = path.partition(":")
    with _here_last():
        found = _imported(module_name)
        if not hasattr(found, attribute):
            raise UsageError(f"module '{module_name}' has no '{attribute}'; give package.module:factory")
        factory = getattr(found, attribute)
        built = factory if isinstance(factory, nn.Module) else _try_call(factory, path)
    if not isinstance(built, nn.Module):
        raise UsageError(f"'{path}' gave a {type(built).__name__}; expected a torch.nn.Module")
    return built


def _imported(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(
            f"cannot import '{module_name}' ({first_line(error)}); give package.module:factory, importable from here"
        ) from error
    except (Exception, SystemExit) as error:  # the user's code, or a name that is none
        raise ExportError(
            f"importing '{module_name}' failed: {_kind_and_line(error)}; give package.module:factory"
        ) from error


class _HereFinder:
    """Finds modules in the current folder."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """Find a module that belongs to no package; a package finds its own."""
        return None if path is not None else PathFinder.find_spec(name, [str(Path.cwd())])


@contextlib.contextmanager
def _here_last() -> Iterator[None]:
    """Let the module that the user names, and what it imports, lie in the current folder.

    Everything that is installed goes before it, and nothing else is ever looked for there: the current folder joins no
    import path, since a file of a library's name may lie in it.
    """
    sys.meta_path.append(_HereFinder)
    try:
        yield
    finally:
        sys.meta_path.remove(_HereFinder)


def _try_call(factory: object, path: str) -> object:
    if not callable(factory):
        raise UsageError(f"'{path}' is a {type(factory).__name__}; expected a function that builds a torch.nn.Module")
    try:
        return factory()
    except EdgesegError:
        raise
    except (Exception, SystemExit) as error:
        raise ExportError(f"the factory '{path}' failed: {_kind_and_line(error)}") from error


def _kind_and_line(error: BaseException) -> str:
    """Return the kind and first line of an error of the user's own code."""
    kind, line = type(error).__name__, first_line(error)
    return line if line == kind else f"{kind}: {line}"
