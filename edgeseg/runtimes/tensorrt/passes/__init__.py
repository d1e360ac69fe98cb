"""A graph as NVIDIA's engines want it: half from the picture to the logits, int8 around convolutions alone.

TensorRT and TensorRT for RTX compute in the types that the graph has (strong typing). In a graph in half, and in one
with int8 convolutions:

- the picture is cast straight to half and normalised in half (`pixels`);
- the logits stay in half, and who asks a session for them gets float32 (`half`).

In one with int8 besides, first:

- convolutions read int8 maps, all other operators float weights (`convolutions`);
- what is added to a convolution is int8, and the convolution itself goes into the sum as it is (`convolutions`);
- quantisers that serve no convolution go (`convolutions`);
- everything beside int8 becomes half (`half`).
"""

from __future__ import annotations

from edgeseg.graph.passes._base import Pass
from edgeseg.runtimes.tensorrt.passes.convolutions import FuseResiduals, KeepConvolutionsInt8, QuantiseConvolutions
from edgeseg.runtimes.tensorrt.passes.half import HalfBesideInt8, HalfLogits
from edgeseg.runtimes.tensorrt.passes.pixels import HalfPixels

__all__ = ["HALF_PASSES", "INT8_PASSES"]

HALF_PASSES: tuple[type[Pass], ...] = (HalfPixels, HalfLogits)
"""The passes of a graph in half, in order."""

INT8_PASSES: tuple[type[Pass], ...] = (
    QuantiseConvolutions,
    FuseResiduals,
    KeepConvolutionsInt8,
    HalfBesideInt8,
    *HALF_PASSES,
)
"""The passes of a quantised graph, in order."""
