"""The pyramid pooling of PaddleSeg's light networks (PP-LiteSeg, MobileSeg): pooled maps are added, not concatenated.

Peng et al., "PP-LiteSeg: A Superior Real-Time Semantic Segmentation Model", 2022, arXiv 2204.02681.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from edgeseg.models.layers.paddleseg import PaddleConv
from edgeseg.models.layers.pyramid import pyramid_maps

__all__ = ["PyramidSum"]


def _paddle_conv(in_channels: int, out_channels: int) -> nn.Module:
    return PaddleConv(in_channels, out_channels, 1, act="relu")


class PyramidSum(nn.Module):
    """Average over each number of bins, 1x1, BN, ReLU, back to full size; the sum goes through `conv_out`.

    Args:
        in_channels: Input channels.
        inner: Channels of the pooled maps.
        conv_out: Runs on the sum, `inner` channels.
        bins: Bins along each side, one entry per branch.
        align_corners: Of the resizes.
        branch: Makes the 1x1 with BN and ReLU; PaddleSeg's has a bias.
        key: Name of the branches.

    Shape:
        (N, in_channels, H, W) -> what `conv_out` gives at (H, W), any size.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        conv_out: nn.Module,
        *,
        bins: tuple[int, ...] = (1, 2, 4),
        align_corners: bool = False,
        branch: Callable[[int, int], nn.Module] = _paddle_conv,
        key: str = "stages",
    ) -> None:
        super().__init__()
        # published keys count the pool, which has no weights and runs in `pyramid_maps`
        branches = (nn.Sequential(nn.Identity(), branch(in_channels, inner)) for _ in bins)
        self.key = key
        self.add_module(key, nn.ModuleList(branches))
        self.conv_out = conv_out
        self.bins, self.align_corners = bins, align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Compute maps (N, in_channels, H, W) to the same height and width."""
        branches = self.get_submodule(self.key).children()
        maps = pyramid_maps(x, branches, align_corners=self.align_corners, bins=self.bins)
        y: Tensor = self.conv_out(sum(maps[1:], start=maps[0]))
        return y
