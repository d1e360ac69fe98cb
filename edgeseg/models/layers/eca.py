"""Efficient channel attention (ECA-Net, Wang et al., CVPR 2020, arXiv 1910.03151)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["EfficientChannelAttention"]


class EfficientChannelAttention(nn.Module):
    """Multiply each channel by the sigmoid of a weighted sum of its own and its neighbours' global averages.

    Args:
        channels: Of the map.
        kernel: Odd number of channels in the sum; key ``conv``, no bias.
    """

    def __init__(self, channels: int, *, kernel: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.conv: nn.Module = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh maps (N, channels, H, W)."""
        means = x.mean((2, 3), keepdim=True)
        if isinstance(self.conv, nn.Conv1d):
            weights = self.conv(means.flatten(1).unsqueeze(1)).transpose(1, 2).unsqueeze(3)
        else:
            weights = self.conv(means)
        return x * torch.sigmoid(weights)

    def fuse(self) -> None:
        """Make the sum over neighbours a 1x1 convolution with a banded matrix, so that the graph has no reshapes."""
        if not isinstance(self.conv, nn.Conv1d):
            return
        kernel = self.conv.weight.detach().flatten()
        half = len(kernel) // 2
        banded = torch.zeros(self.channels, self.channels).to(kernel)
        for k, value in enumerate(kernel):
            ones = torch.ones(self.channels - abs(k - half)).to(kernel)
            banded += value * torch.diag(ones, k - half)
        self.conv = nn.Conv2d(self.channels, self.channels, 1, bias=False).to(kernel)
        self.conv.load_state_dict({"weight": banded[:, :, None, None]})
