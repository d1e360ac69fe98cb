"""Counting: parameters, and multiply-accumulates at a size, without running any arithmetic."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeseg.specs import Size

__all__ = ["count_macs", "count_parameters"]


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values, shared ones once."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, size: Size) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image of `size` (height x width)."""
    ghost = copy.deepcopy(network).to("meta").eval().requires_grad_(False)  # the counter hooks what has a gradient
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(False), torch.no_grad(), counter:
        ghost(torch.empty(1, 3, *size, device="meta"))
    return int(counter.get_total_flops()) // 2
