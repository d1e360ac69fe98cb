"""Halving a map by a strided convolution beside a max pool (ENet, Paszke et al., 2016, arXiv 1606.02147; also ERFNet).

The convolution gives the channels that the pool does not; one BN follows the concatenation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.layers.folding import fold_bn, split_bn
from edgeseg.models.layers.keys import put_module

__all__ = ["ConvPool"]


class ConvPool(nn.Module):
    """Strided 3x3 convolution and max pool side by side, BN, activation.

    Args:
        in_channels: Input channels.
        out_channels: Output channels, `in_channels` of them from the pool.
        names: Keys of the convolution and of the BN; like that of the activation they may be dotted.
        pool: Kernel of the pool, 2 or 3.
        bias: Of the convolution.
        eps: Of the BN.
        act: Module name and activation; None is a ReLU without a key.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        names: tuple[str, str] = ("conv", "bn"),
        pool: int = 2,
        bias: bool = True,
        eps: float = 1e-3,
        act: tuple[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.names = names
        self.act_name, activation = act or ("relu", nn.ReLU())
        put_module(self, names[0], nn.Conv2d(in_channels, out_channels - in_channels, 3, 2, 1, bias=bias))
        self.pooling = nn.MaxPool2d(pool, 2, pool // 2 if pool == 3 else 0)
        self.rescale: nn.Module = nn.Identity()
        put_module(self, names[1], nn.BatchNorm2d(out_channels, eps=eps))
        put_module(self, self.act_name, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H / 2, W / 2)."""
        conv, bn = (self.get_submodule(name) for name in self.names)
        y = torch.cat((conv(x), self.rescale(self.pooling(x))), dim=1)
        out: Tensor = self.get_submodule(self.act_name)(bn(y))
        return out

    def fuse(self) -> None:
        """Fold the BN into the convolution for its channels; the pooled ones keep a scale and shift."""
        conv, bn = (self.get_submodule(name) for name in self.names)
        if not isinstance(conv, nn.Conv2d) or not isinstance(bn, nn.BatchNorm2d):
            return
        sizes = (conv.out_channels, bn.num_features - conv.out_channels)
        of_conv, self.rescale = split_bn(bn, sizes)
        self.set_submodule(self.names[0], fold_bn(conv, of_conv))
        self.set_submodule(self.names[1], nn.Identity())
