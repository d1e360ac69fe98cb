"""Sampling a map where a flow field points, as semantic flow networks (SFNet, SFNet-Lite) align their levels.

ONNX has the operator (``GridSample``, opset 16), and every engine takes it. The base grid is a constant at a fixed
size. A 16-bit grid loses places below a pixel from 1024 columns on.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["flow_warp"]


def flow_warp(x: Tensor, flow: Tensor) -> Tensor:
    """Sample `x` bilinearly at every place of the flow's own grid, displaced by the flow; zeros outside.

    Args:
        x: Maps (N, C, h, w) of any size; corners are aligned with those of the flow.
        flow: Displacements (N, 2, H, W), x before y: 2 W stands for the whole width, 2 H for the whole height.

    Returns:
        (N, C, H, W).
    """
    h, w = flow.shape[-2], flow.shape[-1]
    columns = torch.linspace(-1.0, 1.0, w, dtype=flow.dtype, device=flow.device)
    rows = torch.linspace(-1.0, 1.0, h, dtype=flow.dtype, device=flow.device)
    grid_x = flow[:, 0] * (1.0 / w) + columns
    grid_y = flow[:, 1] * (1.0 / h) + rows[:, None]
    grid = torch.stack((grid_x, grid_y), dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
