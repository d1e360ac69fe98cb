"""The maps of a record of features among all that pass through a network's modules.

A published implementation may give out more maps than the network here declares, such as one at stride 2 or the end of
every block. Each of them enters or leaves a module here too, whatever the module is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Equals = Callable[[Mapping[str, Any], Tensor], bool]
"""Whether a tensor is that of a record's output."""


@contextmanager
def trace(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the tensors that enter and leave the modules inside `module`, in order, while the context is open."""
    passed: list[Tensor] = []

    def enter(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        passed.extend(each for each in inputs if isinstance(each, Tensor))

    def leave(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        passed.extend([output] if isinstance(output, Tensor) else [])

    hooks = [each.register_forward_pre_hook(enter) for each in module.modules()]
    hooks += [each.register_forward_hook(leave) for each in module.modules()]
    try:
        yield passed
    finally:
        for hook in hooks:
            hook.remove()


def in_turn(wanted: Sequence[Mapping[str, Any]], passed: Sequence[Tensor], equals: Equals) -> list[Tensor] | None:
    """Find recorded maps among tensors.

    Args:
        wanted: The record's outputs.
        passed: Tensors in the order of computation.
        equals: Compares.

    Returns:
        For each output the first equal tensor after the one before it; None where there is none.
    """
    chosen: list[Tensor] = []
    rest = iter(passed)
    for want in wanted:
        match = next((x for x in rest if equals(want, x)), None)
        if match is None:
            return None
        chosen.append(match)
    return chosen
