"""Contenders in processes of their own take turns; ratios come with an interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edgeseg.bench.paired import Contender, alternate, frame_ratio, pair_ratio, run_block, take_turns
from edgeseg.errors import EdgesegError

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests.bench.test_paired"


def waiting(seconds: float) -> Callable[[], None]:
    print("what an engine prints must not be taken for an answer")
    return lambda: time.sleep(seconds)


def two(seconds: float) -> dict[str, Callable[[], None]]:
    return {"slow": waiting(2 * seconds), "fast": waiting(seconds)}


def broken() -> Callable[[], None]:
    raise ValueError("no such graph\nand more")


def test_a_contender_answers_block_by_block() -> None:
    with Contender(f"{HERE}:waiting", {"seconds": 0.002}, path=[ROOT]) as contender:
        first, second = contender.block(0.0), contender.block(0.02)
    assert len(first) == 3
    assert len(second) >= 3
    assert min(first + second) >= 2.0


def test_several_take_turns_in_one_process() -> None:
    with Contender(f"{HERE}:two", {"seconds": 0.002}, path=[ROOT]) as contender:
        times = contender.turns(0.0)
    assert {name: len(found) for name, found in times.items()} == {"slow": 10, "fast": 10}
    assert min(times["slow"]) >= 4.0
    assert frame_ratio(times["slow"], times["fast"]).value > 1.0


def test_a_factory_that_fails_is_quoted() -> None:
    with pytest.raises(EdgesegError, match=r"test_paired:broken failed: ValueError: no such graph$"):
        Contender(f"{HERE}:broken", {}, path=[ROOT])


def test_a_missing_module_is_reported() -> None:
    with pytest.raises(EdgesegError, match="ModuleNotFoundError"):
        Contender("no.such.module:anything", {}, path=[ROOT])


def test_running_after_the_end_is_reported() -> None:
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


def test_the_order_turns_round_and_two_turns_warm_up() -> None:
    order: list[str] = []
    times = take_turns({name: partial(order.append, name) for name in "ab"}, 0.0)
    assert "".join(order).startswith("baabbaab")
    assert len(order) == 24
    assert {len(found) for found in times.values()} == {10}


def test_ratio_of_frames_that_took_turns() -> None:
    """The machine slows down for a while, for both alike."""
    ratio = frame_ratio([2.0] * 9 + [20.0] * 9, [1.0] * 9 + [10.0] * 9)
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 2.0, 2.0)
    mixed = frame_ratio([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [1.0] * 7)
    assert mixed.low < mixed.value == 4.0 < mixed.high


def test_ratio_of_block_medians() -> None:
    ratio = pair_ratio([[4.0, 4.0, 100.0], [4.0], [5.0]], [[2.0], [2.0], [2.0]])
    assert ratio.value == 2.0
    assert ratio.low == 2.0
    assert 2.0 <= ratio.high <= 2.5
    assert ratio.to_json() == {"ratio": 2.0, "ratio_95": [ratio.low, ratio.high]}


def test_a_block_is_three_frames_at_least() -> None:
    assert len(run_block(lambda: None, 0.0)) == 3
