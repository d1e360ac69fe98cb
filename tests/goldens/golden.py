"""Golden records: how the numbers in this folder were made, and how to compare with them.

A record is what a published implementation computes when every tensor of its own state dict is filled
by `fill` and its input by `make_input`, in float64 and eval mode. It holds the published keys and
shapes, never a published weight.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Record = dict[str, Any]
Array = NDArray[np.float64]


def fill(key: str, shape: Sequence[int]) -> Array:
    """Value of the tensor `key`: float64, a function of the key and the shape alone."""
    shape = tuple(int(s) for s in shape)
    rng = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
    leaf = key.rsplit(".", 1)[-1]
    if leaf in ("running_var", "_variance"):
        return rng.uniform(0.5, 1.5, shape)
    if leaf in ("running_mean", "_mean"):
        return np.asarray(rng.standard_normal(shape) * 0.1)
    if len(shape) >= 2:
        fan_in = int(np.prod(shape[1:])) or 1
        return np.asarray(rng.standard_normal(shape) * np.sqrt(1.6 / fan_in))
    if "bias" in leaf or leaf == "beta":
        return np.asarray(rng.standard_normal(shape) * 0.1)
    return rng.uniform(0.5, 1.1, shape)


def make_input(shape: Sequence[int], seed: int = 0) -> Array:
    """The network's input: float64 NCHW, about [-2, 2], smooth with a little noise."""
    n, c, h, w = shape
    rng = np.random.RandomState(seed + 20260101)
    y, x = np.linspace(0, 1, h)[:, None], np.linspace(0, 1, w)[None, :]
    planes = []
    for _ in range(n * c):
        a, b, p, q = rng.uniform(1, 6, 4)
        planes.append(np.sin(a * x + b * y + p) + 0.5 * np.cos(q * (x - y)))
    return np.asarray(np.stack(planes).reshape(shape) + rng.standard_normal(tuple(shape)) * 0.1)


def published_state(record: Record) -> dict[str, Array]:
    """Published state dict of a record: {key: float64 array} for every key that is filled.

    Keys marked "keep" (integer counters, constants) are left out: the module keeps what its constructor
    gave them, unless the record lists them under `kept_values`. Keys in `aliases` name the same tensor as
    another key and are left out too; without `aliases`, where two keys name one tensor the later one wins.
    """
    aliases = record.get("aliases", {})
    return {k: fill(k, s) for k, s, how in record["state"] if how == "fill" and k not in aliases}


def sample_places(shape: Sequence[int]) -> NDArray[np.int64]:
    """Flat indices whose values a record keeps of an output of this shape."""
    n = int(np.prod(shape))
    every = np.arange(n) if n <= 2048 else np.sort(np.random.RandomState(7).choice(n, 2048, replace=False))
    return every[::4]


def worst_error(record: Record, outputs: Sequence[Array]) -> float:
    """Largest |difference| over all kept places, relative to each output's absmax; inf on a shape mismatch."""
    if len(outputs) != len(record["outputs"]):
        return float("inf")
    worst = 0.0
    for want, got in zip(record["outputs"], outputs, strict=True):
        got = np.asarray(got, dtype=np.float64)
        if list(got.shape) != want["shape"]:
            return float("inf")
        diff = np.abs(got.reshape(-1)[sample_places(want["shape"])] - np.array(want["value"])).max()
        worst = max(worst, float(diff) / max(want["absmax"], 1e-30))
    return worst
