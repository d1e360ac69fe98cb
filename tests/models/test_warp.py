"""The flow warp against sampling written out pixel by pixel."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgeseg.models.layers.warp import flow_warp

sides = st.integers(1, 7)


def _sample(x: Tensor, row: float, column: float) -> Tensor:
    """Bilinear sample of a map (C, h, w), zero outside."""
    total = torch.zeros_like(x[:, 0, 0])
    top, left = int(torch.tensor(row).floor()), int(torch.tensor(column).floor())
    for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
            total = total + x[:, i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return total


@settings(max_examples=25, deadline=None)
@given(h=st.integers(2, 6), w=st.integers(2, 6), rows=st.integers(2, 6), columns=st.integers(2, 6))
def test_samples_where_the_flow_points(h: int, w: int, rows: int, columns: int) -> None:
    source = torch.Generator().manual_seed(h + 10 * w + 100 * rows + 1000 * columns)
    x = torch.randn(1, 2, h, w, dtype=torch.float64, generator=source)
    flow = torch.randn(1, 2, rows, columns, dtype=torch.float64, generator=source)
    got = flow_warp(x, flow)
    for i in range(rows):
        for j in range(columns):
            column = j * (w - 1) / (columns - 1) + float(flow[0, 0, i, j]) * (w - 1) / (2 * columns)
            row = i * (h - 1) / (rows - 1) + float(flow[0, 1, i, j]) * (h - 1) / (2 * rows)
            torch.testing.assert_close(got[0, :, i, j], _sample(x[0], row, column), rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(h=sides, w=sides)
def test_no_flow_is_the_identity(h: int, w: int) -> None:
    x = torch.randn(1, 3, h + 1, w + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(h * 9 + w))
    flow = torch.zeros(1, 2, h + 1, w + 1, dtype=torch.float64)
    torch.testing.assert_close(flow_warp(x, flow), x, rtol=0, atol=1e-12)
