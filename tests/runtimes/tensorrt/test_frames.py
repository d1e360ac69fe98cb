"""How a frame gets through a GPU: as a CUDA graph, without copies where memory is shared, two at a time."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg import Predictor
from edgeseg.bundle import Bundle
from edgeseg.errors import EdgesegError, InputError, UnknownNameError, UsageError
from edgeseg.predictor import Failure
from edgeseg.runtimes import RuntimeOptions, open_session
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.session import EngineSession
from tests.runtimes.bundles import make_tiny_bundle, picture
from tests.runtimes.fakes import FakeTensorRT

pytestmark = pytest.mark.usefixtures("tensorrt")

PART = "the frame is not one CUDA graph, so that each part is started by itself"


@pytest.fixture(params=["shared memory", "memory of its own"])
def memory(request: pytest.FixtureRequest, fake_gpu: ctypes.CDLL) -> str:
    """A GPU that shares the host's memory, and one that does not."""
    kind: str = request.param
    fake_gpu.fake_integrated(int(kind == "shared memory"), 1)
    return kind


def opened(folder: Path, *, dynamic: bool = False, bundle: Bundle | None = None, **options: Any) -> EngineSession:
    """A session with its plans in `folder`."""
    bundle = bundle or make_tiny_bundle(folder, targets=("ort", "trt"), dynamic=dynamic)
    session = open_session(bundle, "trt", RuntimeOptions(cache_dir=str(folder / "plans"), **options))
    assert isinstance(session, EngineSession)
    return session


def on_ort(bundle: Bundle) -> Predictor:
    return Predictor(bundle, "ort")


def predictor_of(bundle: Bundle, folder: Path, **options: Any) -> Predictor:
    return Predictor(bundle, "trt", options=RuntimeOptions(cache_dir=str(folder / "plans"), **options))


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("cuda_graph", [None, False])
def test_labels_are_the_host_s_at_every_repetition(
    tmp_path: Path, tensorrt: FakeTensorRT, cuda_graph: bool | None
) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    images = [picture(size, seed) for seed in range(4) for size in ((32, 48), (70, 50), (20, 90))]
    with on_ort(bundle) as host, predictor_of(bundle, tmp_path, cuda_graph=cuda_graph) as device:
        for image in images:
            np.testing.assert_array_equal(device(image).labels, host(image).labels)
        assert device.info.notes == ()
        assert ("CUDA graph" in device.info.mode) == (cuda_graph is None)
    executed = tensorrt.calls.count("execute")
    assert tensorrt.calls.count("ran") == len(images)
    assert executed == (6 if cuda_graph is None else len(images))  # each size once by itself and once captured


