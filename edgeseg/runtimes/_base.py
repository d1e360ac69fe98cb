"""The seam between edgeseg and the engines: what a session is, and how one is opened."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError, UsageError
from edgeseg.runtimes._fork import never_free_in_child

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgeseg.labels import LabelMap
    from edgeseg.postprocess import Region
    from edgeseg.specs import Size

    LabelRequest = tuple[Size, Region | None]
    """Height x width of labels, and the region of the network's input that they are of."""

__all__ = [
    "CLOSED",
    "INHERITED",
    "DeviceLabelling",
    "RuntimeOptions",
    "Session",
    "SessionBase",
    "SessionInfo",
    "TensorInfo",
    "device_labelling",
    "refuse_unused",
]


CLOSED = "the session is closed; open the bundle again"
"""What is said of a call after `Session.close`, on every engine."""

INHERITED = "the session was opened in another process and does not run in this one; open a Predictor in each process"
"""What is said of a call in a process that was forked after the session was opened."""


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """How a session is to run. None is the engine's default; an option that an engine has no use for, it refuses.

    What each engine takes, and which values, its record says: ``edgeseg.runtimes.engine("openvino").options``.

    Attributes:
        threads: Threads of the engine on the CPU.
        device: Device, execution provider, or number of the GPU.
        hint: What the engine is to be tuned for.
        precision: Arithmetic of the fp32 parts of the graph; exact fp32 where it is not set.
        cache_dir: Folder for what the engine compiles.
        weights: Checkpoint for the ``torch`` target where the bundle carries no weights.
        network: ``package.module:factory`` (or registry name) that the ``torch`` target builds. A network of the user's
            own is code, which is run because the user names it and never because a bundle does.
        provider_options: Passed to an execution provider as they are.
        cuda_graph: Start each frame on a GPU by one call (a CUDA graph); True where it is not set.
        zero_copy: Let a GPU use image and labels where the host has them, instead of copying; where it is not set, GPUs
            that share the host's memory do.
        wait: How a thread waits for the GPU: ``auto``, ``spin``, ``yield`` or ``block``; set for the whole process.
        builder_level: How hard TensorRT looks for fast kernels while it builds, 0 to 5.

    Example:
        >>> RuntimeOptions(threads=2).threads
        2
    """

    threads: int | None = None
    device: str | None = None
    hint: str | None = None
    precision: str | None = None
    cache_dir: str | None = None
    weights: str | None = None
    network: str | None = None
    provider_options: Mapping[str, str] = field(default_factory=dict)
    cuda_graph: bool | None = None
    zero_copy: bool | None = None
    wait: str | None = None
    builder_level: int | None = None


def refuse_unused(options: RuntimeOptions, target: str, *used: str) -> None:
    """Refuse every option that is set although the target has no use for it, and a thread count below 1.

    Args:
        options: As the user gave them.
        target: Canonical target name, for the message.
        used: Names of the options the target uses.

    Raises:
        UsageError: An option is set that the target would ignore, or `threads` is not positive.
    """
    for option in fields(options):
        value = getattr(options, option.name)
        if value not in (None, {}) and option.name not in used:
            takes = f"it takes {', '.join(used)}" if used else "it takes no options"
            raise UsageError(f"the {target} target has no use for {option.name}={value!r}; leave it out ({takes})")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"threads is {options.threads}; it must be at least 1")


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape (None where free) and numpy dtype name of a graph's input or output."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class SessionInfo:
    """What really runs, as the engine itself reports it.

    Attributes:
        target: Canonical target name.
        engine: Engine and version, such as ``"onnxruntime 1.23.2"``.
        device: Provider or device in use, such as ``"CPUExecutionProvider"`` or ``"NVIDIA Orin, sm_87"``.
        precision: Of the arithmetic, such as ``"fp32"``.
        threads: Threads in use, None where the engine decides and does not tell.
        notes: Sentences the user must see (a plan was rebuilt, a cache was not usable).
        mode: What else was chosen of how frames run, in words, such as ``"CUDA graph"`` and ``"zero copy"``.
        proof: What ``edgeseg doctor --verify`` found of the bundle on this device; a Predictor fills it in.
    """

    target: str
    engine: str
    device: str
    precision: str
    threads: int | None = None
    notes: tuple[str, ...] = ()
    mode: tuple[str, ...] = ()
    proof: str = ""


class Session(Protocol):
    """One opened network on one engine. `run` may be called from several threads, one call at a time."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The graph's inputs: one, ``image``, uint8 (N, H, W, 3) RGB, or of as many channels as the network takes."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The graph's outputs: ``logits`` float32 (N, C, h, w)."""
        ...

    @property
    def info(self) -> SessionInfo:
        """What really runs."""
        ...

    def run(self, image: NDArray[np.uint8], names: tuple[str, ...] | None = None) -> dict[str, NDArray[Any]]:
        """Run the graph; the returned arrays belong to the caller.

        Args:
            image: uint8 (N, H, W, 3), RGB, or of as many channels as the graph takes; C-contiguous.
            names: Outputs wanted (others may be left on the device); None is all.
        """
        ...

    def close(self) -> None:
        """Free the engine. Closing twice is harmless; running after it raises `EdgesegError`."""
        ...


