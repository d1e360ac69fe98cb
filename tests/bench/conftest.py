"""Fixtures of the harness's tests: the stand-ins for a CUDA driver and for TensorRT."""

from __future__ import annotations

from tests.runtimes.conftest import fake_driver_library, fake_gpu, no_gpu, tensorrt

__all__ = ["fake_driver_library", "fake_gpu", "no_gpu", "tensorrt"]
