"""The network as it is deployed: uint8 NHWC in, RGB or other channels, normalisation inside, logits out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.errors import ExportError
from edgeseg.models.grey import grey_of
from edgeseg.models.outputs import logits_at
from edgeseg.specs import GREY, InputSpec

__all__ = ["DeployNetwork", "check_normalisation"]


class DeployNetwork(nn.Module):
    """Wrap a network so that its input is a picture.

    The cast comes first and the transpose second: TensorRT takes uint8 only into a cast.

    Args:
        network: Takes normalised float images (N, C, H, W), returns logits (N, classes, h, w) or a structure that holds
            them.
        spec: How pixels become its input, and how many channels it has.
        take: Path of the logits in what it returns; empty where that is the logits alone.

    Shape:
        image uint8 (N, H, W, `InputSpec.image_channels`) -> logits float32 (N, classes, h, w).
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, spec: InputSpec, take: str = "") -> None:
        super().__init__()
        self.network, self.take = network, take
        self.image_channels = spec.image_channels
        self.swap, self.grey = spec.channel_order == "bgr", spec.channels == 1
        std = torch.tensor(spec.std, dtype=torch.float64)
        factor = spec.scale / std
        offset = -torch.tensor(spec.mean, dtype=torch.float64) * factor
        self.register_buffer("factor", factor.float().view(1, -1, 1, 1))
        self.register_buffer("offset", offset.float().view(1, -1, 1, 1))

    def normalise(self, image: Tensor) -> Tensor:
        """uint8 (N, H, W, `InputSpec.image_channels`) -> float32 (N, C, H, W) as the network was trained on."""
        x = image.to(torch.float32).permute(0, 3, 1, 2)
        if self.swap:
            red, green, blue = torch.split(x, 1, dim=1)
            x = torch.cat((blue, green, red), dim=1)
        if self.grey:
            x = grey_of(x)
        return x * self.factor + self.offset

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (N, H, W, `InputSpec.image_channels`) -> float32 logits (N, classes, h, w)."""
        return logits_at(self.network(self.normalise(image)), self.take)


def check_normalisation(spec: InputSpec) -> None:
    """Compare the normalisation in the graph with an independent computation in numpy.

    Graph and reference share `DeployNetwork.normalise`: a mistake in it would be in both, and no comparison of theirs
    would see it.

    Raises:
        ExportError: They differ by more than rounding.
    """
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 5, spec.image_channels), dtype=np.uint8)
    image[0, 0, 0], image[0, 0, 1] = 0, 255
    wanted = np.empty((1, spec.channels, 6, 5))
    for channel in range(spec.channels):
        plane = image[0, :, :, 2 - channel if spec.channel_order == "bgr" else channel].astype(np.float64)
        if spec.channels == 1:
            plane = image[0] @ np.array(GREY)
        wanted[0, channel] = (plane - spec.mean[channel]) / spec.std[channel] * spec.scale
    got = DeployNetwork(nn.Identity(), spec).normalise(torch.from_numpy(image)).double().numpy()
    largest = float(np.abs(wanted).max()) + abs(spec.scale) * max(
        abs(m / s) for m, s in zip(spec.mean, spec.std, strict=True)
    )
    if not np.abs(got - wanted).max() <= 1e-6 * max(largest, 1e-30):
        raise ExportError("the graph normalises pictures otherwise than its mean, std, scale and channel order say")
