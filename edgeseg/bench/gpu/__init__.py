"""Is this GPU right? Every check that a machine with one can make of edgeseg's driver calls, kernel and engines."""

from __future__ import annotations

from edgeseg.bench.gpu.check import GpuCheck, GpuCheckSettings, check_gpu
from edgeseg.bench.gpu.findings import Finding, Verdict

__all__ = ["Finding", "GpuCheck", "GpuCheckSettings", "Verdict", "check_gpu"]
