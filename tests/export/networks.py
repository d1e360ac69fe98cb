"""Networks of a user's own for the tests of the export: small, seeded, exported within a second or two."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models import ModelSpec
from edgeseg.specs import InputSpec, PostprocessSpec

__all__ = [
    "MixesBatch",
    "Pixels",
    "SizeInside",
    "Tiny",
    "broken",
    "no_module",
    "own_spec",
    "pixels",
    "resized",
    "tiny",
    "with_spec",
]

STRIDE = 4
CLASSES = 5


class Tiny(nn.Module):
    """Convolution, BN, ReLU, convolution; logits at stride 4, or at the image's size with `align_corners`."""

    def __init__(self, *, align_corners: bool | None = None, seed: int = 0, classes: int = CLASSES) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.align_corners = align_corners
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=STRIDE, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, classes, 1)
        for tensor in (*self.parameters(), self.stem.get_buffer("1.running_mean")):
            tensor.data.normal_(generator=generator)
        self.stem.get_buffer("1.running_var").uniform_(0.5, 2.0, generator=generator)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stem(image))
        if self.align_corners is None:
            return logits
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=self.align_corners)


class Pixels(nn.Module):
    """Returns what it is given: the normalised image as three logits."""

    def forward(self, image: Tensor) -> Tensor:
        return image * 1.0


class MixesBatch(nn.Module):
    """Adds its neighbour in the batch to every image, as a wrong reshape would."""

    def __init__(self) -> None:
        super().__init__()
        self.tiny = Tiny()

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.tiny(image)
        return logits + 2.0 * torch.roll(logits, 1, 0)


class SizeInside(nn.Module):
    """Computes with its width in Python, so that the example's width stays in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.tiny = Tiny()

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.tiny(image)
        ramp = torch.tensor([column / 8.0 for column in range(int(logits.shape[-1]))])
        return logits + ramp


def own_spec(name: str = "mine") -> ModelSpec:
    """Conventions a user might write down."""
    return ModelSpec(
        system="Mine",
        year=2026,
        paper="",
        source="mine",
        num_classes=CLASSES,
        labels="generic",
        input_size=(32, 48),
        divisor=4,
        input=InputSpec("bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
        classes_key="head.weight",
        params=0,
        postprocess=PostprocessSpec(True),
        name=name,
    )


def tiny() -> nn.Module:
    """``tests.export.networks:tiny``."""
    return Tiny()


def two_classes() -> nn.Module:
    """``tests.export.networks:two_classes``."""
    return Tiny(classes=2)


def pixels() -> nn.Module:
    """``tests.export.networks:pixels``."""
    return Pixels()


def resized() -> nn.Module:
    """``tests.export.networks:resized``, which resizes its logits to the picture's size."""
    return Tiny(align_corners=False)


def with_spec() -> nn.Module:
    """A network that carries its conventions."""
    network = Tiny()
    network.edgeseg_spec = own_spec()  # type: ignore[assignment]
    return network


def broken() -> nn.Module:
    """Fails with a message of two lines."""
    raise RuntimeError("no weights here\nand a second line")


def no_module() -> int:
    """Gives something else."""
    return 3
