"""Low precision: int8 (Q/DQ in the graph), fp16 (casts in the graph), bf16 (OpenVINO); accepted only where it pays."""

from __future__ import annotations

from edgeseg.export.precision.report import KeptFloat, Latency, PrecisionReport, TargetFigures

__all__ = ["KeptFloat", "Latency", "PrecisionReport", "TargetFigures"]
