"""Networks of any number of channels, and modules that want their picture in another form: small and seeded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Classes", "four", "grey", "thirteen"]


class Classes(nn.Module):
    """A convolution of stride 2, batch norm, ReLU, convolution: four classes whose labels vary over a picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(channels)
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 4, 1)
        for tensor in self.parameters():
            tensor.data.normal_(generator=generator)
        self.head.bias = nn.Parameter(torch.zeros(4))
        self.eval()

    def forward(self, image: Tensor) -> Any:
        return self.head(self.stem(image - 0.5))


def grey() -> nn.Module:
    """``tests.export.channel_networks:grey``."""
    return Classes(1)


def four() -> nn.Module:
    """``tests.export.channel_networks:four``."""
    return Classes(4)


def thirteen() -> nn.Module:
    """``tests.export.channel_networks:thirteen``."""
    return Classes(13)
