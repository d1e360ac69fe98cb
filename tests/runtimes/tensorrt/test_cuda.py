"""The CUDA wrapper, driven through ctypes against a driver that keeps device memory on the host."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

from edgeseg.errors import EdgesegError, TargetUnavailableError, UsageError
from edgeseg.runtimes.tensorrt import cuda


@pytest.mark.usefixtures("fake_gpu")
def test_describes_the_gpu() -> None:
    gpu = cuda.list_gpus()[0]
    assert (gpu.name, gpu.compute_capability, gpu.memory, gpu.integrated) == ("Fake A", "8.7", 8 << 30, True)
    assert str(gpu) == "Fake A, sm_87"
    assert cuda.driver_version() == "12.6"


def test_copies_there_and_back_and_frees_everything(fake_gpu: ctypes.CDLL) -> None:
    device = cuda.open_device()
    source = np.arange(1000, dtype=np.float32)
    host, buffer, stream = cuda.PinnedArray((10, 100), "float32"), cuda.Buffer(4000), cuda.Stream()
    buffer.write(source, stream)
    buffer.read(host.array, stream)
    stream.wait()
    np.testing.assert_array_equal(host.array.ravel(), source)
    for part in (host, buffer, stream, device):
        part.close()
        part.close()
    assert fake_gpu.fake_live() == 0


@pytest.mark.usefixtures("fake_gpu")
def test_events_measure() -> None:
    device, stream, first, second = cuda.open_device("cuda:0"), cuda.Stream(), cuda.Event(), cuda.Event()
    first.record(stream)
    second.record(stream)
    assert second.milliseconds_since(first) == pytest.approx(1.5)
    for part in (first, second, stream, device):
        part.close()


def test_the_context_is_made_current_in_each_thread(fake_gpu: ctypes.CDLL) -> None:
    fake_gpu.fake_setup(2, ctypes.c_size_t(1 << 30))
    first, second = cuda.open_device("0"), cuda.open_device("1")
    assert fake_gpu.fake_current() == 101
    thread = threading.Thread(target=first.make_current)
    thread.start()
    thread.join()
    assert fake_gpu.fake_current() == 100
    first.close()
    second.close()


def test_out_of_memory_names_the_amounts(fake_gpu: ctypes.CDLL) -> None:
    fake_gpu.fake_setup(1, ctypes.c_size_t(64 << 20))
    device = cuda.open_device()
    with pytest.raises(EdgesegError, match=r"no memory for 128 MiB \(64 MiB are free\)"):
        cuda.Buffer(128 << 20)
    assert device.free_memory() == 64 << 20
    device.close()


@pytest.mark.usefixtures("fake_gpu")
def test_a_failing_call_is_one_sentence() -> None:
    stream = cuda.Stream()
    stream.close()
    with pytest.raises(EdgesegError, match=r"cuStreamSynchronize: invalid resource handle \(CUDA_ERROR_INVALID_HANDLE"):
        stream.wait()


@pytest.mark.usefixtures("fake_gpu")
def test_refuses_a_gpu_that_is_not_there() -> None:
    with pytest.raises(TargetUnavailableError, match=r"there is no GPU 3; this machine has 0 \(Fake A\)"):
        cuda.open_device("3")
    with pytest.raises(UsageError, match="'first' is not the number of a GPU"):
        cuda.open_device("first")


def test_a_driver_without_gpus(fake_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.fake_setup(0, ctypes.c_size_t(0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(TargetUnavailableError, match="finds no GPU that CUDA_VISIBLE_DEVICES leaves visible"):
        cuda.open_device()


@pytest.mark.usefixtures("no_gpu")
def test_without_a_driver_one_sentence() -> None:
    with pytest.raises(TargetUnavailableError, match="this machine has no NVIDIA driver") as caught:
        cuda.list_gpus()
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_a_real_gpu_copies(real_gpu: cuda.GpuInfo) -> None:
    device = cuda.open_device(str(real_gpu.ordinal))
    source = np.random.default_rng(0).random(1 << 16).astype(np.float32)
    host, buffer, stream = cuda.PinnedArray(source.shape, "float32"), cuda.Buffer(source.nbytes), cuda.Stream()
    buffer.write(source, stream)
    buffer.read(host.array, stream)
    stream.wait()
    np.testing.assert_array_equal(host.array, source)
    for part in (host, buffer, stream, device):
        part.close()
