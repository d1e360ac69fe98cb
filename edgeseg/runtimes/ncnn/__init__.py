"""The ``ncnn`` target."""

from __future__ import annotations

__all__ = ["INPUT", "NCNN_MODEL", "NCNN_WEIGHTS", "OUTPUT"]

NCNN_MODEL, NCNN_WEIGHTS = "ncnn/model.param", "ncnn/model.bin"
"""Files of a bundle with ncnn's graph and its weights."""

INPUT, OUTPUT = "in0", "out0"
"""Blobs that pnnx calls the first input and output; `ncnn.Net.output_names` may list dangling blobs before them."""
