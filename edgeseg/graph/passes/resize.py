"""What a `Resize` does to a map, and rewrites of resizes alone.

Identities used here, for a resize R whose weights sum to one at every output pixel:
    R(x) = x                          where no size changes
    R(x) = broadcast(x)               where x is 1x1
    R(a) + R(b) = R(a + b)            for equal source and target sizes; the same for Concat over channels
    R(x) * g = R(x * g), + likewise   for g with one number per channel
    N2(N1(x)) = N(x)                  for nearest enlargements by whole factors
    f(N(x)) = N(f(x))                 for nearest resizes and any f that works on single numbers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeseg.graph.editor import Draft, GraphEditor, attribute_int, attribute_string
from edgeseg.graph.passes._base import GraphPass

__all__ = ["ResizeRule", "SimplifyResizes", "draft_resize", "resize_rule"]

_TRANSFORMS = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
_UNARY = ("Relu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "LeakyRelu", "Elu", "Exp", "Abs", "Neg", "Softplus")
_BINARY = ("Add", "Mul", "Sub", "Div")


@dataclass(frozen=True)
class ResizeRule:
    """How a `Resize` of rank 4 samples.

    Attributes:
        mode: ``linear`` or ``nearest``.
        transform: coordinate_transformation_mode.
        rounding: nearest_mode.
        source: Height x width before.
        target: Height x width after.
        scales: Height and width scale where the node gives scales; None where it gives sizes.
    """

    mode: str
    transform: str
    rounding: str
    source: tuple[int, int]
    target: tuple[int, int]
    scales: tuple[float, float] | None

    @property
    def broadcasts(self) -> bool:
        """Whether every output pixel is the one input pixel."""
        return self.source == (1, 1)

    @property
    def enlarges(self) -> bool:
        """Whether the map has more pixels after than before."""
        return self.target[0] * self.target[1] > self.source[0] * self.source[1]

    @property
    def whole(self) -> bool:
        """Whether both sides grow by whole factors."""
        return all(after % before == 0 for before, after in zip(self.source, self.target, strict=True))

    @property
    def repeats(self) -> tuple[int, int] | None:
        """Whole factors by which a nearest resize repeats pixels; None for any other resize.

        With a whole factor k and the centre, corner and rounding rules allowed here, output i takes input i // k.
        """
        factors = tuple(after // before for before, after in zip(self.source, self.target, strict=True))
        if self.mode != "nearest" or not self.whole or self.scales not in (None, factors):
            return None
        floors = self.transform == "asymmetric" and self.rounding == "floor"
        centres = self.transform in ("half_pixel", "pytorch_half_pixel") and self.rounding.startswith("round_prefer")
        return (factors[0], factors[1]) if floors or centres else None


def resize_rule(editor: GraphEditor, node: ir.Node | None) -> ResizeRule | None:
    """Read the rule of a resize between fixed sizes whose weights sum to one; None for cubic or antialiased ones."""
    if node is None or node.op_type != "Resize" or not node.inputs:
        return None
    before, after = editor.shape(node.inputs[0]), editor.shape(node.outputs[0])
    if before is None or after is None or len(before) != 4 or before[:2] != after[:2]:
        return None
    mode = attribute_string(node, "mode", "nearest")
    transform = attribute_string(node, "coordinate_transformation_mode", "half_pixel")
    plain = not attribute_int(node, "antialias", 0) and not attribute_int(node, "exclude_outside", 0)
    stretch = (
        attribute_string(node, "keep_aspect_ratio_policy", "stretch") == "stretch" and "axes" not in node.attributes
    )
    if mode not in ("linear", "nearest") or transform not in _TRANSFORMS or not plain or not stretch:
        return None
    given, scales = node.inputs[2] if len(node.inputs) > 2 else None, None
    if given is not None and editor.shape(given) != (0,):
        found = editor.constant(given)
        if found is None or found.size != 4 or found[0] != 1.0 or found[1] != 1.0:
            return None
        scales = (float(found[2]), float(found[3]))
    rounding = attribute_string(node, "nearest_mode", "round_prefer_floor") if mode == "nearest" else ""
    return ResizeRule(mode, transform, rounding, (before[2], before[3]), (after[2], after[3]), scales)


def draft_resize(draft: Draft, rule: ResizeRule, source: ir.Value, channels: tuple[int, int]) -> ir.Value:
    """Draft a resize by the rule of a map with `channels` = (batch, channels)."""
    shape = (*channels, *rule.target)
    if rule.scales is None:
        inputs = [source, None, None, draft.constant(np.array(shape, np.int64), "sizes")]
    else:
        inputs = [source, None, draft.constant(np.array([1.0, 1.0, *rule.scales], np.float32), "scales")]
    return draft.op(
        "Resize",
        inputs,
        shape,
        mode=rule.mode,
        coordinate_transformation_mode=rule.transform,
        nearest_mode=rule.rounding or None,
    )


class SimplifyResizes(GraphPass):
    """Drop, merge and move resizes, and turn those of a single pixel into broadcasts.

    The module's text has the identities.

    Requires fixed sizes, and linear or nearest sampling without antialiasing; a rewrite happens where it costs less.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        rules = (_drop_identity, _broadcast, _merge_nearest, _drop_expand, _join, _lower)
        for _ in range(4):
            before = editor.changes
            for node in editor.nodes():
                if editor.holds(node):
                    any(rule(editor, node) for rule in rules)
            if editor.changes == before:
                return


