"""The CUDA wrapper, driven through ctypes against a driver that keeps device memory on the host."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import EdgesegError, TargetUnavailableError, UsageError
from edgeseg.runtimes.tensorrt import cuda, driver


@pytest.mark.usefixtures("fake_gpu")
def test_describes_the_gpu() -> None:
    gpu = cuda.list_gpus()[0]
    assert (gpu.name, gpu.compute_capability, gpu.memory, gpu.integrated) == ("Fake A", "8.7", 8 << 30, True)
    assert gpu.multiprocessors == 8
    assert str(gpu) == "Fake A, sm_87"
    assert cuda.driver_version() == "12.6"


def test_copies_there_and_back_and_frees_everything(fake_gpu: ctypes.CDLL) -> None:
    with cuda.open_device().current():
        source = np.arange(1000, dtype=np.float32)
        host, buffer, stream = cuda.PinnedArray((10, 100), "float32"), cuda.Buffer(4000), cuda.Stream()
        buffer.write(source, stream)
        buffer.read(host.array, stream)
        assert fake_gpu.fake_pending() == 2
        stream.wait()
        np.testing.assert_array_equal(host.array.ravel(), source)
        for part in (host, buffer, stream):
            part.close()
            part.close()
    assert fake_gpu.fake_live() == 0


def test_events_measure(fake_gpu: ctypes.CDLL) -> None:
    with cuda.open_device("cuda:0").current():
        stream, first, second = cuda.Stream(), cuda.Event(), cuda.Event()
        first.record(stream)
        with pytest.raises(EdgesegError, match="cuEventElapsedTime: invalid resource handle"):
            second.milliseconds_since(first)  # never recorded
        fake_gpu.fake_tick(ctypes.c_float(2.5))
        second.record(stream)
        assert second.milliseconds_since(first) == pytest.approx(2.5)
        for part in (first, second, stream):
            part.close()


def test_the_caller_s_context_is_as_it_was(fake_gpu: ctypes.CDLL) -> None:
    """A program that uses one GPU by another package finds it current after edgeseg ran on another GPU."""
    fake_gpu.fake_setup(2, ctypes.c_size_t(1 << 30))
    first, second = cuda.open_device("0"), cuda.open_device("1")
    fake_gpu.fake_set_current(100)
    with second.current():
        assert fake_gpu.fake_current() == 101
        with first.current():
            assert fake_gpu.fake_current() == 100
        assert fake_gpu.fake_current() == 101
    assert fake_gpu.fake_current() == 100
    fake_gpu.fake_set_current(0)


def test_the_context_is_current_in_the_thread_that_asks(fake_gpu: ctypes.CDLL) -> None:
    device, seen = cuda.open_device(), []

    def look() -> None:
        seen.append(fake_gpu.fake_current())
        with device.current():
            seen.append(fake_gpu.fake_current())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [0, 100]


def test_the_context_leaves_the_thread_when_the_block_raises(fake_gpu: ctypes.CDLL) -> None:
    device = cuda.open_device()
    with pytest.raises(RuntimeError, match="own"), device.current():
        raise RuntimeError("own")
    assert fake_gpu.fake_current() == 0


def test_a_gpu_s_context_is_retained_once_and_kept(fake_gpu: ctypes.CDLL) -> None:
    for _ in range(3):
        cuda.open_device()
    assert fake_gpu.fake_retained(0) == 1


def test_out_of_memory_names_the_amounts(fake_gpu: ctypes.CDLL) -> None:
    fake_gpu.fake_setup(1, ctypes.c_size_t(64 << 20))
    device = cuda.open_device()
    with device.current(), pytest.raises(EdgesegError, match=r"no memory for 128 MiB \(64 MiB are free\)"):
        cuda.Buffer(128 << 20)
    assert device.free_memory() == 64 << 20


@pytest.mark.usefixtures("fake_gpu")
def test_a_failing_call_is_one_sentence() -> None:
    with cuda.open_device().current():
        stream = cuda.Stream()
        stream.close()
        words = r"cuStreamSynchronize: invalid resource handle \(CUDA_ERROR_INVALID_HANDLE"
        with pytest.raises(EdgesegError, match=words):
            stream.wait()


@pytest.mark.usefixtures("fake_gpu")
def test_a_call_without_a_current_context_is_one_sentence() -> None:
    cuda.open_device()
    with pytest.raises(EdgesegError, match=r"cuStreamCreate: invalid device context \(CUDA_ERROR_INVALID_CONTEXT"):
        cuda.Stream()


@pytest.mark.usefixtures("fake_gpu")
def test_refuses_a_gpu_that_is_not_there() -> None:
    with pytest.raises(TargetUnavailableError, match=r"there is no GPU 3; this machine has 0 \(Fake A\)"):
        cuda.open_device("3")
    with pytest.raises(UsageError, match="'first' is not the number of a GPU"):
        cuda.open_device("first")


@pytest.mark.parametrize("status", [0, 100])
def test_no_gpu_that_the_variable_leaves_visible(
    fake_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """cuInit itself says that there is no device where the variable is empty."""
    fake_gpu.fake_setup(0, ctypes.c_size_t(0))
    fake_gpu.fake_init(status)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(TargetUnavailableError, match="finds no GPU that CUDA_VISIBLE_DEVICES leaves visible; set it"):
        cuda.open_device()


@pytest.mark.parametrize("status", [100, 999])
def test_a_jetson_user_without_rights_is_told_the_groups(
    fake_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, status: int, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake_gpu.fake_init(status)
    with pytest.raises(TargetUnavailableError, match="check it with nvidia-smi"):
        cuda.open_device()
    (tmp_path / "release").touch()
    monkeypatch.setattr(driver, "_TEGRA", tmp_path / "release")
    with pytest.raises(TargetUnavailableError, match=r"usermod -aG video,render .* --runtime nvidia"):
        cuda.open_device()


def test_a_driver_that_was_updated_wants_a_restart(fake_gpu: ctypes.CDLL) -> None:
    fake_gpu.fake_init(803)
    with pytest.raises(TargetUnavailableError, match="restart the machine"):
        cuda.list_gpus()


@pytest.mark.usefixtures("fake_gpu")
def test_a_driver_that_lacks_a_function_is_too_old_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(driver._SIGNATURES, "cuNoSuchThing_v9", ())
    with pytest.raises(TargetUnavailableError, match="too old: it has no cuNoSuchThing_v9; install a newer one"):
        cuda.list_gpus()


@pytest.mark.usefixtures("no_gpu")
def test_without_a_driver_one_sentence() -> None:
    with pytest.raises(TargetUnavailableError, match="this machine has no NVIDIA driver") as caught:
        cuda.list_gpus()
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_a_real_gpu_copies(real_gpu: cuda.GpuInfo) -> None:
    source = np.random.default_rng(0).random(1 << 16).astype(np.float32)
    with cuda.open_device(str(real_gpu.ordinal)).current():
        host, buffer, stream = cuda.PinnedArray(source.shape, "float32"), cuda.Buffer(source.nbytes), cuda.Stream()
        buffer.write(source, stream)
        buffer.read(host.array, stream)
        stream.wait()
        np.testing.assert_array_equal(host.array, source)
        for part in (host, buffer, stream):
            part.close()
