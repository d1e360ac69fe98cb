"""A fake TensorRT-RTX for the tests of what runs on it."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from edgeseg.runtimes.tensorrt import rtx as trt_rtx
from edgeseg.runtimes.tensorrt.build import logger_of
from tests.runtimes.fakes import fake_tensorrt


@pytest.fixture
def fake_rtx_module(monkeypatch: pytest.MonkeyPatch, fake_gpu: ctypes.CDLL) -> Any:
    """A fake TensorRT-RTX 1.7.1 on a fake GPU."""
    module, record = fake_tensorrt(version="1.7.1", name="tensorrt_rtx_bindings", driver=fake_gpu)
    module.record = record
    monkeypatch.setattr(trt_rtx, "rtx_module", lambda: module)
    yield module
    logger_of.cache_clear()


@pytest.fixture
def fake_rtx(fake_rtx_module: Any) -> Any:
    """What the fake TensorRT-RTX was asked."""
    return fake_rtx_module.record
