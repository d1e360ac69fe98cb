"""Finding the operators that must stay float: the ranking, and the shortest prefix that holds a budget."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgeseg.export.precision.calibration import Picture
from edgeseg.export.precision.int8 import quantise
from edgeseg.export.precision.scoring import Score, Scorer
from edgeseg.export.precision.sensitivity import Ranked, own_noise, rank, search
from edgeseg.graph.qdq import quantised_nodes, without_quantisers
from tests.export.networks import own_spec
from tests.export.precision.pictures import expected_of, images, smooth, tiny_graph, write_pictures


class _Fake:
    """A scorer of graphs that only say, in their name, which operators are in float."""

    def __init__(self, cost: dict[str, float]) -> None:
        self.cost, self.tried = cost, 0

    def graph(self, model: onnx.ModelProto) -> Score:
        self.tried += 1
        return Score(1.0 - self._left(model), None, 0.0)

    def error(self, model: onnx.ModelProto, most: int) -> float:
        return self._left(model)

    def _left(self, model: onnx.ModelProto) -> float:
        return sum(cost for name, cost in self.cost.items() if name not in model.graph.name.split(","))


def _rebuild(keep: Collection[str]) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.graph.name = ",".join(keep)
    return model


COST = {f"n{index}": 0.1 / (index + 1) for index in range(20)}


def test_the_worst_come_first() -> None:
    scorer: Any = _Fake(COST)
    ranking = rank(_rebuild, list(reversed(COST)), {}, scorer)
    assert [entry.node for entry in ranking] == list(COST)
    assert ranking[0].gain == pytest.approx(0.1 / sum(COST.values()))


@pytest.mark.parametrize("budget", [0.7, 0.8, 0.9, 0.95, 0.99])
def test_search_keeps_about_as_few_as_it_must(budget: float) -> None:
    scorer: Any = _Fake(COST)
    ranking = [Ranked(name, cost) for name, cost in COST.items()]
    found = search(_rebuild, ranking, scorer, lambda score: score.agreement >= budget)
    needed = next(n for n in range(1, 21) if 1.0 - sum(list(COST.values())[n:]) >= budget)
    assert found.holds
    assert needed <= len(found.kept) <= needed + 2
    assert scorer.tried <= 10


def test_search_says_where_nothing_holds() -> None:
    scorer: Any = _Fake(COST | {"elsewhere": 0.5})
    ranking = [Ranked(name, cost) for name, cost in COST.items()]
    found = search(_rebuild, ranking, scorer, lambda score: score.agreement >= 0.9)
    assert not found.holds
    assert len(found.kept) == 20


def test_on_a_quantised_network(tmp_path: Path) -> None:
    model, network = tiny_graph()
    quantised = quantise(model, images(write_pictures(tmp_path / "c", 3)))
    held = [smooth(30), smooth(31)]
    pictures = [Picture(Path("held"), image) for image in held]
    scorer = Scorer(pictures, expected_of(network, held), own_spec().postprocess, 5)
    names = quantised_nodes(quantised)
    noise = own_noise(model, quantised, names, held[0])
    assert set(noise) == set(names)
    assert all(value > 0 for value in noise.values() if value)

    def rebuild(keep: Collection[str]) -> onnx.ModelProto:
        return without_quantisers(quantised, model, keep)

    ranking = rank(rebuild, names, noise, scorer)
    assert {entry.node for entry in ranking} == set(names)
    before = scorer.graph(quantised)
    found = search(rebuild, ranking, scorer, lambda score: score.error <= before.error / 1.01)
    assert found.holds
    assert 1 <= len(found.kept) <= len(names)
    undone = scorer.graph(rebuild(names))
    assert undone.agreement == pytest.approx(1.0, abs=1e-3)
    assert undone.error < 1e-5
