"""Channel weights from the global average (Squeeze-and-Excitation, Hu et al., CVPR 2018) as SINet uses them."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from edgeseg.models.layers.folding import linear_to_conv

__all__ = ["LinearSqueeze"]


class LinearSqueeze(nn.Module):
    """Multiply each channel by PReLU(Linear(...)) of the global averages. There is no sigmoid.

    Args:
        channels: Of the map.
        divide: 1 for one Linear; more for two with `channels` // divide in between.
    """

    def __init__(self, channels: int, *, divide: int = 1) -> None:
        super().__init__()
        hidden = channels // divide
        widths = [channels, channels] if divide == 1 else [channels, hidden, channels]
        layers: list[nn.Module] = []
        for cin, cout in pairwise(widths):
            layers += [nn.Linear(cin, cout), nn.PReLU(cout)]
        self.dense = nn.Sequential(*layers)
        self.convolutional = False

    def forward(self, x: Tensor) -> Tensor:
        """Weigh maps (N, C, H, W)."""
        averages = x.mean((2, 3), keepdim=self.convolutional)
        weights: Tensor = self.dense(averages)
        return x * (weights if self.convolutional else weights[:, :, None, None])

    def fuse(self) -> None:
        """Turn the Linears into 1x1 convolutions, so that the graph has no reshapes."""
        self.dense = nn.Sequential(*(linear_to_conv(x) if isinstance(x, nn.Linear) else x for x in self.dense))
        self.convolutional = True
