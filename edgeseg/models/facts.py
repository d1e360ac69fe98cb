"""What is known of the registered networks without building them: the rows of ``edgeseg models``, and fingerprints.

Both lie in ``edgeseg/data``. ``python -m edgeseg.models.facts`` writes them anew from the registry; a test holds both
sides equal. Reading them needs no torch.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.models.spec import ModelSpec
    from edgeseg.specs import Size

__all__ = [
    "Fingerprint",
    "count_or_none",
    "fingerprint",
    "fingerprint_of",
    "read_fingerprints",
    "read_rows",
    "row_of",
    "write",
]

_DATA = Path(__file__).resolve().parents[1] / "data"
_ROWS, _PRINTS = _DATA / "networks.json", _DATA / "fingerprints.json"
_WIDTH = 4
_COUNTER = re.compile(r"(^|\.)num_batches_tracked$")


@dataclass(frozen=True)
class Fingerprint:
    """Keys and shapes of a network's tensors, small.

    Attributes:
        words: `fingerprint_of` each tensor whose shape does not depend on the number of classes.
        free: Shapes of the others by key; 0 stands for a side that depends on it.
        ignores: The network's ``checkpoint_ignores``.
    """

    words: frozenset[int]
    free: dict[str, tuple[int, ...]]
    ignores: tuple[str, ...]


def fingerprint_of(key: str, shape: Sequence[int]) -> int:
    """Return a tensor as 32 bits: 24 of its key and 8 of its key and shape."""
    sides = ",".join(str(side) for side in shape)
    upper = hashlib.blake2b(key.encode(errors="replace"), digest_size=3).digest()
    lower = hashlib.blake2b(f"{key}:{sides}".encode(errors="replace"), digest_size=1).digest()
    return int.from_bytes(upper + lower, "big")


# --- reading


@lru_cache(maxsize=1)
def read_rows() -> dict[str, dict[str, Any]]:
    """Return the facts of every network by name, in the registry's order, as `row_of` gives them and with ``macs``.

    ``macs`` are those of one image of the network's own size; None where they cannot be counted.

    Example:
        >>> row = read_rows()["pidnet_s"]
        >>> row["system"], row["parameters"], row["size"]
        ('PIDNet', 7625715, [1024, 2048])
    """
    rows: list[dict[str, Any]] = json.loads(_ROWS.read_text(encoding="utf-8"))
    return {row["name"]: row for row in rows}


@lru_cache(maxsize=1)
def read_fingerprints() -> dict[str, Fingerprint]:
    """Return the fingerprints of every network by name."""
    stored: dict[str, Any] = json.loads(_PRINTS.read_text(encoding="utf-8"))
    return {name: _unpacked(entry) for name, entry in stored.items()}


def _unpacked(entry: dict[str, Any]) -> Fingerprint:
    packed = base64.b64decode(entry["words"])
    words = (int.from_bytes(packed[at : at + _WIDTH], "big") for at in range(0, len(packed), _WIDTH))
    free = {key: tuple(sides) for key, sides in entry["free"].items()}
    return Fingerprint(frozenset(words), free, tuple(entry["ignores"]))


# --- making


def row_of(spec: ModelSpec) -> dict[str, Any]:
    """Return the facts of a network, but for its multiply-accumulates."""
    return {
        "name": spec.name,
        "system": spec.system,
        "year": spec.year,
        "parameters": spec.params,
        "size": list(spec.input_size),
        "min_side": spec.min_side,
        "classes": spec.num_classes,
        "labels": spec.labels,
        "divisor": spec.divisor,
        "accuracy": spec.accuracy,
        "weights_licence": spec.weights_licence,
        "paper": spec.paper,
        "source": spec.source,
        "notes": spec.notes,
    }


def count_or_none(name: str, size: Size) -> int | None:
    """Return the multiply-accumulates of a registered network for one image of `size` (height x width).

    Returns:
        None where they cannot be counted, such as at a size that is too small for a pooling.
    """
    from edgeseg.models.count import count_macs
    from edgeseg.models.registry import build_on_meta

    try:
        return count_macs(build_on_meta(name), size)
    except Exception:  # whatever a network raises at a size it cannot take: the list shows "-"
        return None


def fingerprint(name: str) -> Fingerprint:
    """Return the fingerprint of a registered network, which is built several times for it."""
    from edgeseg.models.registry import build_on_meta, model_spec

    own = model_spec(name).num_classes
    modules = [build_on_meta(name, own + more) for more in (0, 1, 7, 64)]
    shapes = [
        {key: tuple(value.shape) for key, value in module.state_dict().items() if not _COUNTER.search(key)}
        for module in modules
    ]
    words, free = set(), {}
    for key, sides in shapes[0].items():
        others = [each[key] for each in shapes]
        if all(other == sides for other in others):
            words.add(fingerprint_of(key, sides))
        else:
            free[key] = tuple(at[0] if len(set(at)) == 1 else 0 for at in zip(*others, strict=True))
    return Fingerprint(frozenset(words), free, tuple(getattr(modules[0], "checkpoint_ignores", ())))


def _packed(known: Fingerprint) -> dict[str, Any]:
    words = b"".join(word.to_bytes(_WIDTH, "big") for word in sorted(known.words))
    return {"words": base64.b64encode(words).decode(), "free": known.free, "ignores": list(known.ignores)}


def write(progress: Callable[[str], None] = print) -> None:
    """Write both files anew.

    Args:
        progress: Called with the name of each network.

    Raises:
        StorageError: The files cannot be written.
    """
    from edgeseg.files import write_text
    from edgeseg.models.registry import list_models, model_spec

    rows, prints = [], {}
    for name in list_models():
        progress(name)
        spec = model_spec(name)
        rows.append({**row_of(spec), "macs": count_or_none(name, spec.input_size)})
        prints[name] = _packed(fingerprint(name))
    write_text(_ROWS, _lines("[", "]", [_compact(row) for row in rows]))
    write_text(_PRINTS, _lines("{", "}", [f"{_compact(name)}: {_compact(each)}" for name, each in prints.items()]))


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _lines(first: str, last: str, entries: list[str]) -> str:
    """Return a JSON container with one entry a line, so that a change shows as the networks it concerns."""
    return first + "\n" + ",\n".join(entries) + "\n" + last + "\n"


if __name__ == "__main__":
    write()
