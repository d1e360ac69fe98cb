"""Blocks of the BiSeNet line (BiSeNet, STDC, ShelfNet, FANet): channel attention and the output head.

Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", ECCV 2018, arXiv 1808.00897.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgeseg.models.layers.conv_bn import ConvBN

__all__ = ["AttentionRefinement", "OutputHead"]


class AttentionRefinement(nn.Module):
    """3x3, BN, activation; each channel is weighed by the sigmoid of a 1x1 with BN on its average.

    Args:
        cin: Input channels.
        cout: Output channels.
        norm: Makes the normalisations.
        act: Activation of the 3x3.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        *,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        act: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        self.conv = ConvBN(cin, cout, 3, norm=norm, act=act)
        self.conv_atten = nn.Conv2d(cout, cout, 1, bias=False)
        self.bn_atten = norm(cout)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, cin, H, W) to (N, cout, H, W)."""
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))))

    def fuse(self) -> None:
        """Fold the attention's BN."""
        from edgeseg.export.fusion import fold_bn_pair

        fold_bn_pair(self, "conv_atten", "bn_atten")


class OutputHead(nn.Module):
    """3x3, BN, activation, then the classifier without bias.

    Args:
        cin: Input channels.
        inner: Channels between.
        num_classes: Output channels.
        kernel: Of the classifier.
        norm: Makes the normalisation.
        act: Activation.
    """

    def __init__(
        self,
        cin: int,
        inner: int,
        num_classes: int,
        *,
        kernel: int = 1,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        act: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        self.conv = ConvBN(cin, inner, 3, norm=norm, act=act)
        self.conv_out = nn.Conv2d(inner, num_classes, kernel, 1, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, cin, H, W) to logits (N, num_classes, H, W)."""
        logits: Tensor = self.conv_out(self.conv(x))
        return logits
