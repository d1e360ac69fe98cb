"""Which registered network a config's model is, option by option; what differs is named and never passed over."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from edgeseg.errors import UnknownNameError, UsageError
from edgeseg.models.configs.networks import PUBLISHED
from edgeseg.models.configs.options import BACKBONES, HEADS, NECKS, Options, flat_options, short_type, shown
from edgeseg.models.registry import list_models, model_spec
from edgeseg.text import one_line

__all__ = ["heads_of", "recognise_network"]

_SEGMENTORS = ("EncoderDecoder", "CascadeEncoderDecoder")
_READ = ("type", "backbone", "neck", "decode_head", "num_stages", "test_cfg")
_OTHER = frozenset({"auxiliary_head", "data_preprocessor", "train_cfg", "pretrained", "init_cfg"})
"""What a model says of training, or what is read elsewhere."""

_TEST = frozenset({"mode", "crop_size", "stride"})
"""What ``test_cfg`` says of the picture; `edgeseg.models.configs.pipeline` reads it."""

_MOST = 6
_ADVICE = "export such a network as a module of your own (package.module:factory)"


def heads_of(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the decode heads of a model, in the order of a cascade."""
    heads = model["decode_head"]
    return list(heads) if isinstance(heads, (list, tuple)) else [heads]


def recognise_network(model: Mapping[str, Any]) -> str:
    """Find the registered network that has all of a model's options.

    Args:
        model: What a config says under ``model``.

    Returns:
        Its registry name.

    Raises:
        UnknownNameError: A class that no registered network is made of.
        UsageError: No registered network has these options; names the nearest, and what differs.

    Example:
        >>> recognise_network({"type": "EncoderDecoder", **PUBLISHED["mmseg_pidnet_s"]})
        'mmseg_pidnet_s'
    """
    _check_parts(model)
    test_cfg = model.get("test_cfg") or {}
    if not isinstance(test_cfg, Mapping):
        raise UsageError(f"the config's test_cfg is {shown(test_cfg)}; it must be a dictionary")
    ours = _flat_model(model)
    differing = {name: _differences(ours, theirs) for name, theirs in _published().items()}
    nearest = min(differing, key=lambda name: (_of_types(differing[name]), len(differing[name])))
    if differing[nearest]:
        raise UsageError(_sentence(nearest, differing[nearest], ours, _published()[nearest]))
    return nearest


@lru_cache(maxsize=1)
def _published() -> dict[str, Options]:
    return {name: _flat_model(model) for name, model in PUBLISHED.items()}


def _flat_model(model: Mapping[str, Any]) -> Options:
    """Return all options of a model that matter for inference, its parts' defaults included."""
    flat: Options = {"type": short_type(model)}
    if "num_stages" in model:
        flat["num_stages"] = model["num_stages"]
    for place, part in _parts(model):
        flat |= flat_options(part, place)
    flat |= {f"test_cfg.{key}": value for key, value in (model.get("test_cfg") or {}).items() if key not in _TEST}
    flat |= {key: value for key, value in model.items() if key not in _READ and key not in _OTHER}
    return _counted_from_first(flat)


def _parts(model: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "backbone", model["backbone"]
    if model.get("neck") is not None:
        yield "neck", model["neck"]
    heads = model["decode_head"]
    if isinstance(heads, (list, tuple)):
        yield from ((f"decode_head.{k}", head) for k, head in enumerate(heads))
    else:
        yield "decode_head", heads


def _counted_from_first(flat: Options) -> Options:
    """Count a head's maps from the first where they are counted from the last, and their number is known."""
    maps = flat.get("neck.num_outs", flat.get("backbone.out_indices"))
    count = len(maps) if isinstance(maps, tuple) else maps if "neck.num_outs" in flat else None
    if not isinstance(count, int):
        return flat
    return {
        key: value + count if key.endswith(".in_index") and isinstance(value, int) and value < 0 else value
        for key, value in flat.items()
    }


def _differences(ours: Options, theirs: Options) -> list[str]:
    """List the options, in the config's order, that two models do not share; of a part of another class its class."""
    keys = [*ours, *(key for key in theirs if key not in ours)]
    differing = [key for key in keys if key not in ours or key not in theirs or ours[key] != theirs[key]]
    parts = tuple(key.removesuffix("type") for key in differing if key.endswith(".type"))
    return [key for key in differing if key.endswith(".type") or not key.startswith(parts)]


def _of_types(keys: list[str]) -> int:
    return sum(key == "type" or key.endswith(".type") for key in keys)


def _sentence(name: str, keys: list[str], ours: Options, theirs: Options) -> str:
    keys = sorted(keys, key=lambda key: not (key == "type" or key.endswith(".type")))  # what explains the rest
    told = [_difference(key, ours, theirs) for key in keys[:_MOST]]
    more = f" and {len(keys) - _MOST} more" if len(keys) > _MOST else ""
    return (
        f"no registered network has all options of the config's model; the nearest is '{name}', which differs in "
        f"{', '.join(told)}{more}; {_ADVICE}"
    )


def _difference(key: str, ours: Options, theirs: Options) -> str:
    place = f"model.{one_line(key, 80)}"
    if key not in ours:
        return f"{place} (not given, there {shown(theirs[key])})"
    return f"{place}={shown(ours[key])} ({f'there {shown(theirs[key])}' if key in theirs else 'there no such option'})"


def _check_parts(model: Mapping[str, Any]) -> None:
    """Refuse a model of another form, and classes that no registered network is made of."""
    name = short_type(model)
    if name not in _SEGMENTORS:
        raise UnknownNameError("model.type", name, _SEGMENTORS)
    for key in ("backbone", "decode_head"):
        if not model.get(key):
            raise UsageError(f"the config's model has no {key}; give the config of a whole network")
    for place, part in _parts(model):
        if not isinstance(part, Mapping) or not short_type(part):
            raise UsageError(f"model.{place} is {shown(part)}; it must be a dictionary with a 'type'")
        known = _KNOWN[place.partition(".")[0]]
        if short_type(part) not in known:
            raise UsageError(_unknown(place, short_type(part), known))


_KNOWN: dict[str, dict[str, Options]] = {"backbone": BACKBONES, "neck": NECKS, "decode_head": HEADS}


def _unknown(place: str, name: str, known: Mapping[str, Options]) -> str:
    """Say that no network is made of a class, what is nearest, and where the same system stands in another form."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or list(known)
    systems = {re.sub(r"\W", "", model_spec(each).system.lower()): each for each in reversed(list_models())}
    other = systems.get(re.sub(r"\W", "", name.lower()))
    also = f" ('{other}' is registered, but has another implementation's keys)" if other else ""
    return (
        f"no network that edgeseg has from mmsegmentation has model.{place}.type='{one_line(name, 60)}'{also}; "
        f"{'nearest is' if len(near) == 1 else 'known are'} {', '.join(near)}; {_ADVICE}"
    )
