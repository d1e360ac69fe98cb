"""A graph as ONNX Runtime's CPU kernels want it: the same network, for that one engine.

ONNX Runtime runs an operator in int8 where quantisers stand right before and after it, and in float elsewhere. NNCF
leaves out quantisers that change nothing, and other engines need none there. So, in this order:

- every activation becomes uint8, because kernels want one type on both sides (`unsigned`);
- a small average pool becomes a depthwise convolution, whose kernel is several times as fast (`pools`);
- PReLU, which has no int8 kernel, becomes a sum of convolutions cut off at 0, together with the sums and batch norms
  before it (`prelus`);
- hard swish, which has none either, becomes a product of convolutions cut off at 0 and 1 (`swish`);
- a map whose numbers lie on a known grid (a concat of maps of one scale, the largest of a window) gets a quantiser of
  that grid where an int8 operator reads it (`grids`);
- a depthwise convolution with several outputs per channel becomes one with a single output each, after a 1x1
  convolution that repeats the channels, and one of a few groups becomes a full one (`depthwise`);
- convolutions give a multiple of 16 channels, the last ones of zeros, where nothing needs them as they were (`align`);
- the first convolution, of three channels, becomes one of several pixels at a time (`stems`);
- a 1x1 convolution whose output stays float (a classifier) becomes a product of integers, scaled afterwards
  (`classifiers`);
- a shift per channel of the picture becomes one per channel and column (`shifts`);
- operators that stay float read float weights, and maps that nothing rounded for their sake (`floats`).

In a float graph PReLU becomes convolutions, or a maximum (`prelu`), and layer norms of many short tokens become
instance norms (`norms`).
"""

from __future__ import annotations

from edgeseg.graph.passes._base import Pass
from edgeseg.graph.passes.tiny import FlushTiny
from edgeseg.runtimes.ort.passes.align import AlignChannels
from edgeseg.runtimes.ort.passes.classifiers import ClassifiersAsProducts
from edgeseg.runtimes.ort.passes.depthwise import FullForGrouped, RepeatForDepthwise
from edgeseg.runtimes.ort.passes.floats import KeepFloats
from edgeseg.runtimes.ort.passes.grids import QuantiseGrids
from edgeseg.runtimes.ort.passes.norms import SplitNorms
from edgeseg.runtimes.ort.passes.pools import PoolsAsConvolutions
from edgeseg.runtimes.ort.passes.prelu import PReluAsConvolutions, PReluAsMaximum
from edgeseg.runtimes.ort.passes.prelus import SplitPRelus
from edgeseg.runtimes.ort.passes.shifts import WidenShifts
from edgeseg.runtimes.ort.passes.stems import FoldStems
from edgeseg.runtimes.ort.passes.swish import MultiplySwishes
from edgeseg.runtimes.ort.passes.unsigned import UnsignedActivations

__all__ = ["FLOAT_PASSES", "INT8_PASSES"]

FLOAT_PASSES: tuple[type[Pass], ...] = (PReluAsConvolutions, PReluAsMaximum, SplitNorms, FlushTiny)
"""The passes of a float graph, in order."""

INT8_PASSES: tuple[type[Pass], ...] = (
    UnsignedActivations,
    PoolsAsConvolutions,
    SplitPRelus,
    MultiplySwishes,
    QuantiseGrids,
    RepeatForDepthwise,
    FullForGrouped,
    AlignChannels,
    FoldStems,
    ClassifiersAsProducts,
    WidenShifts,
    KeepFloats,
    SplitNorms,
    PReluAsMaximum,
)
"""The passes of a quantised graph, in order; the last two are for what stayed float in it."""
