"""Places for frames: each has an execution context, a stream and memory of its own, so that two frames overlap."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError, InputError
from edgeseg.runtimes._base import CLOSED, TensorInfo
from edgeseg.runtimes.pending import Pending
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.build import errors_logged, logger_of
from edgeseg.runtimes.tensorrt.label_kernel import DeviceLogits, LabelKernel, Labelling
from edgeseg.runtimes.tensorrt.memory import Tensor
from edgeseg.runtimes.tensorrt.timing import measure

if TYPE_CHECKING:
    from edgeseg.runtimes._base import LabelRequest
    from edgeseg.runtimes.tensorrt import _api as trt
    from edgeseg.runtimes.times import EngineTimes

__all__ = ["Labels", "Outputs", "Slot", "SlotPool", "SlotRecipe"]

_KEPT = 4
"""Kinds of frames (outputs, sizes and regions of labels) whose memory and graph a slot keeps."""


@dataclass(frozen=True)
class Outputs:
    """Wanted of a frame: outputs of the engine, by name."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """Wanted of a frame: labels, of a size and a region for each picture."""

    requests: tuple[LabelRequest, ...]


@dataclass(frozen=True, kw_only=True)
class SlotRecipe:
    """What a slot is made of.

    Attributes:
        module: TensorRT's package.
        engine: The engine, for its context and what it says of itself.
        name: Engine and version, for messages.
        context: Makes an execution context; None where there is no memory.
        tensors: Inputs and outputs.
        image: Name of the input.
        kernel: Makes labels; None where the host does.
        zero_copy: Image and labels lie in the host's memory.
        graphs: Capture every kind of frame as a CUDA graph when it comes for the second time.
        tell: Takes a sentence for the user.
    """

    module: ModuleType
    engine: trt.CudaEngine
    name: str
    context: Callable[[], trt.ExecutionContext | None]
    tensors: tuple[TensorInfo, ...]
    image: str
    kernel: LabelKernel | None
    zero_copy: bool
    graphs: bool
    tell: Callable[[str], None]


class _Work(Protocol):
    """The part of a frame behind the engine."""

    def enqueue(self, stream: cuda.Stream) -> None: ...
    def take(self) -> Any: ...
    def close(self) -> None: ...


class _Fetching:
    """Outputs copied to the host, for a caller who gets arrays of its own."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        for tensor in tensors.values():
            tensor.on_host()  # nothing is allocated while a graph is captured

    def enqueue(self, stream: cuda.Stream) -> None:
        for tensor in self._tensors.values():
            tensor.download(stream)

    def take(self) -> dict[str, NDArray[Any]]:
        return {name: tensor.taken() for name, tensor in self._tensors.items()}

    def close(self) -> None:
        pass


@dataclass
class _Frame:
    """A kind of frame that a slot knows."""

    work: _Work
    graph: cuda.Graph | None = None
    seen: bool = False

    def close(self) -> None:
        with ExitStack() as frees:
            frees.callback(self.work.close)
            if self.graph is not None:
                frees.callback(self.graph.close)