@pytest.mark.usefixtures("memory")
def test_frames_are_captured_by_what_is_wanted_of_them(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    session, image = opened(tmp_path), picture()[None]
    wanted = session.run(image)["logits"]
    labels = session.device_labels(image, [((9, 7), None)])[0]
    for _ in range(3):
        np.testing.assert_array_equal(session.run(image)["logits"], wanted)
        np.testing.assert_array_equal(session.device_labels(image, [((9, 7), None)])[0], labels)
    assert session.device_labels(image, []) == []
    assert session.run(image, ()) == {}
    assert tensorrt.calls.count("ran") == 10
    assert tensorrt.calls.count("execute") == 2 * 2 + 2
    session.close()


@pytest.mark.usefixtures("memory")
def test_another_shape_captures_anew(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    """A graph belongs to the shape that its context had: none is started for another."""
    plain, session = opened(tmp_path / "plain", dynamic=True, cuda_graph=False), opened(tmp_path, dynamic=True)
    for size in ((32, 48), (32, 48), (32, 48), (64, 96), (64, 96), (32, 48), (32, 48)):
        image = picture(size)[None]
        np.testing.assert_array_equal(session.run(image)["logits"], plain.run(image)["logits"])
    assert tensorrt.stale == 0
    assert session.info.notes == ()
    session.close()
    plain.close()


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("why", ["engine", "driver"])
def test_what_cannot_be_captured_runs_part_by_part_and_says_so(
    tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL, why: str
) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    tensorrt.waits = why == "engine"
    fake_gpu.fake_capturable(int(why != "driver"))
    with on_ort(bundle) as host, predictor_of(bundle, tmp_path) as device:
        for seed in range(5):
            image = picture((50, 70), seed)
            np.testing.assert_array_equal(device(image).labels, host(image).labels)
        (note,) = device.info.notes
    assert note.startswith(PART)
    assert "not permitted when stream is capturing" in note
    assert "\n" not in note


def test_a_driver_without_graphs_is_told(
    tmp_path: Path, fake_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeseg.runtimes.tensorrt import driver

    monkeypatch.setitem(driver._SIGNATURES, "cuGraphNever", ())
    monkeypatch.setattr(driver, "_NEWER", ("cuGraphNever",))
    driver.driver.cache_clear()
    with pytest.raises(EdgesegError, match="the NVIDIA driver here has no cuGraphNever"):
        driver.driver().call("cuGraphNever")


def test_nan_in_the_logits_is_told_in_a_graph_too(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    with predictor_of(bundle, tmp_path) as device:
        wanted = device(picture((50, 70))).labels
        for _ in range(2):
            np.testing.assert_array_equal(device(picture((50, 70))).labels, wanted)
        tensorrt.poison = float("nan")
        with pytest.raises(UsageError, match="the logits hold NaN or infinity"):
            device(picture((50, 70)))
        tensorrt.poison = None
        np.testing.assert_array_equal(device(picture((50, 70))).labels, wanted)


def test_few_kinds_of_frames_are_kept(tmp_path: Path, fake_gpu: ctypes.CDLL) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    with on_ort(bundle) as host, predictor_of(bundle, tmp_path) as device:
        for height in (20, 21, 22, 23, 24, 25, 26):
            for _ in range(2):
                image = picture((height, 60))
                np.testing.assert_array_equal(host(image).labels, device(image).labels)
        held = fake_gpu.fake_live()
        for _ in range(2):
            device(picture((70, 60)))
        assert fake_gpu.fake_live() == held


def test_shared_memory_is_not_copied(tmp_path: Path, fake_gpu: ctypes.CDLL, tensorrt: FakeTensorRT) -> None:
    """The image and the labels stay where the host has them; what the engine computes in between does not."""
    fake_gpu.fake_integrated(1, 1)
    session = opened(tmp_path, cuda_graph=False)
    frame = session.start_labels(picture()[None], [((50, 70), None)])
    assert session.info.mode == ("zero copy",)
    assert fake_gpu.fake_pending() == 5  # places of rows and columns, the engine, the flag, the labels
    frame.result()
    frame = session.start_labels(picture()[None], [((50, 70), None)])
    assert fake_gpu.fake_pending() == 3
    frame.result()
    session.close()


def test_zero_copy_can_be_chosen(tmp_path: Path, fake_gpu: ctypes.CDLL) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    for integrated, wanted, zero in ((1, False, False), (0, True, True), (0, None, False)):
        fake_gpu.fake_integrated(integrated, 1)
        session = opened(tmp_path, bundle=bundle, zero_copy=wanted)
        assert ("zero copy" in session.info.mode) == zero
        session.run(picture()[None])
        session.close()
    fake_gpu.fake_integrated(1, 0)
    opened(tmp_path, bundle=bundle).close()
    with pytest.raises(UsageError, match="cannot use the host's memory where it lies; leave zero_copy out"):
        opened(tmp_path, bundle=bundle, zero_copy=True)


def test_threads_wait_as_they_are_told(tmp_path: Path, fake_gpu: ctypes.CDLL) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    opened(tmp_path, bundle=bundle).close()
    assert fake_gpu.fake_flags(0) == 0
    for wait, flags in (("spin", 1), ("block", 4)):
        session = opened(tmp_path, bundle=bundle, wait=wait)
        assert session.info.mode[0] == f"waits: {wait}"
        assert fake_gpu.fake_flags(0) == flags
        session.close()
    with pytest.raises(UnknownNameError, match=r"unknown way to wait for the GPU 'spni'.*spin"):
        opened(tmp_path, bundle=bundle, wait="spni")


@pytest.mark.usefixtures("memory")
def test_a_frame_is_copied_while_another_is_under_way(
    tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL
) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    images = [picture(seed=seed)[None] for seed in range(6)]
    with open_session(bundle, "ort") as host:  # type: ignore[attr-defined]
        wanted = [host.run(image)["logits"] for image in images]
    session = opened(tmp_path, bundle=bundle)
    tensorrt.calls.clear()
    first, second = session.start(images[0]), session.start(images[1])
    assert tensorrt.calls.count("execute") == 2
    assert "ran" not in tensorrt.calls
    assert fake_gpu.fake_pending() > 2
    images[0][:] = images[1][:] = 0  # they were copied
    frames = [first, second, *(session.start(image) for image in images[2:])]  # each takes the place of the oldest
    for frame, logits in zip(frames, wanted, strict=True):
        np.testing.assert_array_equal(frame.result()["logits"], logits)
        assert frame.result() is frame.result()
    assert tensorrt.calls.count("create_execution_context") == 1  # the second; the first came with the session
    session.close()


def test_a_call_does_not_wait_for_frames_that_nobody_takes(tmp_path: Path) -> None:
    session = opened(tmp_path)
    left = [session.start(picture(seed=seed)[None]) for seed in range(2)]
    assert session.run(picture(seed=5)[None])["logits"].shape[0] == 1
    session.close()  # ends what is under way
    assert left[1].result()["logits"].shape[0] == 1
    with pytest.raises(InputError, match="closed"):
        session.start(picture()[None])


def test_calls_in_one_thread_take_one_context(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    session = opened(tmp_path)
    threads = [threading.Thread(target=session.run, args=(picture(seed=seed)[None],)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tensorrt.calls.count("create_execution_context") == 1
    assert tensorrt.calls.count("ran") == 4
    session.close()


def test_without_memory_for_a_second_place_frames_follow_one_another_and_that_is_said(
    tmp_path: Path, tensorrt: FakeTensorRT
) -> None:
    session = opened(tmp_path)
    tensorrt.refuse = {"create_execution_context"}
    frames = [session.start(picture(seed=seed)[None]) for seed in range(3)]
    assert all(frame.result()["logits"].size for frame in frames)
    (note,) = session.info.notes
    assert note.startswith("frames do not overlap, since there is no second place for one (tensorrt 10.3.0 cannot")
    session.close()


def test_an_error_is_of_its_frame(tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL) -> None:
    session = opened(tmp_path)
    good, bad = session.start(picture()[None]), session.start(picture()[None])
    assert good.result()["logits"].size
    fake_gpu.fake_failed(719)
    with pytest.raises(EdgesegError, match="CUDA_ERROR_LAUNCH_FAILED"):
        bad.result()
    with pytest.raises(EdgesegError, match="CUDA_ERROR_LAUNCH_FAILED"):
        bad.result()
    assert session.run(picture()[None])["logits"].size
    session.close()


def test_a_dropped_session_frees_its_engine(tmp_path: Path, fake_gpu: ctypes.CDLL) -> None:
    session = opened(tmp_path)
    session.run(picture()[None])
    gone = weakref.ref(session)
    gc.disable()
    try:
        del session
        assert gone() is None
    finally:
        gc.enable()
    assert fake_gpu.fake_live() == 0


@pytest.mark.usefixtures("memory")
def test_a_stream_keeps_the_order_and_overlaps(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    images = [picture(size, seed) for seed in range(5) for size in ((32, 48), (70, 50))]
    with on_ort(bundle) as host:
        wanted = [host(image).labels for image in images]
    with predictor_of(bundle, tmp_path) as device, device.stream(images) as stream:
        for result, labels in zip(stream, wanted, strict=True):
            assert not isinstance(result, Failure)
            np.testing.assert_array_equal(result.labels, labels)
            assert result.timings["infer"] > 0
    assert tensorrt.calls.count("create_execution_context") <= 2


def test_a_stream_gives_a_picture_before_the_next_one_comes(tmp_path: Path) -> None:
    """A source may wait for a result before it gives its next picture."""
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    taken = threading.Semaphore(0)

    def source() -> Iterator[Any]:
        for seed in range(4):
            yield picture(seed=seed)
            assert taken.acquire(timeout=20)

    with predictor_of(bundle, tmp_path) as device, device.stream(source()) as stream:
        for _ in stream:
            taken.release()


def test_a_stream_that_nobody_reads_blocks_neither_calls_nor_the_end(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    device = predictor_of(bundle, tmp_path)
    stream = device.stream([picture(seed=seed) for seed in range(30)])
    next(stream)
    assert device(picture()).labels.shape == (32, 48)
    device.close()
    stream.close()


def test_a_failing_engine_ends_the_stream_behind_the_frames_before(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    given = threading.Semaphore(0)

    def source() -> Iterator[Any]:
        for seed in range(6):
            if seed == 3:
                assert given.acquire(timeout=20)
                tensorrt.refuse = {"execute"}
            yield picture(seed=seed)

    with predictor_of(bundle, tmp_path, cuda_graph=False) as device, device.stream(source()) as stream:
        for _ in range(3):
            assert not isinstance(next(stream), Failure)
        given.release()
        with pytest.raises(EdgesegError, match="failed to run the engine: fake refusal in execute"):
            next(stream)


def frames_of_labels(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    with predictor_of(bundle, folder) as device:
        for size in ((50, 70), (50, 70), (20, 30)):
            device(picture(size))
        return device.info.notes


def frames_of_outputs(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    session = opened(folder, bundle=bundle)
    try:
        for _ in range(3):
            session.run(picture()[None])
        session.engine_times(picture()[None], 1)
        return session.info.notes
    finally:
        session.close()


def two_frames(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    session = opened(folder, bundle=bundle)
    try:
        frames = [session.start_labels(picture()[None], [((9, 9), None)]) for _ in range(3)]
        for frame in frames:
            frame.result()
        return session.info.notes
    finally:
        session.close()


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("work", [frames_of_labels, frames_of_outputs, two_frames])
def test_any_call_may_fail_and_nothing_is_left(
    tmp_path: Path, fake_gpu: ctypes.CDLL, work: Callable[[Bundle, Path], tuple[str, ...]]
) -> None:
    """Every call of the driver fails once: an error in a sentence or a note, no context left current, no leak."""
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    fake_gpu.fake_failed_in.restype = ctypes.c_char_p
    assert work(bundle, tmp_path) == ()
    before = fake_gpu.fake_calls()
    work(bundle, tmp_path)
    calls = fake_gpu.fake_calls() - before
    assert calls > 40
    for nth in range(1, calls + 1):
        fake_gpu.fake_fail(nth, 700)
        said = said_by(lambda: work(bundle, tmp_path))
        fake_gpu.fake_fail(0, 0)
        where = nth, fake_gpu.fake_failed_in()
        assert said, where
        assert "\n" not in said
        if "cuCtxPushCurrent" in said:  # a context that cannot be entered is gone, and its memory with it
            fake_gpu.fake_forget()
        assert (fake_gpu.fake_current(), fake_gpu.fake_live()) == (0, 0), where


def said_by(work: Callable[[], tuple[str, ...]]) -> str:
    """What an error of `work` says, or its notes; empty where it is as if nothing had been."""
    try:
        return "; ".join(work())
    except EdgesegError as error:
        return str(error)


def check_a_graph(ordinal: int) -> None:
    """Copies in, copies out and a cleared word between, captured once and started again."""
    with cuda.open_device(str(ordinal)).current():
        stream, buffer = cuda.Stream(), cuda.Buffer(4096)
        source, target = cuda.PinnedArray((1024,), "uint32"), cuda.PinnedArray((1024,), "uint32")

        def enqueue() -> None:
            buffer.write(source.array, stream)
            cuda.clear_word(buffer.address + 8, stream)
            buffer.read(target.array, stream)

        graph = cuda.Graph(stream, enqueue)
        for start in (1, 5):
            source.array[:] = np.arange(start, start + 1024)
            graph.launch(stream)
            stream.wait()
            wanted = source.array.copy()
            wanted[2] = 0
            np.testing.assert_array_equal(target.array, wanted)
        with pytest.raises(EdgesegError, match="CUDA_ERROR_STREAM_CAPTURE"):
            cuda.Graph(stream, stream.wait)
        stream.wait()
        for part in (graph, buffer, source, target, stream):
            part.close()
            part.close()


@pytest.mark.usefixtures("fake_gpu")
def test_a_graph_is_captured_and_started_again() -> None:
    check_a_graph(0)


@pytest.mark.gpu
def test_a_real_gpu_runs_a_graph(real_gpu: cuda.GpuInfo) -> None:
    """It needs no TensorRT."""
    check_a_graph(real_gpu.ordinal)


@pytest.mark.gpu
def test_a_real_gpu_reaches_mapped_memory(real_gpu: cuda.GpuInfo) -> None:
    with cuda.open_device(str(real_gpu.ordinal)).current():
        stream, array = cuda.Stream(), cuda.PinnedArray((16,), "uint32", mapped=real_gpu.maps_memory)
        array.array[:] = 7
        cuda.clear_word(array.address + 12, stream)
        stream.wait()
        assert array.array.tolist() == [7, 7, 7, 0, *[7] * 12]
        array.close()
        stream.close()
