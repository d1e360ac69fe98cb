"""Normalisations besides plain BN: of a pixel's channel vector to length one, and BN with a positive scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AbsBatchNorm", "L2Norm"]


class AbsBatchNorm(nn.BatchNorm2d):
    """BN whose scale is abs(weight) + eps: what the in-place activated BN of the published CUDA kernel computes.

    Bulo et al., "In-Place Activated BatchNorm for Memory-Optimized Training of DNNs", CVPR 2018, arXiv 1712.02616. Its
    activation is left to the caller.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.plain = False  # whether the weight holds the scale itself, as it does after `fuse`

    def forward(self, input: Tensor) -> Tensor:
        """Normalise maps (N, C, H, W)."""
        scale = self.weight if self.plain else self.weight.abs() + self.eps
        momentum = 0.0 if self.momentum is None else self.momentum
        mean, variance = self.running_mean, self.running_var
        return F.batch_norm(input, mean, variance, scale, self.bias, self.training, momentum, self.eps)

    def fuse(self) -> None:
        """Become an ordinary BN, so that the convolution before can take it up."""
        if not self.plain:
            with torch.no_grad():
                self.weight.copy_(self.weight.abs() + self.eps)
            self.plain = True


class L2Norm(nn.Module):
    """x / sqrt(sum of x^2 over the channels + eps), times ``scale`` per channel.

    Liu et al., "ParseNet: Looking Wider to See Better", ICLR 2016 workshop, arXiv 1506.04579.
    The sum is taken of x / 64, which is exact and keeps it inside the range of fp16.

    Args:
        channels: Of the map.
        initial: Value that ``scale`` starts from.
        eps: Added to the sum of squares.
    """

    scale: nn.Parameter | None

    def __init__(self, channels: int, *, initial: float = 10.0, eps: float = 1e-10) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), initial))
        self.eps = eps / 64.0**2

    def forward(self, x: Tensor) -> Tensor:
        """Normalise maps (N, C, H, W)."""
        small = x * (1.0 / 64.0)
        y = small / torch.sqrt((small * small).sum(dim=1, keepdim=True) + self.eps)
        return y if self.scale is None else y * self.scale[:, None, None]

    def fold_scale_into(self, conv: nn.Conv2d) -> None:
        """Move the scale into the weights of a convolution that directly follows; harmless where already moved."""
        if self.scale is not None:
            with torch.no_grad():
                conv.weight.mul_(self.scale[None, :, None, None])
            self.scale = None
