"""``unfold`` and ``fold`` as convolutions with one-hot kernels: exact, and known to every runtime.

ONNX has Col2Im for the second, which TensorRT refuses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["fold_windows", "unfold_windows"]


def _one_hot(channels: int, kernel: int, like: Tensor) -> Tensor:
    """Compute weights (channels * kernel^2, 1, kernel, kernel): one place of the window each."""
    places = kernel * kernel
    one = torch.eye(places, dtype=like.dtype, device=like.device).reshape(places, 1, kernel, kernel)
    return one.repeat(channels, 1, 1, 1)


def unfold_windows(x: Tensor, kernel: int) -> Tensor:
    """Compute the window around every pixel.

    Args:
        x: Maps (N, C, H, W); outside them are zeros.
        kernel: Odd side of the window.

    Returns:
        (N, C * kernel^2, H, W); channel c * kernel^2 + i * kernel + j is place (i, j) of channel c's window.
    """
    return F.conv2d(x, _one_hot(x.shape[1], kernel, x), padding=kernel // 2, groups=x.shape[1])


def fold_windows(windows: Tensor, kernel: int) -> Tensor:
    """Compute the transpose of `unfold_windows`: windows (N, C * kernel^2, H, W) are summed where they overlap."""
    channels = windows.shape[1] // (kernel * kernel)
    return F.conv_transpose2d(windows, _one_hot(channels, kernel, windows), padding=kernel // 2, groups=channels)