class Slot:
    """One place. It takes a frame, and the next when that one was ended; one thread at a time.

    Args:
        recipe: What it is made of. The GPU is current in every call.

    Raises:
        EdgesegError: Not enough memory.
    """

    def __init__(self, recipe: SlotRecipe) -> None:
        self._recipe, self._logger = recipe, logger_of(recipe.module)
        self._context: trt.ExecutionContext | None = recipe.context()
        if self._context is None:
            raise EdgesegError(f"{recipe.name} cannot prepare the engine: {self._said()}")
        self._tensors = {
            tensor.name: Tensor(tensor, mapped=recipe.zero_copy and tensor.name == recipe.image)
            for tensor in recipe.tensors
        }
        self._shape: tuple[int, ...] = ()
        self._frames: OrderedDict[Outputs | Labels, _Frame] = OrderedDict()
        self._work: _Work | None = None
        self._graphs, self._busy = recipe.graphs, False
        self.stream = cuda.Stream()

    def begin(self, image: NDArray[np.uint8], wanted: Outputs | Labels) -> None:
        """Copy the image, and start the frame.

        Raises:
            InputError: A size that the engine does not take.
            UsageError: Labels that cannot be.
            EdgesegError: Not enough memory, or the engine or the driver fails.
        """
        self._settle()
        self._busy = True
        self._load(image)
        frame = self._frame(wanted)
        self._capture(frame)
        if frame.graph is not None:
            frame.graph.launch(self.stream)
        else:
            self._enqueue(frame.work)
        frame.seen, self._work = True, frame.work

    def end(self) -> Any:
        """Wait for the frame; what was wanted of it.

        Raises:
            UsageError: The logits hold NaN or infinity, so that there are no labels.
            EdgesegError: The GPU failed.
        """
        self._settle()
        if self._work is None:
            raise EdgesegError("no frame was begun")
        return self._work.take()

    def engine_times(self, image: NDArray[np.uint8], repeat: int) -> EngineTimes:
        """Time the engine alone on an image.

        Raises:
            EdgesegError: As `begin`.
        """
        self._settle()
        self._busy = True
        self._load(image)
        self._image.upload(self.stream)
        times = measure(self._execute, self.stream, repeat)
        self._settle()
        return times

    def _settle(self) -> None:
        """Wait for what is under way, if anything is: the memory is then free for another frame."""
        if self._busy:
            self.stream.wait()
            self._busy = False

    def _load(self, image: NDArray[np.uint8]) -> None:
        """Put the image where the engine's copy of it starts, with memory for outputs of its size."""
        if image.shape != self._shape:
            self._bind(image.shape)
        np.copyto(self._image.on_host(), image)

    def _execute(self) -> None:
        """Start the engine.

        Raises:
            EdgesegError: It does not start.
        """
        if self._context is None or not self._context.execute_async_v3(self.stream.handle):
            raise EdgesegError(f"{self._recipe.name} failed to run the engine: {self._said()}")

    @property
    def _image(self) -> Tensor:
        return self._tensors[self._recipe.image]

    def _enqueue(self, work: _Work) -> None:
        self._image.upload(self.stream)
        self._execute()
        work.enqueue(self.stream)

    def _capture(self, frame: _Frame) -> None:
        """Make a graph of a frame that ran once the plain way; where it cannot be, none is tried again."""
        if frame.graph is not None or not frame.seen or not self._graphs:
            return
        try:
            frame.graph = cuda.Graph(self.stream, lambda: self._enqueue(frame.work))
        except EdgesegError as error:
            self._graphs = False
            self._recipe.tell(f"the frame is not one CUDA graph, so that each part is started by itself ({error})")

    def _frame(self, wanted: Outputs | Labels) -> _Frame:
        """The kind of frame, with its memory; the least lately used of many goes."""
        found = self._frames.get(wanted)
        if found is None:
            while len(self._frames) >= _KEPT:
                self._frames.popitem(last=False)[1].close()
            found = self._frames[wanted] = _Frame(self._work_for(wanted))
        self._frames.move_to_end(wanted)
        return found

    def _work_for(self, wanted: Outputs | Labels) -> _Work:
        if isinstance(wanted, Outputs):
            return _Fetching({name: self._tensors[name] for name in wanted.names})
        kernel, logits = self._recipe.kernel, self._tensors["logits"]
        if kernel is None:
            raise EdgesegError("the session has no label kernel; run it for its logits")
        where = DeviceLogits(logits.on_device(), logits.shape, logits.info.dtype)
        return Labelling(kernel, where, wanted.requests, self.stream, mapped=self._recipe.zero_copy)

    def _bind(self, shape: tuple[int, ...]) -> None:
        """Tell the context the input's shape and where every tensor lies; graphs of another shape hold no more."""
        context, name = self._context, self._recipe.image
        if context is None:
            raise EdgesegError("the slot is closed")
        self._forget()
        if not context.set_input_shape(name, shape):
            raise InputError(f"the engine does not take a size of {shape[1]}x{shape[2]}: {self._range(name)}")
        for key, tensor in self._tensors.items():
            address = tensor.fit(tuple(int(size) for size in context.get_tensor_shape(key)))
            if not context.set_tensor_address(key, address):
                raise EdgesegError(f"{self._recipe.name} does not take memory for '{key}': {self._said()}")
        self._shape = shape

    def _range(self, name: str) -> str:
        """The sizes the engine was built for, in words."""
        errors_logged(self._logger)
        low, _, high = self._recipe.engine.get_tensor_profile_shape(name, 0)
        return f"it was built for {low[1]}x{low[2]} to {high[1]}x{high[2]}"

    def _forget(self) -> None:
        frames, self._frames = self._frames, OrderedDict()
        self._shape, self._work = (), None
        with ExitStack() as frees:
            for frame in frames.values():
                frees.callback(frame.close)

    def _said(self) -> str:
        return errors_logged(self._logger) or "it gave no reason"

    def close(self) -> None:
        """Free all; closing twice is harmless."""
        with ExitStack() as frees:  # all of them, whatever one says
            frees.callback(self.stream.close)
            for tensor in self._tensors.values():
                frees.callback(tensor.close)
            frees.callback(self._forget)
            self._context = None  # before the engine


