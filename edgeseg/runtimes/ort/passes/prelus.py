"""PReLU in int8, which has no kernel for it: the sum of what convolutions give on either side of 0.

PReLU(x) = max(x, 0) + min(s x, 0) for slopes s of 0 and more. A quantiser cuts off at its ends. So the first half is
the convolution before the PReLU, rounded to numbers from 0 up. The second half is the same convolution with its scales
times the slopes, rounded to numbers from 0 down (zero point 255). Channels of negative slopes, half of those of
published networks, have max(s x, 0) in place of the second half: a third convolution, from 0 up, added to the first.
At every place all but one of the parts are 0, and sums have an int8 kernel. The convolution runs in int8 too, which it
does not before a float operator. The parts are whole steps of the output, so the sum rounds nothing again.
(Parts in half steps were tried: every second sum lies between two steps, and ESPNet's error on CamVid was half as much
again as that of the quantised graph. With whole steps it is the same.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.editor import GraphEditor, attribute_int
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import ALLOWED_DROP, QUANTISE, Grid, QuantisedDraft, QuantisedGraph
from edgeseg.runtimes.ort.passes.sources import Source, source_of

__all__ = ["SplitPRelus"]

_MIDDLE, _TOP = 128, 255


class SplitPRelus(GraphPass):
    """Turn PReLUs between convolutions (or sums, batch norms) of quantised maps and a quantiser into int8 sums.

    Several maps joined before the PReLU get a sum each. Requires constant slopes, one quantiser of zero point 128 that
    reads the PReLU, and that nothing else reads what stands before it.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "rounding"
    allowed_drop: ClassVar[float] = ALLOWED_DROP

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        for node in graph.nodes("PRelu"):
            found = _find(graph, node)
            if found is None:
                editor.decline("a PRelu is not between convolutions of quantised maps and a quantiser around 0")
            else:
                _split(graph, node, found)


@dataclass(frozen=True)
class _Found:
    """What a PReLU reads, its slopes (float64, one per channel), and the grid its output is rounded to."""

    sources: list[Source]
    slopes: NDArray[np.float64]
    grid: Grid


def _find(graph: QuantisedGraph, node: ir.Node) -> _Found | None:
    """Return what the sum is made of; None where a PReLU cannot become one."""
    readers, slopes = graph.readers(node.outputs[0]), graph.editor.constant(node.inputs[1])
    if slopes is None or not graph.is_quantised(node) or len(readers) != 1 or readers[0].op_type != QUANTISE:
        return None
    scale, zero = readers[0].inputs[1:3]
    sources = _sources(graph, node.inputs[0])
    if scale is None or zero is None or graph.array(scale).size != 1 or graph.array(zero).item() != _MIDDLE:
        return None
    channels = sum(each.channels for each in sources)
    if slopes.size not in (1, channels) or not sources:
        return None
    per_channel = np.broadcast_to(slopes.astype(np.float64).reshape(-1), (channels,))
    return _Found(sources, per_channel, Grid(scale, zero))


def _sources(graph: QuantisedGraph, value: ir.Value | None) -> list[Source]:
    """Return what a value is computed from, one convolution per part; an empty list where it is something else."""
    whole = source_of(graph, value)
    if whole is not None:
        return [whole]
    node = graph.editor.producer(value, "Concat")
    if value is None or node is None or graph.editor.uses(value) != 1 or attribute_int(node, "axis", 0) != 1:
        return []
    found = [source_of(graph, part) for part in node.inputs]
    parts = [each for each in found if each is not None]
    return parts if len(parts) == len(found) else []


def _split(graph: QuantisedGraph, node: ir.Node, found: _Found) -> None:
    out, draft = node.outputs[0], graph.draft(node)
    step = graph.array(found.grid.scale).item()
    sums: list[ir.Value] = []
    start = 0
    for source in found.sources:
        value = _halves(draft, source, found.slopes[start : start + source.channels], step)
        sums.append(value if len(found.sources) == 1 else draft.round_to(value, found.grid, "part"))
        start += source.channels
    draft.commit({out: sums[0] if len(sums) == 1 else draft.like("Concat", sums, out, axis=1)}, before=node)


def _halves(draft: QuantisedDraft, source: Source, slopes: NDArray[np.float64], step: float) -> ir.Value:
    """Draft the convolutions, rounded to either side of 0, and their sum."""
    up, down = draft.graph.uint8_grid(step, 0), draft.graph.uint8_grid(step, _TOP)
    read = source.draft_input(draft)
    above = source.times(draft, read, "above", np.ones_like(slopes), up)
    if (slopes < 0).any():
        mirrored = source.times(draft, read, "mirrored", np.minimum(slopes, 0), up)
        both = draft.like("Add", [above, mirrored], source.value, hint="both")
        above = draft.round_to(both, up, "both_part")
    below = source.times(draft, read, "below", np.maximum(slopes, 0), down)
    return draft.like("Add", [above, below], source.value, hint="sum")
