"""Convolution, BN and ReLU under two attribute names: the most common block, with the names of its family."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgeseg.models.layers.folding import fold_bn_pair

__all__ = ["ConvBN"]


class ConvBN(nn.Module):
    """Convolution without bias, BN, and ReLU where `relu`.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Kernel size.
        stride: Of both axes.
        padding: Zeros on each side; None keeps the size at stride 1.
        dilation: Of both axes.
        groups: As in ``nn.Conv2d``.
        relu: Activate.
        act: What `relu` activates with.
        eps: Of the BN.
        norm: Makes a normalisation in place of the BN.
        names: Attribute names of the convolution and the BN, as in the published state dict.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        relu: bool = True,
        act: Callable[[Tensor], Tensor] = torch.relu,
        eps: float = 1e-5,
        norm: Callable[[int], nn.Module] | None = None,
        names: tuple[str, str] = ("conv", "bn"),
    ) -> None:
        super().__init__()
        pad = dilation * (kernel // 2) if padding is None else padding
        self.names, self.relu, self.act = names, relu, act
        self.add_module(
            names[0], nn.Conv2d(in_channels, out_channels, kernel, stride, pad, dilation, groups, bias=False)
        )
        self.add_module(names[1], nn.BatchNorm2d(out_channels, eps=eps) if norm is None else norm(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        for name in self.names:
            x = self.get_submodule(name)(x)
        return self.act(x) if self.relu else x

    def fuse(self) -> None:
        """Fold the BN into the convolution."""
        fold_bn_pair(self, *self.names)
