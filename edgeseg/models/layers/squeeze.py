"""Channel weights from the global average (Squeeze-and-Excitation, Hu et al., CVPR 2018, arXiv 1709.01507)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.layers.folding import linear_to_conv

__all__ = ["LinearExcite", "LinearGate", "LinearSqueeze", "SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """Multiply each channel by gate(1x1(ReLU(1x1(global average)))), the 1x1s with bias.

    Args:
        channels: Of the map.
        inner: Channels between the two 1x1s.
        gate: Maps a weight to 0..1; the default is the hard sigmoid clip(x / 6 + 1/2, 0, 1).
        names: Attribute names of the two 1x1s, as in the published state dict.
        nested: Each 1x1 is ``conv`` inside a module of that name.
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        *,
        gate: Callable[[Tensor], Tensor] = F.hardsigmoid,
        names: tuple[str, str] = ("conv_reduce", "conv_expand"),
        nested: bool = False,
    ) -> None:
        super().__init__()
        self.gate, self.names = gate, names
        for name, conv in zip(names, (nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)), strict=True):
            self.add_module(name, nn.Sequential(OrderedDict(conv=conv)) if nested else conv)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh maps (N, C, H, W)."""
        reduce, expand = (self.get_submodule(name) for name in self.names)
        return x * self.gate(expand(torch.relu(reduce(x.mean((2, 3), keepdim=True)))))


class LinearGate(nn.Module):
    """Multiply each channel by what a row of Linears makes of the global averages.

    Args:
        key: Name of the row.
        layers: Linears and activations.
    """

    def __init__(self, key: str, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.key = key
        self.add_module(key, nn.Sequential(*layers))
        self.convolutional = False

    def forward(self, x: Tensor) -> Tensor:
        """Weigh maps (N, C, H, W)."""
        averages = x.mean((2, 3), keepdim=self.convolutional)
        weights: Tensor = self.get_submodule(self.key)(averages)
        return x * (weights if self.convolutional else weights[:, :, None, None])

    def fuse(self) -> None:
        """Turn the Linears into 1x1 convolutions, so that the graph has no reshapes."""
        layers = self.get_submodule(self.key).children()
        row = nn.Sequential(*(linear_to_conv(x) if isinstance(x, nn.Linear) else x for x in layers))
        setattr(self, self.key, row)
        self.convolutional = True


class LinearSqueeze(LinearGate):
    """Channel weights PReLU(Linear(...)) under the key ``dense``, as SINet has them. There is no sigmoid.

    Args:
        channels: Of the map.
        divide: 1 for one Linear; more for two with `channels` // divide in between.
    """

    def __init__(self, channels: int, *, divide: int = 1) -> None:
        hidden = channels // divide
        widths = [channels, channels] if divide == 1 else [channels, hidden, channels]
        layers: list[nn.Module] = []
        for in_channels, out_channels in pairwise(widths):
            layers += [nn.Linear(in_channels, out_channels), nn.PReLU(out_channels)]
        super().__init__("dense", layers)


class LinearExcite(LinearGate):
    """Channel weights sigmoid(Linear(ReLU(Linear(...)))) under the key ``fc``.

    Args:
        channels: Of the map.
        reduction: Divides the width between the Linears.
    """

    def __init__(self, channels: int, *, reduction: int) -> None:
        inner = channels // reduction
        super().__init__("fc", (nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), nn.Sigmoid()))
