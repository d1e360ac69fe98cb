"""How a config joins what the files say that it is based on: mmengine's rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgeseg.models.configs.limits import ConfigError
from edgeseg.text import one_line

__all__ = ["join_bases", "merged"]

_DELETE = "_delete_"


def join_bases(bases: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Join what several files say.

    Raises:
        ConfigError: Two of them say something of the same name.

    Example:
        >>> join_bases([{"model": {}}, {"dataset_type": "ADE20KDataset"}])
        {'model': {}, 'dataset_type': 'ADE20KDataset'}
    """
    joined: dict[str, Any] = {}
    for base in bases:
        twice = sorted(joined.keys() & base.keys())
        if twice:
            raise ConfigError(
                f"is based on files of which two assign '{one_line(twice[0], 60)}'; leave it in one of them"
            )
        joined.update(base)
    return joined


def merged(base: Mapping[str, Any], own: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Put what a config says over its base: dictionaries are joined, all else is replaced.

    A dictionary with ``_delete_=True`` replaces the base's as a whole.

    Args:
        base: What the config is based on.
        own: What it says itself.
        path: Where in the config this is, for messages.

    Raises:
        ConfigError: A dictionary stands where the base has something else.

    Example:
        >>> merged({"model": {"depth": 50, "neck": 1}}, {"model": {"depth": 18}})
        {'model': {'depth': 18, 'neck': 1}}
        >>> merged({"model": {"depth": 50}}, {"model": {"_delete_": True, "width": 2}})
        {'model': {'width': 2}}
    """
    result = dict(base)
    for key, value in own.items():
        if key == _DELETE:
            continue
        place = f"{path}.{key}" if path else str(key)
        if not isinstance(value, Mapping) or value.get(_DELETE) or key not in base:
            result[key] = _clean(value)
        elif isinstance(base[key], Mapping):
            result[key] = merged(base[key], value, place)
        else:
            raise ConfigError(
                f"has a dictionary for {one_line(place, 80)}, for which its base has none; write _delete_=True into it"
            )
    return result


def _clean(value: Any) -> Any:
    """Leave out the mark of a replaced dictionary."""
    return {key: _clean(each) for key, each in value.items() if key != _DELETE} if isinstance(value, Mapping) else value
