"""Options of the engine, as commands take them: some by name, the rest as ``--engine-option NAME=VALUE``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from edgeseg.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from edgeseg.runtimes import RuntimeOptions

__all__ = ["runtime_options"]

_TRUTHS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


def runtime_options(words: Sequence[str] | None, **named: Any) -> RuntimeOptions:
    """Read the options of an engine.

    Args:
        words: Each ``NAME=VALUE``, or ``provider_options.KEY=VALUE``, as `RuntimeOptions` has them.
        named: Options that the command has flags for; None where a flag was not given.

    Raises:
        UsageError: A word without a value, one of another kind, or an option that is given twice.
        UnknownNameError: No such option.
    """
    from edgeseg.runtimes import RuntimeOptions

    hints = get_type_hints(RuntimeOptions)
    values = {name: value for name, value in named.items() if value is not None}
    of_provider: dict[str, str] = {}
    for word in words or ():
        name, equals, text = word.partition("=")
        if not equals or not text:
            raise UsageError(f"--engine-option '{word}' has no value; write NAME=VALUE, such as cuda_graph=no")
        group, _, key = name.partition(".")
        taken, place, value = values, name, text
        if group == "provider_options" and key:
            taken, place = of_provider, key
        elif name not in hints or name == "provider_options":
            known = [field.name for field in fields(RuntimeOptions) if field.name != "provider_options"]
            raise UnknownNameError("engine option", name, [*known, "provider_options.KEY"])
        else:
            value = _read(name, text, get_args(hints[name]))
        if place in taken:
            raise UsageError(f"the engine option {name} is given twice; give it once")
        taken[place] = value
    return RuntimeOptions(**values, provider_options=of_provider)


def _read(name: str, text: str, kinds: tuple[Any, ...]) -> Any:
    """The value of an option of one of `kinds`."""
    if bool in kinds:
        if text.lower() not in _TRUTHS:
            raise UsageError(f"the engine option {name} is '{text}'; it must be yes or no")
        return _TRUTHS[text.lower()]
    if int in kinds:
        try:
            return int(text)
        except ValueError:
            raise UsageError(f"the engine option {name} is '{text}'; it must be a whole number") from None
    return text
