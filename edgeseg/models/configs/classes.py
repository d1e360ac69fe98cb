"""Names and colours of the classes, and how a head's outputs become labels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from edgeseg.errors import UsageError
from edgeseg.labels import MOST_CLASSES, Color, LabelSet, label_set
from edgeseg.models.configs.options import short_type, shown
from edgeseg.models.configs.pipeline import dataset_of
from edgeseg.text import one_line

__all__ = ["Outputs", "read_labels", "read_outputs"]

_SETS = {
    "CityscapesDataset": "cityscapes", "DarkZurichDataset": "cityscapes", "NightDrivingDataset": "cityscapes",
    "BDD100KDataset": "cityscapes", "PascalVOCDataset": "voc", "CamVidDataset": "camvid", "CamvidDataset": "camvid",
}  # fmt: skip
"""Data sets whose classes are a label set of `edgeseg.labels`."""

_LONGEST_NAME = 200
_USUAL_THRESHOLD = 0.3
"""Of mmsegmentation, on a probability."""


@dataclass(frozen=True)
class Outputs:
    """What the last head gives.

    Attributes:
        channels: Of the logits.
        classes: Number of labels: two for one channel.
        threshold: On the logit, of one channel: label 1 above it.
    """

    channels: int
    classes: int
    threshold: float = 0.0


def read_outputs(heads: Sequence[Mapping[str, Any]]) -> Outputs:
    """Read the number of classes of a cascade's heads, and a single channel's threshold, which is on a probability.

    Raises:
        UsageError: A head has none, two differ, or the threshold is no probability between 0 and 1.

    Example:
        >>> read_outputs([{"type": "FCNHead", "num_classes": 2, "out_channels": 1, "threshold": 0.5}])
        Outputs(channels=1, classes=2, threshold=0.0)
    """
    told = [number for head in heads for number in _numbers_of(head)]
    if not told:
        raise UsageError("the config's decode_head has no num_classes; give the config of a whole network")
    for number in told:
        if type(number) is not int or not 1 <= number <= MOST_CLASSES:
            raise UsageError(f"decode_head.num_classes is {shown(number)}; it must be 1 to {MOST_CLASSES}")
    if len(set(told)) > 1:
        raise UsageError(f"the config's heads have {told[0]} and {max(set(told) - {told[0]})} classes; give them one")
    classes, last = told[-1], heads[-1]
    channels = last.get("out_channels")
    channels = classes if channels is None else channels
    if channels != classes and (channels, classes) != (1, 2):
        raise UsageError(
            f"decode_head.out_channels is {shown(channels)} for {classes} classes; it must be as many, or 1 for 2"
        )
    return Outputs(channels, max(2, classes), _logit(last.get("threshold")) if channels == 1 else 0.0)


def _numbers_of(head: Mapping[str, Any]) -> list[Any]:
    """List the numbers of classes of a head and of those inside it."""
    inner = head.get("kernel_generate_head")
    updates = head.get("kernel_update_head") or ()
    parts = [
        head,
        *([inner] if isinstance(inner, Mapping) else []),
        *(each for each in updates if "num_classes" in each),
    ]
    return [part["num_classes"] for part in parts if "num_classes" in part]


def _logit(probability: Any) -> float:
    """Return the logit of mmsegmentation's threshold, which it compares with the sigmoid."""
    p = _USUAL_THRESHOLD if probability is None else probability
    if not isinstance(p, (int, float)) or not 0.0 < p < 1.0:
        raise UsageError(
            f"decode_head.threshold is {shown(p)}; it must be a probability between 0 and 1, both excluded"
        )
    return math.log(p / (1.0 - p))


