"""Fixtures of the harness's tests: the stand-in for a CUDA driver."""

from __future__ import annotations

from tests.runtimes.conftest import fake_driver_library, fake_gpu, no_gpu

__all__ = ["fake_driver_library", "fake_gpu", "no_gpu"]
