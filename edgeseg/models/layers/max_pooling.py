"""Adaptive max pooling at a fixed size, written so that exporters see constants and runtimes have the operators.

Bin i of o over n rows covers rows floor(i * n / o) up to, not including, ceil((i + 1) * n / o), as in `pooling`. Where
o divides n that is plain max pooling; elsewhere the rows of every bin are gathered, short bins repeat their last row,
and a plain pool takes the maximum of each; then the columns likewise. Both are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AdaptiveMaxPool", "adaptive_max_pool"]


def _rows_of_bins(length: int, bins: int) -> tuple[list[int], int]:
    """Return the rows of every bin, one bin after the other, all of one width; and that width."""
    spans = [(i * length // bins, -((i + 1) * length // -bins)) for i in range(bins)]
    width = max(end - start for start, end in spans)
    return [min(start + j, end - 1) for start, end in spans for j in range(width)], width


def _pool_axis(x: Tensor, dim: int, bins: int) -> Tensor:
    """Compute maxima over `bins` bins of axis 2 or 3."""
    rows, width = _rows_of_bins(int(x.shape[dim]), bins)
    gathered = x.index_select(dim, torch.tensor(rows, device=x.device))
    kernel = (width, 1) if dim == 2 else (1, width)
    return F.max_pool2d(gathered, kernel, kernel)


def adaptive_max_pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute maxima of maps (N, C, h, w) over `size` = (H, W) bins, as ``torch.nn.functional.adaptive_max_pool2d``."""
    h, w = int(x.shape[-2]), int(x.shape[-1])
    if h % size[0] == 0 and w % size[1] == 0:
        kernel = (h // size[0], w // size[1])
        return F.max_pool2d(x, kernel, kernel)
    return _pool_axis(_pool_axis(x, 2, size[0]), 3, size[1])


class AdaptiveMaxPool(nn.Module):
    """Maxima over a square of `bins` x `bins`; see `adaptive_max_pool`."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.size = (bins, bins)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, C, h, w) into (N, C, bins, bins)."""
        return adaptive_max_pool(x, self.size)
