"""What is written otherwise before pnnx reads a network; run at export, where torch is."""

from __future__ import annotations

from edgeseg.runtimes.ncnn.passes.operators import write_for_ncnn

__all__ = ["write_for_ncnn"]
