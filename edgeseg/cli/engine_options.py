"""Options of the engine, as commands take them: some by name, the rest as ``--engine-option NAME=VALUE``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from edgeseg.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from edgeseg.runtimes import RuntimeOptions

__all__ = ["options_of_each", "runtime_options"]

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


def options_of_each(targets: Sequence[str], given: RuntimeOptions) -> dict[str, RuntimeOptions]:
    """Give each of several engines the options that it takes; one alone gets all, and refuses what it has no use for.

    Args:
        targets: Canonical target names.
        given: As `runtime_options` read them.

    Raises:
        UsageError: A device for several engines, which name devices differently, or an option that none takes.
    """
    from edgeseg.runtimes import engines

    if len(targets) == 1:
        return {targets[0]: given}
    if given.device is not None:
        raise UsageError(
            f"--device {given.device} is a word of one engine, and {len(targets)} are to run ({', '.join(targets)}); "
            "name that one with --target"
        )
    plain, records = type(given)(), {record.name: record.options for record in engines()}
    unset = {field.name: getattr(plain, field.name) for field in fields(plain)}
    for name in (name for name, value in unset.items() if getattr(given, name) != value):
        if not any(name in records.get(target, {}) for target in targets):
            raise UsageError(
                f"none of {', '.join(targets)} has a use for {name}={getattr(given, name)!r}; leave it out"
            )
    return {
        target: replace(given, **{name: value for name, value in unset.items() if name not in records.get(target, {})})
        for target in targets
    }
