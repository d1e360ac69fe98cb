"""Counting: parameters, and multiply-accumulates at a size, without running any arithmetic."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeseg.models.copying import copy_module
from edgeseg.specs import Size

__all__ = ["count_macs", "count_parameters"]


def count_parameters(network: nn.Module) -> int:
    """Count the trainable values, shared ones once.

    Example:
        >>> count_parameters(nn.Conv2d(3, 8, 3))
        224
    """
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, size: Size, channels: int = 3) -> int:
    """Count the multiply-accumulates of convolutions and matrix products.

    Args:
        network: Takes images (N, channels, H, W); nothing is computed, and the network stays as it is.
        size: Height x width of the one image.
        channels: Of the image.

    Example:
        >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), (64, 128))
        1769472
    """
    ghost = copy_module(network).to("meta").eval().requires_grad_(False)  # the counter hooks what has a gradient
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(False), torch.no_grad(), counter:
        ghost(torch.empty(1, channels, *size, device="meta"))
    return int(counter.get_total_flops()) // 2
