"""Fixtures of the runtimes' tests: a CUDA driver that is none, a TensorRT that is none, and the GPU marker."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeseg.errors import EdgesegError
from edgeseg.runtimes.tensorrt import cuda, driver
from edgeseg.runtimes.tensorrt.build import logger_of
from edgeseg.runtimes.tensorrt.label_kernel import PTX
from tests.runtimes.fakes import FakeTensorRT, fake_tensorrt


@pytest.fixture(scope="session")
def fake_driver_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``fake_cuda.c`` and the label kernel for the host, compiled."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or sys.platform == "win32":
        pytest.skip("needs a C++ compiler to build the stand-in for the CUDA driver")
    folder = tmp_path_factory.mktemp("cuda")
    here, library = Path(__file__).parent, folder / "libfakecuda.so"
    flags = ["-O1", "-ffp-contract=off", "-fPIC", "-Wall", "-Werror", "-I", str(PTX.parent)]
    for source, language in (("fake_cuda.c", "c"), ("labels_host.cpp", "c++")):
        output = ["-c", "-o", str(folder / f"{source}.o")]
        subprocess.run([compiler, *flags, "-x", language, str(here / source), *output], check=True)
    objects = [str(path) for path in sorted(folder.glob("*.o"))]
    subprocess.run([compiler, "-shared", "-o", str(library), *objects], check=True)
    return library


@pytest.fixture
def fake_gpu(fake_driver_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """One fake GPU; yields the library, whose ``fake_live`` counts what is not freed."""
    library = ctypes.CDLL(str(fake_driver_library))
    library.fake_reset()
    monkeypatch.setattr(driver, "_library_names", lambda: (str(fake_driver_library),))
    driver.driver.cache_clear()
    yield library
    assert library.fake_current() == 0, "a context was left current"
    assert library.fake_live() == 0, "something was not freed"
    driver.driver.cache_clear()


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without an NVIDIA driver, whatever this one has."""
    monkeypatch.setattr(driver, "_library_names", lambda: ("libno-such-driver.so",))
    driver.driver.cache_clear()
    yield
    driver.driver.cache_clear()


@pytest.fixture
def tensorrt(fake_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRT]:
    """A fake ``tensorrt`` 10.3 on a fake GPU; yields what it was asked."""
    module, record = fake_tensorrt(driver=fake_gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    yield record
    logger_of.cache_clear()


@pytest.fixture
def real_gpu() -> Any:
    """The first GPU of this machine; skips where there is none."""
    try:
        gpus = cuda.list_gpus()
    except EdgesegError as error:
        pytest.skip(str(error))
    if not gpus:
        pytest.skip("the NVIDIA driver finds no GPU")
    return gpus[0]