class SlotPool:
    """The slots of a session: taken for a frame, and given back when it was ended.

    Args:
        make: Makes a slot. The first is made at once, another when a frame comes that need not wait for its turn.
        most: Slots that there may be.
        tell: Takes a sentence for the user.

    Raises:
        EdgesegError: Not enough memory for the first.
    """

    def __init__(self, make: Callable[[], Slot], most: int, tell: Callable[[str], None]) -> None:
        self._make, self._most, self._tell = make, most, tell
        self._changed = threading.Condition()
        self._slots = [make()]
        self._idle = [*self._slots]
        self._made = 1
        self._under_way: dict[Slot, Pending[Any]] = {}

    def take(self, *, grow: bool = False) -> Slot:
        """Take a slot, waiting for one; a frame that nobody waits for is ended for it.

        Args:
            grow: Rather make another slot than wait, where there may be one more.
        """
        while True:
            with self._changed:
                if self._idle:
                    return self._idle.pop()
                more = grow and self._made < self._most
                if more:
                    self._made += 1
                elif not self._under_way:
                    self._changed.wait()
                    continue
                oldest = next(iter(self._under_way.values()), None)
            made = self._another() if more else None
            if made is not None:
                return made
            if oldest is not None:
                oldest.settle()

    def _another(self) -> Slot | None:
        try:
            slot = self._make()
        except EdgesegError as error:
            with self._changed:
                self._made, self._most = self._made - 1, self._made - 1
            self._tell(f"frames do not overlap, since there is no second place for one ({error})")
            return None
        self._slots.append(slot)
        return slot

    def begun(self, slot: Slot, frame: Pending[Any]) -> None:
        """Note that a slot's frame is ended by `frame`."""
        with self._changed:
            self._under_way[slot] = frame
            self._changed.notify_all()

    def give(self, slot: Slot) -> None:
        """Give a slot back."""
        with self._changed:
            self._under_way.pop(slot, None)
            self._idle.append(slot)
            self._changed.notify_all()

    def close(self) -> None:
        """End what is under way, and free all slots."""
        with self._changed:
            frames = list(self._under_way.values())
        for frame in frames:
            frame.settle()
        with ExitStack() as frees:
            for slot in self._slots:
                frees.callback(slot.close)
            self._slots, self._idle, self._make = [], [], _closed  # nothing here keeps the engine


def _closed() -> Slot:
    raise InputError(CLOSED)
