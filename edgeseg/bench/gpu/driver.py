"""The CUDA driver and the label kernel by themselves: no TensorRT is needed.

Each check gives what it saw; what the driver refuses raises.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.bench.gpu.findings import AbsentError, Check, Outcome
from edgeseg.errors import EdgesegError, UsageError
from edgeseg.labels import LabelMap
from edgeseg.postprocess import Region, labels_from_logits
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.label_kernel import DeviceLogits, LabelKernel, Labelling
from edgeseg.runtimes.tensorrt.timing import measure
from edgeseg.specs import PostprocessSpec, Size
from edgeseg.timing import ms_since

__all__ = ["GROWTH", "driver_checks", "in_threads"]

GROWTH = 8 << 20
"""Bytes that the GPU's free memory may fall by from the third cycle to the last."""

_SHARED = 16
"""Times as much on a GPU that shares the machine's memory."""

_CYCLES = 20
_THREADS = 4
_FRAMES = 8
_MIB = 1 << 20
_COPIED = 64 * _MIB
_TIMED = (1024, 2048)


def driver_checks(device: cuda.Device, *, cases: int = 200, repeat: int = 50) -> list[Check]:
    """The checks of the driver and the kernel on a GPU.

    Args:
        device: The GPU.
        cases: Shapes of logits and labels that the kernel is compared on.
        repeat: Runs timed.
    """
    return [
        ("copies there and back", 5, lambda: _copies(device)),
        ("events", 5, lambda: _events(device)),
        ("contexts", 5, lambda: _contexts(device)),
        ("words of errors", 5, lambda: _words(device)),
        ("out of memory", 5, lambda: _too_much(device)),
        ("open and close", 20, lambda: _cycles(device)),
        ("labels of the kernel", 30, lambda: _labels(device, cases)),
        ("NaN is told", 5, lambda: _not_finite(device)),
        ("mapped memory", 5, lambda: _mapped(device)),
        ("graph of a frame", 5, lambda: _graph(device)),
        ("time of the kernel", 20, lambda: _kernel_times(device, repeat)),
    ]


