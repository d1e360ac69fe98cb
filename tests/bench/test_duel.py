"""Contenders in processes of their own take turns; ratios come with an interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeseg.bench.duel import Contender, alternate, pair_ratio, run_block
from edgeseg.errors import EdgesegError

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests.bench.test_duel"


def waiting(seconds: float) -> Callable[[], None]:
    print("what an engine prints must not be taken for an answer")
    return lambda: time.sleep(seconds)


def broken() -> Callable[[], None]:
    raise ValueError("no such graph\nand more")


def test_a_contender_answers_block_by_block() -> None:
    with Contender(f"{HERE}:waiting", {"seconds": 0.002}, path=[ROOT]) as contender:
        first, second = contender.block(0.0), contender.block(0.02)
    assert len(first) == 3
    assert len(second) >= 3
    assert min(first + second) >= 2.0


def test_a_factory_that_fails_is_quoted() -> None:
    with pytest.raises(EdgesegError, match=r"test_duel:broken failed: ValueError: no such graph$"):
        Contender(f"{HERE}:broken", {}, path=[ROOT])


def test_a_module_that_is_not_there_is_told() -> None:
    with pytest.raises(EdgesegError, match="ModuleNotFoundError"):
        Contender("no.such.module:anything", {}, path=[ROOT])


def test_running_after_the_end_is_told() -> None:
    contender = Contender(f"{HERE}:waiting", {"seconds": 0.0}, path=[ROOT])
    contender.close()
    with pytest.raises(EdgesegError, match="has ended"):
        contender.block(0.0)


def test_turns_change_order_and_the_first_block_is_left_out() -> None:
    order: list[str] = []

    def turn(name: str) -> Callable[[float], list[float]]:
        def block(seconds: float) -> list[float]:
            order.append(name)
            return [seconds]

        return block

    samples = alternate({name: turn(name) for name in "abc"}, blocks=2, seconds=0.5, gap=0.0)
    assert "".join(order) == "abcbcacab"
    assert samples == {name: [[0.5], [0.5]] for name in "abc"}


def test_ratio_of_block_medians() -> None:
    ratio = pair_ratio([[4.0, 4.0, 100.0], [4.0], [5.0]], [[2.0], [2.0], [2.0]])
    assert ratio.value == 2.0
    assert ratio.low == 2.0
    assert 2.0 <= ratio.high <= 2.5
    assert ratio.to_json() == {"ratio": 2.0, "ratio_95": [ratio.low, ratio.high]}


def test_a_block_is_three_frames_at_least() -> None:
    assert len(run_block(lambda: None, 0.0)) == 3
