"""Pictures between two stages of the Predictor, and how they are grouped into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError
from edgeseg.postprocess import Region
from edgeseg.specs import Size
from edgeseg.timing import ms_since

__all__ = ["Failure", "Job", "Started", "group_jobs", "take_results"]


@dataclass(frozen=True)
class Failure:
    """A picture of a stream that could not be predicted.

    Attributes:
        source: Path, or address and frame number.
        error: Why, in one sentence.

    Example:
        >>> from edgeseg import Predictor
        >>> with Predictor(bundle) as predictor, predictor.stream(["missing.png"]) as stream:
        ...     failure = next(stream)
        >>> failure.source, type(failure.error).__name__
        ('missing.png', 'InputError')
    """

    source: str
    error: EdgesegError


@dataclass
class Job:
    """A picture between two stages.

    Attributes:
        source: Path or name of the picture.
        input: uint8 (h, w, channels) at the size that the graph gets.
        region: Where the picture lies in `input` after a letterbox; None where it fills it.
        size: Height x width of the labels asked for.
        picture: uint8 (H, W, 3) RGB for the result; None where it is not kept.
        timings: Milliseconds of the stages so far.
        damaged: Sentences on damage of the picture's file.
        notes: Sentences on what else the file holds.
        raw: What the engine gave: logits, or the labels that it made of them itself; empty before.
    """

    source: str
    input: NDArray[np.uint8]
    region: Region | None
    size: Size
    picture: NDArray[np.uint8] | None
    timings: dict[str, float]
    damaged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    raw: NDArray[Any] = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Started:
    """Jobs that the engine has begun.

    Attributes:
        jobs: Of one batch.
        start: When, on `time.perf_counter`.
        result: Waits for what the engine gives each picture of the batch.
    """

    jobs: list[Job]
    start: float
    result: Callable[[], Sequence[NDArray[Any]]]


def take_results(jobs: list[Job], given: Sequence[NDArray[Any]], start: float) -> list[Job]:
    """Give each job what the engine made for it, and its share of the time since `start`."""
    spent = ms_since(start) / len(jobs)
    for job, raw in zip(jobs, given[: len(jobs)], strict=True):  # a batch may have been filled up
        job.raw = raw
        job.timings["infer"] = spent
    return jobs


def group_jobs(items: Iterator[Job | Failure], most: int) -> Iterator[list[Job] | Failure]:
    """Group consecutive jobs of one input size, up to `most` each; failures keep their place between them."""
    group: list[Job] = []
    for item in items:
        if group and (isinstance(item, Failure) or item.input.shape != group[0].input.shape):
            yield group
            group = []
        if isinstance(item, Failure):
            yield item
            continue
        group.append(item)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group
