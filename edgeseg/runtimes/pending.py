"""Frames under way: an engine that has begun one may take the next before the first is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.labels import LabelMap
    from edgeseg.runtimes._base import LabelRequest, Session

__all__ = ["Pending", "Pipelined", "pipelined"]

_T = TypeVar("_T")


class Pending(Generic[_T]):
    """A frame under way. One that is dropped is finished by the session when it needs the place.

    Args:
        finish: Waits for the frame and gives what came of it; called once.

    Example:
        >>> frame = Pending(lambda: 7)
        >>> frame.result(), frame.result()
        (7, 7)
    """

    def __init__(self, finish: Callable[[], _T]) -> None:
        self._lock = threading.Lock()
        self._finish: Callable[[], _T] | None = finish
        self._values: list[_T] = []
        self._error: Exception | None = None

    def settle(self) -> None:
        """Wait until the frame is done, whatever comes of it."""
        with self._lock:
            finish, self._finish = self._finish, None
            if finish is None:
                return
            try:
                self._values.append(finish())
            except Exception as error:  # raised by `result`, where the frame is asked for
                self._error = error
            except BaseException:  # of the thread that waits, not of the frame
                self._error = InputError("the frame was interrupted; run it again")
                raise

    def result(self) -> _T:
        """Wait until the frame is done; what came of it, however often it is asked.

        Raises:
            Exception: What went wrong with the frame.
        """
        self.settle()
        if self._error is not None:
            raise self._error
        return self._values[0]


@runtime_checkable
class Pipelined(Protocol):
    """A session with places for several frames, so that one is copied while another runs. Order is the caller's."""

    @property
    def places(self) -> int:
        """Frames that may be under way at once."""
        ...

    def start(self, image: NDArray[np.uint8], names: tuple[str, ...] | None = None) -> Pending[dict[str, NDArray[Any]]]:
        """Begin what `Session.run` does; the image may be changed afterwards."""
        ...

    def start_labels(self, image: NDArray[np.uint8], wanted: Sequence[LabelRequest]) -> Pending[list[LabelMap]]:
        """Begin what `DeviceLabelling.device_labels` does; the image may be changed afterwards."""
        ...


def pipelined(session: Session) -> Pipelined | None:
    """The session as one that takes several frames at once; None where it takes one after the other."""
    return session if isinstance(session, Pipelined) and session.places > 1 else None
