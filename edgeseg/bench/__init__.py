"""The latency harness: measure a bundle from picture file to labels, keep every sample, compare two measurements."""

from __future__ import annotations

from edgeseg.bench.compare import Comparison, StageChange, compare_reports
from edgeseg.bench.harness import benchmark, run_benchmark
from edgeseg.bench.report import BenchmarkReport, load_reports, save_reports
from edgeseg.bench.stats import Summary, summarize

__all__ = [
    "BenchmarkReport",
    "Comparison",
    "StageChange",
    "Summary",
    "benchmark",
    "compare_reports",
    "load_reports",
    "run_benchmark",
    "save_reports",
    "summarize",
]
