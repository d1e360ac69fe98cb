"""Operators that pnnx or ncnn lacks, written with those that they have, to the same numbers.

These are no passes on the ONNX graph: ncnn's graph is made of the program that torch.export gives, one aten operator a
node. None of them rounds. Like the whole graph they are proven by its labels and logits against PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["write_for_ncnn"]

_aten = torch.ops.aten

_STEP = 1e30
"""Times a difference, it is at least 1: of numbers that differ by less than 1e-30 none is the larger."""


def write_for_ncnn(program: fx.GraphModule) -> tuple[str, ...]:
    """Rewrite a program in place.

    Args:
        program: What ``torch.export.export(...).module()`` gives.

    Returns:
        Name of each operator that was replaced, once.
    """
    replaced = []
    for node in list(program.graph.nodes):
        rewrite = _REWRITES.get(node.target)
        if rewrite is None:
            continue
        with program.graph.inserting_before(node):
            made = rewrite(program.graph, node)
        if made is not None:
            node.replace_all_uses_with(made)
            program.graph.erase_node(node)
            replaced.append(str(node.target))
    program.graph.eliminate_dead_code()
    program.recompile()
    return tuple(dict.fromkeys(replaced))


def _shape(value: Any) -> tuple[int, ...]:
    """Shape of what a node gives; empty where it is not known."""
    found = value.meta.get("val") if isinstance(value, fx.Node) else None
    return tuple(int(size) for size in found.shape) if isinstance(found, Tensor) else ()


def _call(graph: fx.Graph, operator: Any, *arguments: Any) -> fx.Node:
    node = graph.call_function(operator, arguments)
    values = [value.meta.get("val") if isinstance(value, fx.Node) else value for value in arguments]
    if not any(value is None for value in values):
        node.meta["val"] = operator(*values)
    return node


def _slice(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Take every n-th row or column by a max pooling of windows of one pixel: ncnn's Crop has no steps."""
    given: tuple[Any, ...] = node.args
    defaults: tuple[Any, ...] = (None, 0, None, None, 1)
    source, axis, start, end, step = given + defaults[len(given) :]
    shape = _shape(source)
    if step == 1 or len(shape) != 4 or axis % 4 < 2:
        return None
    axis = axis % 4
    begin, stop, _ = slice(start, end).indices(shape[axis])
    whole = (begin, stop) == (0, shape[axis])
    cut = source if whole else _call(graph, _aten.slice.Tensor, source, axis, begin, stop)
    return _call(graph, _aten.max_pool2d.default, cut, [1, 1], [step, 1] if axis == 2 else [1, step])


def _narrow(graph: fx.Graph, node: fx.Node) -> fx.Node:
    given: tuple[Any, ...] = node.args
    source, axis, start, length = given
    return _call(graph, _aten.slice.Tensor, source, axis, start, start + length)


def _cast(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """1.0 where a comparison holds and 0.0 where not, in arithmetic: ncnn has neither comparisons nor casts."""
    asked = node.args[0]
    if not isinstance(asked, fx.Node) or asked.target is not _aten.ge.Tensor or node.args[1] is not torch.float32:
        return None
    difference = _call(graph, _aten.sub.Tensor, asked.args[0], asked.args[1])
    scaled = _call(graph, _aten.mul.Tensor, difference, _STEP)
    return _call(graph, _aten.clamp.default, _call(graph, _aten.add.Tensor, scaled, 1.0), 0.0, 1.0)


def _clamp_min(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return _call(graph, _aten.clamp.default, *node.args)


def _alias(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    source = node.args[0]
    return source if isinstance(source, fx.Node) else None


def _neg(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Keep pnnx from making softmin, which ncnn lacks, of a softmax of negated values."""
    if not any(user.target is _aten.softmax.int for user in node.users):
        return None
    return _call(graph, _aten.mul.Tensor, node.args[0], -1.0)


def _expand(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Repeat a tensor as often as it is expanded: ncnn has no views."""
    before, after = _shape(node.args[0]), _shape(node)
    if not before or len(before) != len(after):
        return None
    if before == after:
        return _alias(graph, node)
    counts = [1 if old == new else new for old, new in zip(before, after, strict=True)]
    return _call(graph, _aten.repeat.default, node.args[0], counts)


def _matmul(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Multiply maps by a matrix of one row from the right, transposed: pnnx takes the one row for a batch of one."""
    left, right = node.args
    if len(_shape(left)) != 2 or _shape(left)[0] != 1 or len(_shape(right)) != 4:
        return None
    turned = _call(graph, _aten.transpose.int, right, 2, 3)
    product = _call(graph, _aten.matmul.default, turned, _call(graph, _aten.t.default, left))
    return _call(graph, _aten.transpose.int, product, 2, 3)


_REWRITES: dict[Any, Callable[[fx.Graph, fx.Node], fx.Node | None]] = {
    _aten.slice.Tensor: _slice,
    _aten.narrow.default: _narrow,
    _aten.to.dtype: _cast,
    _aten.clamp_min.default: _clamp_min,
    _aten.alias.default: _alias,
    _aten.neg.default: _neg,
    _aten.expand_as.default: _expand,
    _aten.matmul.default: _matmul,
}
"""Operator -> what replaces a node of it; None leaves it as it is."""
