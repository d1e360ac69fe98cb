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
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import onnx

from edgeseg.export.graph.editor import GraphEditor
from edgeseg.export.passes._base import GraphPass, Pass
from edgeseg.export.passes.norms import SplitNorms
from edgeseg.export.passes.prelu import SpreadPRelu
from edgeseg.runtimes.ort.passes.align import AlignChannels
from edgeseg.runtimes.ort.passes.classifiers import ClassifiersAsProducts
from edgeseg.runtimes.ort.passes.depthwise import FullForGrouped, RepeatForDepthwise
from edgeseg.runtimes.ort.passes.floats import KeepFloats
from edgeseg.runtimes.ort.passes.grids import QuantiseGrids
from edgeseg.runtimes.ort.passes.pools import PoolsAsConvolutions
from edgeseg.runtimes.ort.passes.prelus import SplitPRelus
from edgeseg.runtimes.ort.passes.shifts import WidenShifts
from edgeseg.runtimes.ort.passes.stems import FoldStems
from edgeseg.runtimes.ort.passes.swish import MultiplySwishes
from edgeseg.runtimes.ort.passes.unsigned import UnsignedActivations

__all__ = ["INT8_PASSES", "for_onnxruntime"]

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
)
"""The passes of a quantised graph, in order. Those of a float graph follow them: floats are left in it."""


def for_onnxruntime(model: onnx.ModelProto) -> onnx.ModelProto:
    """Apply all passes to a quantised graph without proof, and return the graph that ONNX Runtime runs on the CPU.

    The search for operators that stay float does so for every graph it scores: what is scored is what is shipped.

    Args:
        model: As `quantise` makes it; it is not changed.
    """
    steps = [*(step() for step in INT8_PASSES), SplitNorms(), SpreadPRelu(blocked=False)]
    for shared, group in itertools.groupby(steps, key=_keeps_shapes):
        apply = _edited if shared else _applied
        model = apply(model, group)
    return model


def _keeps_shapes(step: Pass) -> bool:
    """Tell whether the shapes an editor knows are right after the pass: `AlignChannels` changes those of others."""
    return isinstance(step, GraphPass) and not isinstance(step, AlignChannels)


def _edited(model: onnx.ModelProto, steps: Iterable[Pass]) -> onnx.ModelProto:
    """Apply passes that keep shapes with one editor: shapes are inferred once."""
    editor = GraphEditor(model)
    for step in steps:
        if isinstance(step, GraphPass):
            step.apply(editor)
    return editor.to_proto() if editor.changes else model


def _applied(model: onnx.ModelProto, steps: Iterable[Pass]) -> onnx.ModelProto:
    for step in steps:
        model = step(model).model
    return model
