"""The paired benchmark: contenders measured against each other, each in a separate process, in alternating blocks.

Two engines in one process disturb each other: a spinning thread pool of an idle session slows the next one
(docs/speed.md). Two runs one after the other meet different conditions. Here every contender is built once in its own
process and waits there at no cost. Blocks of a fraction of a second alternate, in an order that changes, so that what
the machine does meanwhile affects all of them. The outcome is ratios, with an interval from resampling the blocks.

A contender is a factory, ``package.module:function``, that takes JSON values as keywords and returns a function without
arguments: one frame. Engines on a single thread have no pool that could spin, and may alternate frame by frame in one
process: such a factory returns several functions by name. A disturbance that lasts longer than a frame then affects all
of them alike, and the interval of a ratio is much narrower on a shared machine.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgeseg.bench.isolated import python_module, worker_environment
from edgeseg.bench.stats import median_interval
from edgeseg.errors import EdgesegError

__all__ = ["Contender", "Ratio", "alternate", "frame_ratio", "pair_ratio", "run_block", "take_turns"]

Blocks = Sequence[Sequence[float]]
Frame = Callable[[], Any]


@dataclass(frozen=True)
class Ratio:
    """The time of one contender as a multiple of another's.

    Attributes:
        value: The ratio (`pair_ratio`, `frame_ratio`).
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """Convert to ``ratio`` and ``ratio_95``, for a benchmark's file."""
        return {"ratio": self.value, "ratio_95": [self.low, self.high]}

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


class Contender:
    """A frame function, or several that alternate, in a separate process. Use as a context manager.

    Args:
        factory: ``package.module:function``.
        options: Keywords of the factory; JSON values.
        path: Folders put before the process's import path.

    Raises:
        EdgesegError: The factory failed; quotes its error.
    """

    def __init__(self, factory: str, options: Mapping[str, Any], *, path: Sequence[Path] = ()) -> None:
        environment = worker_environment()
        paths = [*map(str, path), *filter(None, [environment.get("PYTHONPATH")])]
        self._factory = factory
        self._process = subprocess.Popen(
            [*python_module("edgeseg.bench.paired"), factory, json.dumps(dict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
            text=True,
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def block(self, seconds: float) -> list[float]:
        """Run frames for so many seconds, at least three frames; return the milliseconds of each."""
        times: list[float] = self._ask(seconds)
        return times

    def turns(self, seconds: float) -> dict[str, list[float]]:
        """Alternate the functions of a factory that returns several, for so many seconds.

        Returns:
            Milliseconds of each frame, by the function's name.
        """
        times: dict[str, list[float]] = self._ask(seconds)["turns"]
        return times

    def _ask(self, seconds: float) -> Any:
        stream = self._process.stdin
        if stream is None or self._process.poll() is not None:
            raise EdgesegError(f"the process of {self._factory} has ended; measure again")
        stream.write(f"{seconds}\n")
        stream.flush()
        return self._answer()

    def _answer(self) -> Any:
        stream = self._process.stdout
        line = stream.readline() if stream else ""
        if not line:
            raise EdgesegError(f"the process of {self._factory} ended with code {self._process.wait()} and no answer")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise EdgesegError(f"{self._factory} failed: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        if self._process.stdout:
            self._process.stdout.close()
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def alternate(
    contenders: Mapping[str, Callable[[float], list[float]]], *, blocks: int = 7, seconds: float = 0.5, gap: float = 0.1
) -> dict[str, list[list[float]]]:
    """Run contenders in alternating blocks.

    Args:
        contenders: Name -> `Contender.block`.
        blocks: Turns of each.
        seconds: Length of a turn.
        gap: Idle seconds before each.

    Returns:
        Milliseconds per frame, by contender and block; the first block of each, the warm-up, is left out.

    Example:
        >>> times = alternate({"a": lambda seconds: [1.0], "b": lambda seconds: [2.0]}, blocks=3, gap=0.0)
        >>> times["b"]
        [[2.0], [2.0], [2.0]]
    """
    names = list(contenders)
    samples: dict[str, list[list[float]]] = {name: [] for name in names}
    for turn in range(blocks + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            time.sleep(gap)
            times = contenders[name](seconds)
            if turn:
                samples[name].append(times)
    return samples


def pair_ratio(other: Blocks, base: Blocks) -> Ratio:
    """Divide the median of `other` by that of `base`; the 95 % interval resamples the blocks, pairs kept together.

    Example:
        >>> print(pair_ratio([[2.0], [2.0]], [[1.0], [1.0]]))
        2.00 (2.00 to 2.00)
    """
    pairs = np.array([[np.median(a), np.median(b)] for a, b in zip(other, base, strict=True)])
    rng = np.random.default_rng(0)
    picks = pairs[rng.integers(0, len(pairs), (2000, len(pairs)))]
    drawn = np.median(picks[..., 0], axis=1) / np.median(picks[..., 1], axis=1)
    middle = np.median(pairs[:, 0]) / np.median(pairs[:, 1])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Ratio(float(middle), float(low), float(high))


def frame_ratio(other: Sequence[float], base: Sequence[float]) -> Ratio:
    """Take the median ratio of frames that alternated (`take_turns`), with the interval of `edgeseg.bench.stats`.

    Example:
        >>> print(frame_ratio([2.0] * 9, [1.0] * 9))
        2.00 (2.00 to 2.00)
    """
    ratios = np.array(other, np.float64) / np.array(base, np.float64)
    low, high, _ = median_interval(ratios)
    return Ratio(float(np.median(ratios)), low, high)


def take_turns(
    frames: Mapping[str, Frame], seconds: float, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Alternate several functions for `seconds`, ten turns at least; return the milliseconds of each frame.

    The order is reversed with every turn. The first two turns are the warm-up and left out.

    Example:
        >>> times = take_turns({"a": lambda: None, "b": lambda: None}, seconds=0.0)
        >>> len(times["a"]), len(times["b"])
        (10, 10)
    """
    names = list(frames)
    times: dict[str, list[float]] = {name: [] for name in names}
    end, turn = clock() + seconds, 0
    while turn < 12 or clock() < end:
        for name in names[:: 1 if turn % 2 else -1]:
            start = clock()
            frames[name]()
            if turn > 1:
                times[name].append(round(1e3 * (clock() - start), 4))
        turn += 1
    return times


def run_block(frame: Frame, seconds: float, *, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Run a block of `seconds`, three frames at least; return the milliseconds of each frame.

    Example:
        >>> len(run_block(lambda: None, seconds=0.0))
        3
    """
    times: list[float] = []
    end = clock() + seconds
    while len(times) < 3 or clock() < end:
        start = clock()
        frame()
        times.append(round(1e3 * (clock() - start), 4))
    return times


def _serve(factory: str, options: dict[str, Any]) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what engines print must not end up among the answers
    try:
        module, _, name = factory.partition(":")
        frame = getattr(importlib.import_module(module), name)(**options)
        for each in frame.values() if isinstance(frame, Mapping) else [frame]:
            each()
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}), file=answers)
        return
    print(json.dumps([]), file=answers)
    for line in sys.stdin:
        if isinstance(frame, Mapping):
            print(json.dumps({"turns": take_turns(frame, float(line))}), file=answers)
        else:
            print(json.dumps(run_block(frame, float(line))), file=answers)


if __name__ == "__main__":
    _serve(sys.argv[1], json.loads(sys.argv[2]))
