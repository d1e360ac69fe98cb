"""Which operators must stay float: found by measurement, the worst first, until the accuracy budget holds.

A cheap proxy comes first: both graphs run once with every lowered operator's output exposed, and the noise that appears
at an operator and not before it is its own. The most suspicious ones are then measured: each is put back into float
alone, and the drop of the logits' error is what it costs. The ranking's shortest prefix that holds the budget is kept
in float, found by doubling and halving.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import shape_inference

from edgeseg.export.precision.scoring import Score, Scorer

__all__ = ["Found", "Ranked", "own_noise", "rank", "search"]

Rebuild = Callable[[Collection[str]], onnx.ModelProto]
"""Names to keep in float -> the graph with all others lowered."""

MOST_MEASURED = 48
_PICTURES = 2


@dataclass(frozen=True)
class Ranked:
    """An operator and what it costs: the share by which the logits' error falls when it alone stays float."""

    node: str
    gain: float


@dataclass(frozen=True)
class Found:
    """What a search ended with.

    Attributes:
        model: The graph.
        kept: Operators kept in float.
        score: The graph's score.
        holds: Whether it holds the budget.
    """

    model: onnx.ModelProto
    kept: tuple[Ranked, ...]
    score: Score
    holds: bool


def rank(rebuild: Rebuild, names: Sequence[str], noise: Mapping[str, float], scorer: Scorer) -> list[Ranked]:
    """Operators in falling order of what they cost; those that were not measured come last, by the proxy.

    Args:
        rebuild: See `Rebuild`.
        names: Lowered operators.
        noise: The proxy, such as `own_noise` gives.
        scorer: Measures.
    """
    suspicious = sorted(names, key=lambda name: -noise.get(name, 0.0))
    base = scorer.error(rebuild(()), _PICTURES)
    measured = []
    for name in suspicious[:MOST_MEASURED]:
        alone = scorer.error(rebuild((name,)), _PICTURES)
        measured.append(Ranked(name, 1.0 - alone / base if base else 0.0))
    measured.sort(key=lambda entry: -entry.gain)
    return measured + [Ranked(name, 0.0) for name in suspicious[MOST_MEASURED:]]


def search(rebuild: Rebuild, ranking: Sequence[Ranked], scorer: Scorer, holds: Callable[[Score], bool]) -> Found:
    """The shortest prefix of a ranking that, kept in float, holds the budget; the last one tried where none does."""

    def attempt(count: int) -> Found:
        kept = tuple(ranking[:count])
        model = rebuild({entry.node for entry in kept})
        score = scorer.graph(model)
        return Found(model, kept, score, holds(score))

    low, count = 0, 1
    best = attempt(min(count, len(ranking)))
    while not best.holds and count < len(ranking):
        low, count = count, min(2 * count, len(ranking))
        best = attempt(count)
    high = count
    while best.holds and high - low > max(1, high // 8):
        middle = (low + high) // 2
        tried = attempt(middle)
        if tried.holds:
            best, high = tried, middle
        else:
            low = middle
    return best


def own_noise(
    original: onnx.ModelProto, lowered: onnx.ModelProto, names: Sequence[str], image: NDArray[np.uint8], batch: int = 1
) -> dict[str, float]:
    """Noise an operator adds: of its output less the largest of its inputs, each relative to the signal's power.

    Args:
        original: Float graph.
        lowered: The same graph in low precision; outputs of operators keep their names.
        names: Operators.
        image: uint8 (H, W, C).
        batch: Of the graph.
    """
    nodes = {node.name: node for node in original.graph.node}
    outputs = [nodes[name].output[0] for name in names if name in nodes]
    feed = {"image": np.stack([image] * batch)}
    ratios: dict[str, float] = {}
    for start in range(0, len(outputs), _CHUNK):
        chunk = outputs[start : start + _CHUNK]
        ratios |= _noise_ratios(_tapped(original, chunk, feed), _tapped(lowered, chunk, feed))
    noise = {}
    for name in names:
        if name in nodes:
            before = max((ratios.get(source, 0.0) for source in nodes[name].input), default=0.0)
            noise[name] = ratios.get(nodes[name].output[0], 0.0) - before
    return noise


_CHUNK = 32
"""Tensors exposed at a time: all of them at once would fill the memory of a small machine."""


def _noise_ratios(wanted: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    ratios = {}
    for name in wanted.keys() & got.keys():
        signal = float(np.mean(np.square(wanted[name], dtype=np.float64)))
        error = float(np.mean(np.square(got[name].astype(np.float64) - wanted[name])))
        ratios[name] = error / signal if signal else 0.0
    return ratios


def _tapped(model: onnx.ModelProto, names: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Float tensors of a graph, by name."""
    from edgeseg.graph.run import run_graph

    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    produced = {output for node in model.graph.node for output in node.output}
    kinds = {value.name: value for value in shape_inference.infer_shapes(model).graph.value_info}
    wanted = [name for name in dict.fromkeys(names) if name in produced and name in kinds]
    wanted = [name for name in wanted if kinds[name].type.tensor_type.elem_type in _FLOATS]
    if not wanted:
        return {}
    del tapped.graph.output[:]
    tapped.graph.output.extend(kinds[name] for name in wanted)
    return dict(zip(wanted, run_graph(tapped, feed), strict=True))


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
