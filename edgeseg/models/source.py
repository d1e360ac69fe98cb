"""What is exported: a registered network, or one of the user's own: a module, a factory, a program in a file."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from edgeseg.errors import EdgesegError, ExportError, UsageError
from edgeseg.labels import LabelSet
from edgeseg.models import ModelSpec, custom_spec, model_spec
from edgeseg.models.checkpoints import Checkpoint, load_state, open_checkpoint
from edgeseg.models.copying import copy_module
from edgeseg.models.factory import create_loaded
from edgeseg.models.modules import (
    Inside,
    by_its_name,
    check_initialised,
    check_module,
    network_inside,
    rounded_to_float32,
    without_inner_wrappers,
)
from edgeseg.models.programs import Program, is_program, names_file, open_program
from edgeseg.specs import Size
from edgeseg.text import first_line, one_line

__all__ = ["NetworkSource", "resolve_network"]


@dataclass(frozen=True)
class NetworkSource:
    """A network ready to export.

    Attributes:
        module: In eval mode and float32, on the CPU.
        spec: Its conventions; ``spec.num_classes`` is what it really returns.
        origin: Registry name, ``package.module:factory``, a program's file name, or the class of a module that was
            handed in.
        weights: Where the weights came from, in words.
        by_name: Whether `origin` builds the network again.
        labels_chosen: Whether the user chose the label set, which must then fit the network's classes.
        label_set: Names and colours of the classes, where they are none of `edgeseg.labels`.
        input_chosen: Whether the user gave mean, std and channel order, which must then fit the network's channels.
        notes: Sentences the user must see, such as which of a checkpoint's sets of weights was taken.
    """

    module: nn.Module
    spec: ModelSpec
    origin: str
    weights: str
    by_name: bool = True
    labels_chosen: bool = False
    label_set: LabelSet | None = None
    input_chosen: bool = False
    notes: tuple[str, ...] = ()

    @property
    def registered(self) -> bool:
        """Whether it is one of edgeseg's own networks, built by name."""
        return self.by_name and ":" not in self.origin

    def check_takes(self, size: Size, *, batch: int = 1, dynamic: bool = False) -> None:
        """Refuse images that a program was not exported for; other networks say so when they run.

        Raises:
            UsageError: Says what the program takes.
        """
        if isinstance(self.module, Program):
            self.module.check_takes(self.origin, size, batch=batch, dynamic=dynamic)

    def but(self, **conventions: Any) -> NetworkSource:
        """The same network with other conventions.

        Args:
            conventions: Fields of `ModelSpec`, such as ``input``, ``resize``, ``postprocess``, ``labels``.
        """
        labels, given = self.labels_chosen or "labels" in conventions, self.input_chosen or "input" in conventions
        own = None if "labels" in conventions else self.label_set
        return replace(self, spec=self.spec.but(**conventions), labels_chosen=labels, input_chosen=given, label_set=own)


def resolve_network(
    network: str | nn.Module | ExportedProgram,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    num_classes: int | None = None,
    spec: ModelSpec | None = None,
) -> NetworkSource:
    """Find or build the network to export.

    Args:
        network: Registry name, ``package.module:factory`` (a callable without required arguments), the file of a
            TorchScript archive or exported program, or a module or exported program. A file is opened as code is: it
            must be trusted.
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
    if num_classes is not None and (not isinstance(network, str) or ":" in network or names_file(network)):
        raise UsageError("num_classes (--classes) is for registered networks; a network of your own decides it itself")
    if isinstance(network, (nn.Module, ExportedProgram)):
        return _from_module(_module_of(network), "", _opened(weights, weights_key), spec)
    if names_file(network):
        if weights is not None:
            raise UsageError(
                f"'{one_line(network)}' is a program and holds its weights; leave the weights (--weights) out"
            )
        return _from_module(open_program(network), Path(network).name, None, spec)
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
    handed: nn.Module, origin: str, checkpoint: Checkpoint | None, spec: ModelSpec | None
) -> NetworkSource:
    inside = network_inside(handed)
    name = origin or _class_name(inside.module)
    check_module(inside.module, name)
    module = without_inner_wrappers(_own(inside.module, origin)).cpu().eval()
    notes = inside.notes + (rounded_to_float32(module, name) if checkpoint is None else ())
    module = module.float()
    if checkpoint is not None:
        notes += _loaded(module, checkpoint, inside, name)
    check_initialised(module, name)
    module, said = by_its_name(module)
    usual = custom_spec(_spec_name(name, module), **_fixed_size(module))
    base = _carried_spec(handed, inside.module) or usual
    source = NetworkSource(module, base, name, _origin_of(checkpoint, "as built"), by_name=":" in name)
    source = replace(source, input_chosen=base.input != usual.input)
    return _with_spec(_noted(source, checkpoint, notes + said), spec)


def _loaded(module: nn.Module, checkpoint: Checkpoint, inside: Inside, what: str) -> tuple[str, ...]:
    """Load a checkpoint of the network, or of the wrapper that holds it; the wrapper's other tensors are told."""
    state = checkpoint.state
    own = {key.removeprefix(inside.path): value for key, value in state.items() if key.startswith(inside.path)}
    others = Counter(key.partition(".")[0] for key in state if not key.startswith(inside.path))
    alike = any(2 * count >= len(own) for count in others.values())  # such as an average of the weights, to be chosen
    if not inside.path or not others or alike:
        return load_state(module, state, what=what)
    notes, names = load_state(module, own, what=what), one_line(", ".join(sorted(others)))
    return (*notes, f"{checkpoint.name}: tensors beside '{inside.path}' were left out: {names}")


def _class_name(module: nn.Module) -> str:
    """Name of a module's class, of the one that it was made from for TorchScript."""
    scripted = isinstance(module, torch.jit.ScriptModule)
    return str(module.original_name) if scripted else type(module).__name__


def _spec_name(name: str, module: nn.Module) -> str:
    """Name of a network's conventions, and so of its bundle: a program's file has an ending that says nothing."""
    return Path(name).stem if is_program(module) and ":" not in name else name


def _fixed_size(module: nn.Module) -> dict[str, Any]:
    """The size that a program takes alone, as a convention."""
    size = module.size if isinstance(module, Program) else None
    return {} if size is None else {"input_size": size}


def _carried_spec(*modules: nn.Module) -> ModelSpec | None:
    """The conventions that a wrapper or the network in it carries."""
    carried = (getattr(module, "edgeseg_spec", None) for module in modules)
    return next((spec for spec in carried if isinstance(spec, ModelSpec)), None)


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
    if not isinstance(built, (nn.Module, ExportedProgram)):
        raise UsageError(f"'{path}' gave a {type(built).__name__}; expected a torch.nn.Module")
    return _module_of(built)


def _module_of(network: nn.Module | ExportedProgram) -> nn.Module:
    return Program(network) if isinstance(network, ExportedProgram) else network


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