def read_labels(config: Mapping[str, Any], classes: int) -> tuple[LabelSet, tuple[str, ...]]:
    """Read names and colours of the classes: the config's own, else those of its data set.

    Args:
        config: The whole.
        classes: Number of labels.

    Returns:
        The label set, generic where nothing fits, and sentences the user must see.

    Raises:
        UsageError: Classes or colours of another form.

    Example:
        >>> found, notes = read_labels({"dataset_type": "PascalVOCDataset"}, 21)
        >>> found.names[15], notes
        ('person', ())
    """
    dataset = dataset_of(config)
    name = short_type(dataset) or short_type(config.get("dataset_type"))
    steps = [dataset, *(step for step in dataset.get("pipeline") or () if isinstance(step, Mapping))]
    reduced = name in _REDUCED or any(step.get("reduce_zero_label") for step in steps)
    notes = [_ZERO] if reduced else []
    given = _given(config, dataset)
    found = _own(name, given, classes) if given else _of_dataset(name, classes)
    if found is None:
        why = f"the config names {len(given[0]) if given else 'no'} classes"
        if not given and name:
            why = f"{classes} classes of {one_line(name, 60)} are not known here"
        notes.append(f"{why}: the network's {classes} labels have generic names; give them in metainfo, or --labels")
        return label_set("generic", classes), tuple(notes)
    if _SETS.get(name) == "camvid" and not given:
        notes.append("projects order CamVid's classes differently; the names are in the order of SegNet's split")
    return found, tuple(notes)


_REDUCED = frozenset({"ADE20KDataset", "PascalContextDataset59", "LoveDADataset", "PotsdamDataset", "ISPRSDataset"})
_ZERO = (
    "the config shifts label maps by one: their 0 is void and k + 1 means class k; evaluate with --reduce-zero-label"
)
_Given = tuple[list[str], list[Color] | None]


def _given(config: Mapping[str, Any], dataset: Mapping[str, Any]) -> _Given | None:
    """Return the classes that a config names itself, and their colours."""
    for place in (dataset.get("metainfo"), dataset, config.get("metainfo")):
        if isinstance(place, Mapping) and (place.get("classes") or place.get("CLASSES")):
            colors = place.get("palette") or place.get("PALETTE")
            return _names(place.get("classes") or place.get("CLASSES")), _palette(colors)
    return None


def _names(values: Any) -> list[str]:
    good = isinstance(values, (list, tuple)) and len(values) <= MOST_CLASSES
    if not good or not all(isinstance(each, str) and len(each) <= _LONGEST_NAME for each in values):
        raise UsageError(f"the config's classes are {shown(values)}; they must be a list of names")
    return [each.strip() for each in values]


def _palette(values: Any) -> list[Color] | None:
    if values is None or values == "random":
        return None
    if not isinstance(values, (list, tuple)) or not all(map(_is_color, values)):
        raise UsageError(f"the config's palette is {shown(values)}; it must be a list of three numbers 0..255 each")
    return [(each[0], each[1], each[2]) for each in values]


def _is_color(value: Any) -> bool:
    parts = value if isinstance(value, (list, tuple)) and len(value) == 3 else ()
    return len(parts) == 3 and all(type(part) is int and 0 <= part <= 255 for part in parts)


def _own(name: str, given: _Given, classes: int) -> LabelSet | None:
    """Return the config's own classes, where they are as many as the network's."""
    names, palette = given
    if palette is not None and len(palette) != len(names):
        raise UsageError(f"the config's palette has {len(palette)} colours for {len(names)} classes; give one for each")
    if len(names) != classes:
        return None
    known = _of_dataset(name, classes)
    if palette is None and known is not None and known.names == tuple(names):
        return known
    colors = tuple(palette) if palette is not None else label_set("generic", classes).palette
    return LabelSet("generic", tuple(names), colors)


def _of_dataset(name: str, classes: int) -> LabelSet | None:
    """Return the classes of a data set that is known, where they are as many as the network's."""
    found = label_set(_SETS.get(name, "generic"), classes)
    if found.name != "generic":
        return found
    table = _tables().get(name)
    if table is None or len(table["classes"]) != classes:
        return None
    return LabelSet("generic", tuple(table["classes"]), tuple((r, g, b) for r, g, b in table["palette"]), 255)


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    """Read classes and colours of public data sets."""
    file = resources.files("edgeseg") / "data" / "mmseg_classes.json"
    tables: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {name: tables[entry] if isinstance(entry, str) else entry for name, entry in tables.items()}
