"""How long an engine takes by itself, apart from the frame round it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError

__all__ = ["EngineTimes", "EngineTiming", "check_repeat"]


@dataclass(frozen=True)
class EngineTimes:
    """Milliseconds of an engine on an image that lies on its device. No copy and no postprocessing is among them.

    Attributes:
        single: Per run, on the device's clock, with nothing queued before it. Where the host enqueues slower than the
            device computes, the device's waiting is in it.
        queued: Of one run among as many queued back to back, on the device's clock.
        enqueue: Per run, on the host's clock: what the call that starts it takes.
    """

    single: tuple[float, ...]
    queued: float
    enqueue: tuple[float, ...]

    def line(self) -> str:
        """The medians, in words."""
        single, enqueue = (float(np.median(values)) for values in (self.single, self.enqueue))
        return (
            f"engine alone: {self.queued:.3f} ms queued, {single:.3f} ms one by one, {enqueue:.3f} ms of the host to "
            f"enqueue ({len(self.single)} runs)"
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EngineTimes:
        """Read what ``asdict`` gave."""
        return cls(_numbers(data["single"]), float(data["queued"]), _numbers(data["enqueue"]))


def _numbers(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


@runtime_checkable
class EngineTiming(Protocol):
    """A session that times its engine on the device itself."""

    def engine_times(self, image: NDArray[np.uint8], repeat: int) -> EngineTimes:
        """Time `repeat` runs of the engine alone, each way."""
        ...


def check_repeat(repeat: int) -> None:
    """Refuse to time no runs.

    Raises:
        UsageError: `repeat` is below 1.
    """
    if repeat < 1:
        raise UsageError(f"repeat is {repeat}; time at least 1 run")