def in_threads(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Start all calls at once, a thread each; gives what they returned, or raises what one of them raised."""
    done: list[Any] = [None] * len(calls)
    failed: list[Exception] = []
    start = threading.Barrier(len(calls))

    def work(number: int, call: Callable[[], Any]) -> None:
        try:
            start.wait()
            done[number] = call()
        except Exception as error:  # any at all: it is raised where the threads were started
            failed.append(error)

    threads = [threading.Thread(target=work, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return done


@contextmanager
def _opened(device: cuda.Device) -> Iterator[tuple[cuda.Stream, ExitStack]]:
    """The GPU current, a stream, and where to put what is closed after it."""
    with device.current(), ExitStack() as opened:
        yield opened.enter_context(closing(cuda.Stream())), opened


def _there_and_back(device: cuda.Device, seed: int) -> bool:
    data = np.random.default_rng(seed).integers(0, 256, 3 * _MIB + 7, np.uint8)
    with _opened(device) as (stream, opened):
        memory = opened.enter_context(closing(cuda.Buffer(data.nbytes)))
        pinned = opened.enter_context(closing(cuda.PinnedArray(data.shape, "uint8")))
        pinned.array[:] = data
        memory.write(pinned.array, stream)
        stream.wait()
        pinned.array[:] = 0
        memory.read(pinned.array, stream)
        stream.wait()
        pageable = np.zeros_like(data)
        memory.read(pageable, stream)
        stream.wait()
        return np.array_equal(pinned.array, data) and np.array_equal(pageable, data)


def _copies(device: cuda.Device) -> Outcome:
    same = _there_and_back(device, 1)
    return Outcome(same, "page-locked and ordinary memory came back " + ("bit for bit" if same else "changed"))


def _events(device: cuda.Device) -> Outcome:
    with _opened(device) as (stream, opened):
        memory = opened.enter_context(closing(cuda.Buffer(_COPIED)))
        pinned = opened.enter_context(closing(cuda.PinnedArray((_COPIED,), "uint8")))
        marks = [opened.enter_context(closing(cuda.Event())) for _ in range(3)]
        for mark in marks:
            mark.record(stream)
            memory.write(pinned.array, stream)
        stream.wait()
        one, both = marks[1].milliseconds_since(marks[0]), marks[2].milliseconds_since(marks[0])
    told = f"{_COPIED // _MIB} MiB onto the GPU took {one:.3f} ms, twice {both:.3f} ms"
    return Outcome(0.0 <= one <= both, told, {"copy_ms": one, "two_copies_ms": both})


def _refused(call: Callable[[], object]) -> str:
    """The sentence with which a call is refused; empty where it is not."""
    try:
        call()
    except EdgesegError as error:
        return str(error)
    return ""


def _contexts(device: cuda.Device) -> Outcome:
    """Outside of `current` a new thread has no context; inside, nested too, it has; and after it none again."""

    def alone() -> tuple[str, bool, str]:
        before = _refused(lambda: cuda.Buffer(16).close())
        with device.current(), device.current():
            cuda.Buffer(16).close()
        return before, _there_and_back(device, 2), _refused(lambda: cuda.Buffer(16).close())

    seen = in_threads([alone] * _THREADS)
    good = all(before and same and after for before, same, after in seen)
    lacking = "a thread keeps no context of edgeseg's" if good else "a thread has a context that nobody gave it"
    return Outcome(good, f"{_THREADS} threads at once: {lacking}")


def _words(device: cuda.Device) -> Outcome:
    with _opened(device) as (stream, _):
        kernel = LabelKernel(PostprocessSpec())
        try:
            said = [
                _refused(lambda: cuda.Module(b"no code at all\0")),
                _refused(lambda: kernel.launch("no_such_kernel", (1, 1), (), stream)),
            ]
        finally:
            kernel.close()
    good = all("CUDA" in sentence and "\n" not in sentence and "unknown error (" not in sentence for sentence in said)
    return Outcome(good, "; ".join(sentence or "not refused" for sentence in said))


def _too_much(device: cuda.Device) -> Outcome:
    with device.current():
        said = _refused(lambda: cuda.Buffer(2 * device.gpu.memory).close())
    good = "has no memory for" in said and _there_and_back(device, 3)
    return Outcome(good, said or "twice the GPU's memory was given")


def _cycles(device: cuda.Device) -> Outcome:
    free = []
    for _ in range(_CYCLES):
        again = cuda.open_device(str(device.gpu.ordinal))
        _there_and_back(again, 4)
        _compare(again, np.zeros((2, 4, 4), np.float32), (8, 8), PostprocessSpec(), None)
        free.append(again.free_memory())
    return growth(free, device.gpu)


def growth(free: Sequence[int], gpu: cuda.GpuInfo) -> Outcome:
    """Whether free memory stays from the third cycle on; of memory that the machine shares, others take and give."""
    lost = free[min(2, len(free) - 1)] - max(free[-2:])
    allowed = GROWTH * (_SHARED if gpu.integrated else 1)
    told = f"{len(free)} cycles: {free[-1] / _MIB:.1f} MiB free after the last, {lost / _MIB:.1f} MiB fewer than before"
    return Outcome(lost <= allowed, told, {"free_bytes": list(free)})


def _by_kernel(
    device: cuda.Device, logits: NDArray[Any], size: Size, spec: PostprocessSpec, region: Region | None
) -> LabelMap:
    with _opened(device) as (stream, opened):
        memory = opened.enter_context(closing(cuda.Buffer(logits.nbytes)))
        memory.write(logits, stream)
        kernel = opened.enter_context(closing(LabelKernel(spec)))
        return kernel.labels(DeviceLogits(memory, (1, *logits.shape), str(logits.dtype)), 0, size, region, stream)


def _compare(
    device: cuda.Device, logits: NDArray[Any], size: Size, spec: PostprocessSpec, region: Region | None
) -> tuple[int, int]:
    """How many labels of the kernel are not the host's, and how many there are."""
    got = _by_kernel(device, logits, size, spec, region)
    wanted = labels_from_logits(logits, size, postprocess=spec, region=region)
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        return wanted.size, wanted.size
    return int(np.count_nonzero(got != wanted)), wanted.size


def _case(random: np.random.Generator) -> tuple[NDArray[Any], Size, PostprocessSpec, Region | None]:
    """Logits of any shape, with many that are equal, and what is to be made of them."""
    classes = int(random.choice((1, 2, 7, 19, 150, 300)))
    h, w = (int(x) for x in random.integers(1, 40, 2))
    logits: NDArray[Any] = random.standard_normal((classes, h, w)).astype(np.float32)
    if random.random() < 0.5:
        logits = np.round(logits * 2) / 2
    size = int(random.integers(1, 200)), int(random.integers(1, 200))
    spec = PostprocessSpec(align_corners=bool(random.random() < 0.5), threshold=float(random.choice((0.0, 0.5))))
    region = None
    if random.random() < 0.3:
        height, width = 8.0 * h, 8.0 * w
        region = Region((8 * h, 8 * w), top=height / 4, left=0.0, height=height / 2, width=width)
    return np.ascontiguousarray(logits.astype(random.choice(("float32", "float16")))), size, spec, region


def _labels(device: cuda.Device, cases: int) -> Outcome:
    random = np.random.default_rng(18)
    wrong, pixels, first = 0, 0, ""
    for _ in range(cases):
        logits, size, spec, region = _case(random)
        differing, count = _compare(device, logits, size, spec, region)
        wrong, pixels = wrong + differing, pixels + count
        if differing and not first:
            first = f"; the first: {logits.dtype} logits {'x'.join(map(str, logits.shape))} to {size[0]}x{size[1]}"
    told = f"{wrong} of {pixels} labels in {cases} shapes are not the host's{first}"
    return Outcome(wrong == 0, told, {"differing": wrong, "pixels": pixels, "cases": cases})


def _not_finite(device: cuda.Device) -> Outcome:
    logits = np.zeros((3, 4, 4), np.float32)
    logits[1, 2, 2] = np.nan
    try:
        _by_kernel(device, logits, (16, 16), PostprocessSpec(), None)
    except UsageError as error:
        return Outcome(True, str(error))
    return Outcome(False, "labels were made of a NaN without a word")


_SHAPE, _SIZE = (7, 32, 64), (250, 500)
"""Of the logits and the labels of one frame."""


def _some_logits(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(_SHAPE).astype(np.float32)


def _right(labels: LabelMap, seed: int) -> bool:
    return np.array_equal(labels, labels_from_logits(_some_logits(seed), _SIZE, postprocess=PostprocessSpec()))


def _mapped(device: cuda.Device) -> Outcome:
    """Labels that the GPU writes into the host's memory."""
    if not device.gpu.maps_memory:
        raise AbsentError("this GPU cannot use the host's memory where it lies")
    with _opened(device) as (stream, opened):
        memory = opened.enter_context(closing(cuda.Buffer(_some_logits(0).nbytes)))
        kernel = opened.enter_context(closing(LabelKernel(PostprocessSpec())))
        there = DeviceLogits(memory, (1, *_SHAPE), "float32")
        work = opened.enter_context(closing(Labelling(kernel, there, [(_SIZE, None)], stream, mapped=True)))
        right = 0
        for seed in range(_FRAMES):
            logits = _some_logits(seed)
            memory.write(logits, stream)
            work.enqueue(stream)
            stream.wait()
            right += _right(work.take()[0], seed)
    return Outcome(right == _FRAMES, f"{right} of {_FRAMES} frames have the host's labels in the host's memory")


def _graph(device: cuda.Device) -> Outcome:
    """Copy in, kernel and copy out, captured once and started for several frames."""
    with _opened(device) as (stream, opened):
        pinned = opened.enter_context(closing(cuda.PinnedArray(_SHAPE, "float32")))
        memory = opened.enter_context(closing(cuda.Buffer(pinned.array.nbytes)))
        kernel = opened.enter_context(closing(LabelKernel(PostprocessSpec())))
        there = DeviceLogits(memory, (1, *_SHAPE), "float32")
        work = opened.enter_context(closing(Labelling(kernel, there, [(_SIZE, None)], stream)))

        def frame() -> None:
            memory.write(pinned.array, stream)
            work.enqueue(stream)

        frame()
        stream.wait()
        graph = opened.enter_context(closing(cuda.Graph(stream, frame)))
        right = 0
        for seed in range(_FRAMES):
            pinned.array[:] = _some_logits(seed)
            graph.launch(stream)
            stream.wait()
            right += _right(work.take()[0], seed)
    return Outcome(right == _FRAMES, f"{right} of {_FRAMES} frames of one captured graph have the host's labels")


def _kernel_times(device: cuda.Device, repeat: int) -> Outcome:
    """Milliseconds of the kernel on the GPU's clock and with its copy, and of the host, for 19 classes at stride 8."""
    size, spec = _TIMED, PostprocessSpec()
    logits = np.random.default_rng(5).standard_normal((19, size[0] // 8, size[1] // 8)).astype(np.float32)
    with _opened(device) as (stream, opened):
        memory = opened.enter_context(closing(cuda.Buffer(logits.nbytes)))
        memory.write(logits, stream)
        kernel = opened.enter_context(closing(LabelKernel(spec)))
        there = DeviceLogits(memory, (1, *logits.shape), "float32")
        work = opened.enter_context(closing(Labelling(kernel, there, [(size, None)], stream)))
        device_ms = measure(lambda: work.enqueue(stream), stream, repeat).single
    host = []
    for _ in range(max(3, repeat // 5)):
        started = time.perf_counter()
        labels_from_logits(logits, size, postprocess=spec)
        host.append(ms_since(started))
    median = float(np.median(device_ms)), float(np.median(host))
    told = (
        f"19 classes to {size[0]}x{size[1]}: {median[0]:.3f} ms with the copy of labels, {median[1]:.1f} ms on the host"
    )
    return Outcome(True, told, {"device_ms": list(device_ms), "host_ms": host})