def _drop_identity(editor: GraphEditor, node: ir.Node) -> bool:
    rule, source = resize_rule(editor, node), node.inputs[0] if node.inputs else None
    if rule is None or source is None or rule.source != rule.target or rule.scales not in (None, (1.0, 1.0)):
        return False
    editor.draft("resize").commit({node.outputs[0]: source})
    return True


def _broadcast(editor: GraphEditor, node: ir.Node) -> bool:
    """Broadcast instead of resizing a single pixel, or one that was broadcast before."""
    rule, shape = resize_rule(editor, node), editor.shape(node.outputs[0])
    expand = editor.producer(node.inputs[0], "Expand") if rule is not None else None
    source = node.inputs[0] if expand is None else expand.inputs[0]
    pixel = editor.shape(source)
    if rule is None or source is None or shape is None or pixel != (*shape[:2], 1, 1) or rule.target == (1, 1):
        return False
    draft = editor.draft("broadcast")
    out = draft.op("Expand", [source, draft.constant(np.array(shape, np.int64), "shape")], shape)
    draft.commit({node.outputs[0]: out})
    return True


def _drop_expand(editor: GraphEditor, node: ir.Node) -> bool:
    """Drop an Expand whose every reader broadcasts by itself."""
    if node.op_type != "Expand" or node.outputs[0].is_graph_output() or node.inputs[0] is None:
        return False
    readers = editor.consumers(node.outputs[0])
    if not readers or not all(_broadcasts(editor, reader, node.outputs[0]) for reader in readers):
        return False
    editor.draft("broadcast").commit({node.outputs[0]: node.inputs[0]})
    return True


def _broadcasts(editor: GraphEditor, reader: ir.Node, value: ir.Value) -> bool:
    """Tell whether the reader's other input alone gives its output the shape it has."""
    if reader.op_type not in _BINARY:
        return False
    others = [given for given in reader.inputs if given is not value]
    return len(others) == 1 and editor.shape(others[0]) == editor.shape(reader.outputs[0]) is not None


def _merge_nearest(editor: GraphEditor, node: ir.Node) -> bool:
    outer = resize_rule(editor, node)
    first = editor.producer(node.inputs[0], "Resize") if outer is not None else None
    inner = resize_rule(editor, first)
    if outer is None or inner is None or first is None or outer.repeats is None or inner.repeats is None:
        return False
    source, shape = first.inputs[0], editor.shape(node.outputs[0])
    if source is None or shape is None:
        return False
    draft = editor.draft("resize")
    rule = ResizeRule("nearest", "asymmetric", "floor", inner.source, outer.target, None)
    return _commit_if_cheaper(draft, node, draft_resize(draft, rule, source, (shape[0], shape[1])))


def _join(editor: GraphEditor, node: ir.Node) -> bool:
    """Resize once, after an Add or Concat of maps that are resized by one rule."""
    concat = node.op_type == "Concat" and attribute_int(node, "axis", 0) in (1, -3)
    if not (concat or (node.op_type in ("Add", "Sub") and len(node.inputs) == 2)):
        return False
    resizes = [editor.producer(value, "Resize") for value in node.inputs]
    rules = [resize_rule(editor, resize) for resize in resizes]
    if len(rules) < 2 or rules[0] is None or any(rule != rules[0] for rule in rules):
        return False
    sources = [resize.inputs[0] for resize in resizes if resize is not None]
    shape = editor.shape(node.outputs[0])
    if shape is None or (not concat and any(editor.shape(s) != editor.shape(sources[0]) for s in sources)):
        return False
    draft = editor.draft("joined")
    inner = draft.op(node.op_type, sources, (*shape[:2], *rules[0].source), axis=1 if concat else None)
    return _commit_if_cheaper(draft, node, draft_resize(draft, rules[0], inner, (shape[0], shape[1])))


def _lower(editor: GraphEditor, node: ir.Node) -> bool:
    """Do what works on single numbers before an enlargement, not after it."""
    index = _resized_input(editor, node)
    resize = None if index is None else editor.producer(node.inputs[index], "Resize")
    rule, shape = resize_rule(editor, resize), editor.shape(node.outputs[0])
    if index is None or resize is None or rule is None or shape is None or not rule.enlarges:
        return False
    if node.op_type in _UNARY and rule.mode != "nearest":
        return False
    if node.op_type in _BINARY and editor.shape(node.outputs[0]) != editor.shape(resize.outputs[0]):
        return False
    draft = editor.draft("lowered")
    inputs: list[ir.Value | None] = list(node.inputs)
    inputs[index] = resize.inputs[0]
    inner = draft.op(node.op_type, inputs, (*shape[:2], *rule.source), copied=node.attributes)
    return _commit_if_cheaper(draft, node, draft_resize(draft, rule, inner, (shape[0], shape[1])))


def _resized_input(editor: GraphEditor, node: ir.Node) -> int | None:
    """Find the index of the input that is resized, where the others hold one number per channel."""
    if node.op_type in _UNARY:
        return 0 if len(node.inputs) == 1 else None
    if node.op_type not in _BINARY or len(node.inputs) != 2:
        return None
    for index in (0, 1):
        other = editor.shape(node.inputs[1 - index])
        if other is None or not _one_per_channel(other) or editor.producer(node.inputs[index], "Resize") is None:
            continue
        return index if index == 0 or node.op_type in ("Add", "Mul", "Sub") else None
    return None


def _one_per_channel(shape: Sequence[int]) -> bool:
    return len(shape) <= 4 and all(side == 1 for side in shape[-2:])


def _commit_if_cheaper(draft: Draft, node: ir.Node, out: ir.Value) -> bool:
    if not draft.pays([node.outputs[0]]):
        draft.discard()
        return False
    draft.commit({node.outputs[0]: out})
    return True
