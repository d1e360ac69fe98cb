"""Shared blocks against what they stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from edgeseg.models.families.sinet import blocking_gate
from edgeseg.models.layers.esp import hierarchical_sums
from edgeseg.models.layers.folding import linear_to_conv, split_bn
from edgeseg.models.layers.pooling import adaptive_avg_pool, averaging_rows
from edgeseg.models.layers.residual import BasicBlock, Bottleneck, residual_layer

sides = st.integers(1, 20)


@settings(max_examples=60, deadline=None)
@given(h=sides, w=sides, oh=st.integers(1, 8), ow=st.integers(1, 8))
def test_adaptive_pooling_is_that_of_torch(h: int, w: int, oh: int, ow: int) -> None:
    x = torch.randn(2, 3, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(h * 31 + w))
    torch.testing.assert_close(adaptive_avg_pool(x, (oh, ow)), F.adaptive_avg_pool2d(x, (oh, ow)), rtol=0, atol=1e-14)


@given(length=sides, bins=sides)
def test_averaging_rows_sum_to_one(length: int, bins: int) -> None:
    rows = averaging_rows(length, bins)
    assert len(rows) == bins
    assert all(len(row) == length and abs(sum(row) - 1.0) < 1e-12 for row in rows)


def test_hierarchical_sums_start_at_the_second_branch() -> None:
    class Times(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.factor

    out = hierarchical_sums(torch.ones(1, 1, 1, 1), [Times(k) for k in (1.0, 10.0, 100.0, 1000.0)])
    assert out.flatten().tolist() == [1.0, 10.0, 110.0, 1110.0]


def test_split_bn_equals_the_whole() -> None:
    bn = nn.BatchNorm2d(5, eps=1e-3).double().eval()
    for tensor in (bn.weight.data, bn.bias.data, bn.running_mean, bn.running_var):
        assert tensor is not None
        tensor.uniform_(0.5, 2.0)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    parts = [part(piece) for part, piece in zip(split_bn(bn, (2, 3)), torch.split(x, [2, 3], dim=1), strict=True)]
    torch.testing.assert_close(torch.cat(parts, dim=1), bn(x), rtol=0, atol=1e-14)


def test_linear_as_convolution() -> None:
    linear = nn.Linear(6, 4).double()
    x = torch.randn(2, 6, dtype=torch.float64)
    torch.testing.assert_close(linear_to_conv(linear)(x[:, :, None, None])[:, :, 0, 0], linear(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("classes", [2, 3, 19])
def test_blocking_gate_is_one_minus_the_largest_probability(classes: int) -> None:
    logits = torch.randn(1, classes, 5, 6, dtype=torch.float64) * 4
    wanted = 1.0 - logits.softmax(dim=1).max(dim=1, keepdim=True).values
    torch.testing.assert_close(blocking_gate(logits), wanted, rtol=0, atol=1e-14)


def test_last_relu_of_residual_layers() -> None:
    assert [block.relu for block in residual_layer(BasicBlock, 4, 4, 3)] == [True, True, False]
    assert [block.relu for block in residual_layer(BasicBlock, 4, 4, 1)] == [True]
    assert [block.relu for block in residual_layer(Bottleneck, 4, 4, 2)] == [False, False]
