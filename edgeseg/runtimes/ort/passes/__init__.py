"""The passes that write a graph as ONNX Runtime's CPU kernels want it; each runs after the general ones."""

from __future__ import annotations

from edgeseg.export.passes._base import Pass
from edgeseg.export.passes.tiny import FlushTiny
from edgeseg.runtimes.ort.passes.align import AlignChannels
from edgeseg.runtimes.ort.passes.norms import SplitNorms
from edgeseg.runtimes.ort.passes.prelu import PReluAsConvolutions, PReluAsMaximum

__all__ = ["FLOAT_PASSES", "INT8_PASSES"]

FLOAT_PASSES: tuple[type[Pass], ...] = (PReluAsConvolutions, PReluAsMaximum, SplitNorms, FlushTiny)
"""Of a float graph, in order."""

INT8_PASSES: tuple[type[Pass], ...] = (AlignChannels, SplitNorms, PReluAsMaximum)
"""Of a quantised graph, in order."""
