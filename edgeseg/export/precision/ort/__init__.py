"""An int8 graph as ONNX Runtime's CPU kernels want it written: the same network, for that one engine.

ONNX Runtime runs an operator in int8 where quantisers stand right before and after it, and in float elsewhere. NNCF
leaves out quantisers that change nothing, and other engines need none there:

- every tensor becomes uint8 (`qdq.as_uint8`): kernels want one type on both sides;
- a small average pool becomes a depthwise convolution, whose kernel takes a tenth of the time (`depthwise`);
- PReLU, which has no int8 kernel, becomes a sum of convolutions cut off at 0, together with the sums and batch norms
  before it (`prelu`); what is left of them becomes the larger of x and s x (`PReluAsMaximum`);
- hard swish, which has none either, becomes a product of convolutions cut off at 0 and 1 (`swish`);
- a tensor whose numbers lie on a known grid (a concat of tensors of one scale, the largest of a window) gets a
  quantiser of that grid before a convolution or sum reads it (`grids`). That changes no number, and the operator runs
  in int8;
- a depthwise convolution with several outputs per channel, which has no kernel of its own, becomes one with a single
  output each, after a 1x1 convolution that repeats the channels (`depthwise`);
- convolutions give a multiple of 16 channels, the last ones of zeros, where nothing needs them as they were
  (`AlignChannels`);
- the first convolution, of three channels, becomes one of four pixels at a time (`pixels`);
- a 1x1 convolution whose output stays float (a classifier) becomes a product of integers, scaled afterwards, where it
  has fewer outputs than inputs (`products`): else its inputs are made float first, and put in another layout;
- a shift per channel of the picture becomes one per channel and column (`pixels`): kernels run channels-last, where
  adding three numbers at a time takes ten times as long as adding a row of the picture;
- operators that stay float read float weights, and maps that nothing rounded for their sake (`floats`).
"""

from __future__ import annotations

import onnx

from edgeseg.export.graph.qdq import as_uint8
from edgeseg.export.precision.ort.depthwise import full_for_grouped, pools_as_convolutions, repeat_for_depthwise
from edgeseg.export.precision.ort.floats import keep_floats
from edgeseg.export.precision.ort.grids import quantise_grids
from edgeseg.export.precision.ort.pixels import fold_stems, widen_shifts
from edgeseg.export.precision.ort.prelu import split_prelus
from edgeseg.export.precision.ort.products import classifiers_as_products
from edgeseg.export.precision.ort.swish import multiply_swishes
from edgeseg.runtimes.ort.passes.align import AlignChannels
from edgeseg.runtimes.ort.passes.norms import SplitNorms
from edgeseg.runtimes.ort.passes.prelu import PReluAsMaximum

__all__ = ["for_onnxruntime"]

_STEPS = (
    pools_as_convolutions,
    split_prelus,
    multiply_swishes,
    quantise_grids,
    repeat_for_depthwise,
    full_for_grouped,
    lambda model: AlignChannels()(model).model,
    fold_stems,
    classifiers_as_products,
    widen_shifts,
    keep_floats,
)


def for_onnxruntime(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph for ONNX Runtime on the CPU; `model` is as `quantise` makes it, and is not changed."""
    made = as_uint8(model)
    for step in _STEPS:
        made = step(made)
    for rewrite in (SplitNorms(), PReluAsMaximum()):
        made = rewrite(made).model
    return made
