"""Adaptive average pooling at a fixed size, written so that exporters see constants and runtimes have the operators.

Bin i of o over n rows covers rows floor(i * n / o) up to, not including, ceil((i + 1) * n / o). Where o divides n that
is plain average pooling; two bins for every three rows are pairs of neighbours; elsewhere it is two products with
constant averaging matrices, A_h X A_w^T. All are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["GlobalAvgPool", "adaptive_avg_pool", "averaging_rows"]


def averaging_rows(length: int, bins: int) -> list[list[float]]:
    """Return the averaging matrix of one axis.

    Args:
        length: Rows of the map.
        bins: Rows of the result; may exceed `length`.

    Returns:
        `bins` rows of `length` weights, each row summing to one.
    """
    rows = []
    for i in range(bins):
        start, end = i * length // bins, -((i + 1) * length // -bins)
        rows.append([1.0 / (end - start) if start <= j < end else 0.0 for j in range(length)])
    return rows


def adaptive_avg_pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Average maps (N, C, h, w) over `size` = (H, W) bins, as ``torch.nn.functional.adaptive_avg_pool2d`` does."""
    h, w = int(x.shape[-2]), int(x.shape[-1])
    if size == (1, 1):
        return x.mean((2, 3), keepdim=True)
    if h % size[0] == 0 and w % size[1] == 0:
        kernel = (h // size[0], w // size[1])
        return F.avg_pool2d(x, kernel, kernel)
    if 3 * size[0] == 2 * h and 3 * size[1] == 2 * w:
        return _pairs_of_three(x)
    across = torch.tensor(averaging_rows(w, size[1]), dtype=x.dtype, device=x.device)
    down = torch.tensor(averaging_rows(h, size[0]), dtype=x.dtype, device=x.device)
    return down @ (x @ across.t())


def _pairs_of_three(x: Tensor) -> Tensor:
    """Average rows 0 and 1, then 1 and 2 of every three, and columns likewise: (N, C, 3 h, 3 w) to (N, C, 2 h, 2 w)."""
    n, c, h, w = x.shape
    pairs = F.pad(F.avg_pool2d(x, 2, 1), (0, 1, 0, 1))
    kept = pairs.reshape(n, c, h // 3, 3, w)[:, :, :, :2].reshape(n, c, h // 3 * 2, w // 3, 3)[..., :2]
    return kept.reshape(n, c, h // 3 * 2, w // 3 * 2)


class GlobalAvgPool(nn.Module):
    """Average over the whole map."""

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, C, h, w) into (N, C, 1, 1)."""
        return x.mean((2, 3), keepdim=True)
