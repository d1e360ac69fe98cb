"""Operators that ncnn lacks, written with others: the same numbers, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgeseg.models.layers.unpool import max_pool_places, max_unpool
from edgeseg.runtimes.ncnn.passes import write_for_ncnn

Forward = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """A function as a module."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def program_of(forward: Forward, x: Tensor) -> fx.GraphModule:
    return torch.export.export(Network(forward), (x,)).module()


def operators(program: fx.GraphModule) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


def unpooled(x: Tensor) -> Tensor:
    pooled, masks = max_pool_places(x)
    return max_unpool(pooled, masks, (x.shape[2], x.shape[3]))


CASES: dict[str, tuple[Forward, str]] = {
    "rows": (lambda x: x[:, :, 1::2], "aten.slice.Tensor"),
    "columns": (lambda x: x[..., 0:-1:3], "aten.slice.Tensor"),
    "narrow": (lambda x: x.narrow(2, 1, 3), "aten.narrow.default"),
    "unpooling": (unpooled, "aten.to.dtype"),
    "normalise": (lambda x: F.normalize(x, dim=1), "aten.clamp_min.default"),
    "alias": (lambda x: torch.ops.aten.alias.default(x) + 1, "aten.alias.default"),
    "softmin": (lambda x: (-x).softmax(1), "aten.neg.default"),
    "a row": (lambda x: torch.arange(8.0)[None] @ x, "aten.matmul.default"),
    "expand": (lambda x: torch.cat((x, x.mean((2, 3), keepdim=True).expand_as(x)), 1), "aten.expand_as.default"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_numbers_without_the_operator(name: str) -> None:
    forward, operator = CASES[name]
    x = torch.randn(1, 5, 8, 10, generator=torch.Generator().manual_seed(0))
    program = program_of(forward, x)
    before = {node for node in program.graph.nodes if str(node.target) == operator}
    assert operator in write_for_ncnn(program)
    assert not before & set(program.graph.nodes)
    rounding = 1e-5 if name == "a row" else 0.0  # the same products, summed in another order
    torch.testing.assert_close(program(x), forward(x), rtol=0, atol=rounding)


@given(st.integers(0, 2**31), st.sampled_from((0.0, 1e-7, 1.0)))
@settings(max_examples=20, deadline=None)
def test_ties_fall_as_they_did(seed: int, grain: float) -> None:
    """Maps whose windows are equal, or but for rounding, unpool to the same places."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, (1, 2, 4, 6), generator=generator) + grain * torch.randn(1, 2, 4, 6, generator=generator)
    program = program_of(unpooled, x)
    write_for_ncnn(program)
    torch.testing.assert_close(program(x), unpooled(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x[:, :, 1:7],
        lambda x: x[:, ::2],
        lambda x: -x + 1,
        lambda x: torch.ones(2, 8) @ x,
        lambda x: (x > 0).to(torch.float32),
        lambda x: (x >= x.mean()).to(torch.float64),
    ],
)
def test_what_ncnn_has_or_what_is_not_known_stays(forward: Forward) -> None:
    x = torch.randn(1, 6, 8, 10)
    program = program_of(forward, x)
    before = operators(program)
    assert write_for_ncnn(program) == ()
    assert operators(program) == before
