"""Convolution, BN and ReLU under two attribute names: the most common block, with the names of its family."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor, nn

from edgeseg.models.layers.folding import fold_bn_pair

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ConvBN", "Geometry", "PaddedGeometry", "same_padded"]


class Geometry(TypedDict, total=False):
    """How a kernel moves over a map, as in ``nn.Conv2d``: both axes alike.

    Attributes:
        stride: Pixels from one place to the next.
        padding: Zeros on each side; None, or left out, keeps the size at stride 1.
        dilation: Distance of the taps.
        groups: Of the channels.
    """

    stride: int
    padding: int | None
    dilation: int
    groups: int


class PaddedGeometry(TypedDict):
    """A `Geometry` of which nothing is left open."""

    stride: int
    padding: int
    dilation: int
    groups: int


def same_padded(kernel: int, geometry: Geometry) -> PaddedGeometry:
    """Fill in what a geometry leaves open; the padding is then the one that keeps the size at stride 1.

    >>> same_padded(3, {"dilation": 2})
    {'stride': 1, 'padding': 2, 'dilation': 2, 'groups': 1}
    """
    dilation, padding = geometry.get("dilation", 1), geometry.get("padding")
    return {
        "stride": geometry.get("stride", 1),
        "padding": dilation * (kernel // 2) if padding is None else padding,
        "dilation": dilation,
        "groups": geometry.get("groups", 1),
    }


class ConvBN(nn.Module):
    """Convolution without bias, BN, and ReLU where `relu`.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Kernel size.
        relu: Activate.
        act: What `relu` activates with.
        eps: Of the BN.
        norm: Makes a normalisation in place of the BN.
        names: Attribute names of the convolution and the BN, as in the published state dict.
        geometry: Stride, padding, dilation and groups of the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        relu: bool = True,
        act: Callable[[Tensor], Tensor] = torch.relu,
        eps: float = 1e-5,
        norm: Callable[[int], nn.Module] | None = None,
        names: tuple[str, str] = ("conv", "bn"),
        **geometry: Unpack[Geometry],
    ) -> None:
        super().__init__()
        self.names, self.relu, self.act = names, relu, act
        self.add_module(
            names[0], nn.Conv2d(in_channels, out_channels, kernel, bias=False, **same_padded(kernel, geometry))
        )
        self.add_module(names[1], nn.BatchNorm2d(out_channels, eps=eps) if norm is None else norm(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / stride, W / stride)."""
        for name in self.names:
            x = self.get_submodule(name)(x)
        return self.act(x) if self.relu else x

    def fuse(self) -> None:
        """Fold the BN into the convolution."""
        fold_bn_pair(self, *self.names)
