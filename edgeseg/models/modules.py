"""The network in a module of the user's own: found in the wrappers of training, refused where it is none yet."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from edgeseg.errors import UsageError
from edgeseg.models.copying import unwrap
from edgeseg.text import one_line

__all__ = [
    "Inside",
    "by_its_name",
    "check_initialised",
    "check_module",
    "network_inside",
    "rounded_to_float32",
    "without_inner_wrappers",
]

_SHARDED = frozenset(("FullyShardedDataParallel", "FSDPModule"))
_OF_TRAINING = frozenset(("criterion", "criteria", "loss", "losses", "lpips", "metric", "metrics", "torchmetrics"))
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_IMAGES = ("pixel_values", "image", "images", "imgs", "img", "inputs", "input", "x")
"""Names that frameworks give the picture among the arguments of forward."""

_CALLS_ABOVE = frozenset(("super", "forward"))
_SAYS_NONE = frozenset(("NotImplementedError",))
_SAYS_WHOSE = frozenset(("NotImplementedError", "__class__", "__name__", "type"))
"""Names in a forward that only calls the one of the class above, or that only says that there is none."""

_CONTAINERS = (nn.ModuleDict, nn.ModuleList)
"""Classes that hold modules and wrap none."""

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")
_PREPARED = ("torch.ao.quantization", "torch.ao.nn.qat", "torch.ao.nn.intrinsic.qat", "torch.quantization")
_MOST_NAMED = 5


class Inside:
    """The network in what was handed in.

    Attributes:
        module: The network.
        path: Of the network among the wrapper's attributes, with a dot at its end; empty where the wrapper has a
            forward, and for wrappers that only hand calls on.
        notes: Sentences the user must see.
    """

    def __init__(self, module: nn.Module, path: str = "", notes: tuple[str, ...] = ()) -> None:
        self.module, self.path, self.notes = module, path, notes


def network_inside(module: nn.Module) -> Inside:
    """Find the network in a module of the user's own.

    A module with a forward is the network, whatever it holds. One without (a LightningModule that only trains, an
    averaging wrapper) holds it: the one part that has parameters, losses and metrics apart.

    Raises:
        UsageError: There is no forward, and several such parts, or parameters outside of them.

    Example:
        >>> class Training(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net, self.loss = nn.Conv2d(3, 4, 1), nn.CrossEntropyLoss()
        >>> inside = network_inside(Training())
        >>> inside.path, inside.notes
        ('net.', ("Training has no forward of its own; its part 'net' (Conv2d) was taken as the network",))
    """
    outer = unwrap(module)
    if type(outer) in _CONTAINERS:
        return Inside(outer)
    found, path = outer, ""
    while not has_forward(found) and any(True for _ in found.parameters()):
        name = _only_part(found, outer, path)
        found, path = unwrap(found.get_submodule(name)), f"{path}{name}."
    if not path:
        return Inside(found)
    kind = type(outer).__name__
    note = f"{kind} has no forward of its own; its part '{path[:-1]}' ({type(found).__name__}) was taken as the network"
    return Inside(found, path, (note,))


def has_forward(module: nn.Module) -> bool:
    """Whether a module's class, or one that it derives from, says what forward does.

    Example:
        >>> has_forward(nn.ReLU()), has_forward(nn.ModuleList())
        (True, False)
    """
    if "forward" in vars(module):
        return True
    for kind in type(module).__mro__:
        if kind is nn.Module:
            return False
        names = _names_in(vars(kind).get("forward"))
        if names != _CALLS_ABOVE and "forward" in vars(kind):
            return not _SAYS_NONE <= names <= _SAYS_WHOSE
    return False


def without_inner_wrappers(module: nn.Module) -> nn.Module:
    """Put the modules inside `unwrap`'s wrappers in their place, in every part of a module.

    Args:
        module: Nobody else's; it is changed.
    """
    for part in [part for part in module.modules() if not isinstance(part, torch.jit.ScriptModule)]:
        for name, child in list(part._modules.items()):
            if child is not None and unwrap(child) is not child:
                part._modules[name] = unwrap(child)
    return module


def check_module(module: nn.Module, origin: str) -> None:
    """Refuse modules whose parameters are no numbers of this process, or are integers of a quantiser.

    Raises:
        UsageError: Says what the module is and what to do.
    """
    values = dict(_values(module))
    meta = [name for name, value in values.items() if value.is_meta]
    if meta:
        raise UsageError(
            f"{origin} is on the meta device, where {_named(meta)} of {len(values)} parameters and buffers have no "
            "values; build it on the CPU and load its weights"
        )
    sharded = [name for name, part in module.named_modules() if _kinds(part) & _SHARDED]
    sharded += [name for name, value in values.items() if type(value).__name__ in ("DTensor", "ShardedTensor")]
    if sharded:
        raise UsageError(
            f"{origin} is sharded over processes ({_named(sharded)}), so its parameters are not whole here; gather its "
            "full state dict into a file, and export the plain module with it as weights"
        )
    _check_not_quantised(module, origin, values)


def check_initialised(module: nn.Module, origin: str) -> None:
    """Refuse lazy modules whose parameters have no shape yet.

    Raises:
        UsageError: Names them.
    """
    lazy = [name for name, value in _values(module) if isinstance(value, (UninitializedBuffer, UninitializedParameter))]
    if lazy:
        raise UsageError(
            f"{origin} has lazy parameters that were never given a shape ({_named(lazy)}), so it was not trained; run "
            "it once on a picture and load its weights before the export"
        )


def rounded_to_float32(module: nn.Module, origin: str) -> tuple[str, ...]:
    """Say what becomes of parameters and buffers that are not float32 and will be.

    Example:
        >>> rounded_to_float32(nn.Conv2d(3, 1, 1).half(), "mine")
        ('mine: its float16 parameters and buffers were made float32, which the export is compared in',)
    """
    floats = (value.dtype for _, value in _values(module) if value.is_floating_point())
    others = {str(dtype).removeprefix("torch.") for dtype in floats if dtype is not torch.float32}
    if not others:
        return ()
    listed = " and ".join(sorted(others))
    return (f"{origin}: its {listed} parameters and buffers were made float32, which the export is compared in",)


class _ByName(nn.Module):
    """Gives the picture to an argument of forward by its name.

    Shape:
        Float images (N, 3, H, W) -> what the network returns.
    """

    def __init__(self, network: nn.Module, argument: str) -> None:
        super().__init__()
        self.network, self.argument = network, argument

    def forward(self, image: Tensor) -> Any:
        return self.network(**{self.argument: image})


def by_its_name(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Make a module whose forward does not take the picture first callable with the picture alone.

    Returns:
        The module, or one around it that passes the picture by its name, and a sentence that says so.

    Example:
        >>> class Text(nn.Module):
        ...     def forward(self, input_ids=None, pixel_values=None):
        ...         return pixel_values
        >>> by_its_name(Text())[1]
        ("Text takes the picture as its argument 'pixel_values'",)
    """
    argument = _argument_for_pictures(module)
    if argument is None:
        return module, ()
    note = f"{type(module).__name__} takes the picture as its argument '{argument}'"
    return _ByName(module, argument).train(module.training), (note,)


def _argument_for_pictures(module: nn.Module) -> str | None:
    """The argument that takes the picture, where that is not the first."""
    try:
        arguments = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # native code tells no signature
        return None
    by_position = [entry.name for entry in arguments if entry.kind < inspect.Parameter.VAR_POSITIONAL]
    varying = any(entry.kind is inspect.Parameter.VAR_POSITIONAL for entry in arguments)
    if by_position[:1] and by_position[0] in _IMAGES:
        return None
    names = [entry.name for entry in arguments if entry.kind is not inspect.Parameter.VAR_KEYWORD]
    if "pixel_values" in names:
        return "pixel_values"
    if by_position or varying:
        return None
    return next((name for name in _IMAGES if name in names), names[0] if len(names) == 1 else None)


def _kinds(module: nn.Module) -> set[str]:
    return {kind.__name__ for kind in type(module).__mro__}


def _names_in(forward: object) -> frozenset[str]:
    """Names that a function's code uses; none of what is no function of Python."""
    code = getattr(forward, "__code__", None)
    return frozenset(() if code is None else code.co_names)


def _only_part(module: nn.Module, outer: nn.Module, path: str) -> str:
    """Name the one part of a module without forward that has parameters."""
    parts = {name: part for name, part in module.named_children() if any(True for _ in part.parameters())}
    networks = {name: part for name, part in parts.items() if not _of_training(name, part)}
    found = networks or parts
    if module._parameters:
        raise UsageError(
            f"{type(outer).__name__} has no forward, and parameters of its own, so no part of it is the network; give "
            "the module whose forward takes images (N, 3, H, W)"
        )
    if len(found) > 1:
        listed = [f"{path}{name} ({type(part).__name__})" for name, part in found.items()]
        raise UsageError(
            f"{type(outer).__name__} has no forward, and {len(found)} parts of it have parameters: "
            f"{one_line(', '.join(listed))}; give the one that is the network, or a factory that returns it"
        )
    return next(iter(found))


def _of_training(name: str, part: nn.Module) -> bool:
    """Whether a part is a loss or a metric by its name or its class's."""
    words = _WORD.findall(f"{name} {type(part).__name__} {type(part).__module__}")
    return not _OF_TRAINING.isdisjoint(word.lower() for word in words)


def _check_not_quantised(module: nn.Module, origin: str, values: dict[str, Tensor]) -> None:
    whose = {name or type(part).__name__: type(part).__module__ for name, part in module.named_modules()}
    advice = "export the float network that it was made from, and let edgeseg quantise it (--precision int8)"
    done = [name for name, home in whose.items() if home.startswith(_QUANTISED)]
    done += [name for name, value in values.items() if value.is_quantized]
    done += [name for name, value in values.items() if type(value).__module__.startswith("torchao")]
    if done:
        raise UsageError(
            f"{origin} was quantised by PyTorch ({_named(done)}), whose integer kernels only PyTorch has; {advice}"
        )
    prepared = [name for name, part in module.named_modules() if _watches(part)]
    if prepared:
        raise UsageError(
            f"{origin} is prepared for PyTorch's quantisation ({_named(prepared)} watch or round what passes), so it "
            f"is not the network that will run; {advice}"
        )


def _watches(part: nn.Module) -> bool:
    """Whether a part is an observer or rounds its weight as one of integers would be."""
    home = type(part).__module__
    return home.startswith(_PREPARED) and (
        "qat" in home or any("Observer" in kind or "FakeQuantize" in kind for kind in _kinds(part))
    )


def _values(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return one_line(", ".join(f"'{name}'" for name in names[:_MOST_NAMED])) + more