@runtime_checkable
class DeviceLabelling(Protocol):
    """A session whose engine may make labels of its logits where they lie, in any size; see `SessionBase`."""

    @property
    def labels_on_device(self) -> bool:
        """Whether it does."""
        ...

    def device_labels(self, image: NDArray[np.uint8], wanted: Sequence[LabelRequest]) -> list[LabelMap]:
        """Run the graph, and label on the device."""
        ...


def device_labelling(session: Session) -> DeviceLabelling | None:
    """The session as one that labels on its device; None where it does not."""
    return session if isinstance(session, DeviceLabelling) and session.labels_on_device else None


class SessionBase:
    """What every session shares: the input check, one call at a time, and an end that no call runs into.

    `close` waits for calls that are under way; later ones are refused with one and the same sentence on every engine.
    A session that is dropped without `close` frees its engine too. In a process that was forked after the session was
    opened, calls are refused and nothing is freed. Subclasses give `_run` and `_free`.

    Attributes:
        overlaps: Whether the engine may run several calls at once; otherwise they wait for one another.
        survives_fork: Whether a forked child may use and free the session as its parent does. An engine with threads,
            locks or a GPU does not.
        labels_on_device: Whether `device_labels` works.
    """

    overlaps: ClassVar[bool] = False
    survives_fork: ClassVar[bool] = False
    labels_on_device: bool = False
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    info: SessionInfo
    _changed: threading.Condition
    _running: int
    _closed: bool
    _process: int

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Make the session's guard, so that no subclass can forget it."""
        made = super().__new__(cls)
        made._changed, made._running, made._closed = threading.Condition(), 0, False
        made._process = os.getpid()
        if not cls.survives_fork:
            never_free_in_child(made)
        return made

    def run(self, image: NDArray[np.uint8], names: tuple[str, ...] | None = None) -> dict[str, NDArray[Any]]:
        """Check the input, then run the engine; see `Session.run`.

        Raises:
            InputError: Another dtype or shape than the graph takes, a closed session, or one of another process.
        """
        chosen = self._chosen(image, names)
        with self._entered():
            return self._run(np.ascontiguousarray(image), chosen)

    def _chosen(self, image: NDArray[np.uint8], names: tuple[str, ...] | None) -> tuple[str, ...]:
        """Check the input, and the names of the outputs wanted; None is all."""
        self._check_input(image)
        known = {tensor.name for tensor in self.outputs}
        chosen = tuple(tensor.name for tensor in self.outputs) if names is None else names
        if not set(chosen) <= known:
            raise InputError(f"the graph has outputs {', '.join(sorted(known))}, asked for {', '.join(chosen)}")
        return chosen

    def device_labels(self, image: NDArray[np.uint8], wanted: Sequence[LabelRequest]) -> list[LabelMap]:
        """Run the engine, and label on its device; only where `labels_on_device` says so.

        Args:
            image: As `run`.
            wanted: Size and region of the labels of each picture; pictures of the batch beyond them are left out.

        Returns:
            What `edgeseg.postprocess.labels_from_logits` makes of each picture's logits.

        Raises:
            InputError: As `run`.
            UsageError: As `labels_from_logits`, or the session does not label on its device.
        """
        self._check_input(image)
        with self._entered():
            return self._run_labels(np.ascontiguousarray(image), wanted)

    def _check_input(self, image: NDArray[np.uint8]) -> None:
        wanted = self.inputs[0]
        fits = image.ndim == len(wanted.shape) and all(
            w in (None, g) for w, g in zip(wanted.shape, image.shape, strict=True)
        )
        if image.dtype != np.uint8 or not fits:
            shape = "x".join("?" if n is None else str(n) for n in wanted.shape)
            got, channels = "x".join(map(str, image.shape)), "RGB" if wanted.shape[-1] == 3 else "channels"
            raise InputError(f"the graph takes uint8 {shape} (N, height, width, {channels}), got {image.dtype} {got}")

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """Use the engine: wait for one's turn, and keep `close` waiting.

        Raises:
            InputError: The session is closed, or was opened in another process.
        """
        if self._inherited():
            raise InputError(INHERITED)
        with self._changed:
            while self._running and not self.overlaps:
                self._changed.wait()
            if self._closed:
                raise InputError(CLOSED)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _inherited(self) -> bool:
        """Tell whether this process was forked from the one that opened the session; its locks may never open then."""
        return not self.survives_fork and self._process != os.getpid()

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Run the engine on a checked image."""
        raise NotImplementedError

    def _run_labels(self, image: NDArray[np.uint8], wanted: Sequence[LabelRequest]) -> list[LabelMap]:
        """Run the engine on a checked image, and label on its device."""
        self._refuse_labels()

    def _refuse_labels(self) -> NoReturn:
        raise UsageError(f"the {self.info.target} target does not label on its device; use run")

    def _free(self) -> None:
        """Let go of the engine; called once, while nothing runs."""

    def close(self) -> None:
        """Wait for calls under way, then free the engine; closing twice, or in a forked child, is harmless."""
        if self._inherited():
            return
        with self._changed:
            if self._closed:
                return
            self._closed = True
            while self._running:
                self._changed.wait()
        self._free()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # half made, or the interpreter is ending
            self.close()

    def __reduce__(self) -> NoReturn:
        raise UsageError("a session cannot be pickled; pickle its Predictor, or the path of its bundle")

    def __enter__(self) -> SessionBase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
