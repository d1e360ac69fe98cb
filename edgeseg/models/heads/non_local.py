"""Non-local heads: every place attends to every place, between the two convolution blocks of an FCN head.

Wang et al., "Non-local Neural Networks", CVPR 2018, arXiv 1711.07971; Yin et al., "Disentangled Non-Local Neural
Networks", ECCV 2020, arXiv 2006.06668. Equal to mmsegmentation 1.2.2's NLHead and DNLHead, third-party.

Exact rewrites: in the mode without softmax the matrix of all pairs is never formed; in DNLNet the keys are not centred,
since that adds one number per query, which the softmax removes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.heads.base import ConvBias
from edgeseg.models.heads.fcn import FCNHead, FCNOptions
from edgeseg.models.heads.registry import register_head
from edgeseg.models.layers.attention import attend
from edgeseg.models.layers.conv_bn import ConvBN

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DNLHead", "DisentangledNonLocal", "Mode", "NLHead", "NonLocal"]

Mode = Literal["embedded_gaussian", "dot_product"]


class NonLocal(nn.Module):
    """A map plus what its places attended to.

    Args:
        channels: Of the map.
        reduction: Divides them into the inner width.
        use_scale: Divide the products by the root of the inner width (``"embedded_gaussian"``).
        mode: Softmax over the products, or division by the number of places (``"dot_product"``).
    """

    def __init__(self, channels: int, *, reduction: int, use_scale: bool, mode: Mode) -> None:
        super().__init__()
        if mode not in ("embedded_gaussian", "dot_product"):
            raise UsageError(f"mode is '{mode}'; embedded_gaussian and dot_product are known")
        inner = max(channels // reduction, 1)
        self.mode, self.scale = mode, inner**-0.5 if use_scale else 1.0
        self.g = ConvBias(channels, inner, 1)
        self.theta = ConvBias(channels, inner, 1)
        self.phi = ConvBias(channels, inner, 1)
        self.conv_out = ConvBN(inner, channels, 1, relu=False)

    def attended(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """Compute values (N, inner, L) that the queries `theta` (N, inner, L) take from the places of `phi` and `g`."""
        if self.mode == "dot_product":
            return g @ phi.transpose(1, 2) @ theta * (1.0 / phi.shape[2])
        return attend(theta, phi, g, heads=1, scale=self.scale)

    def context(self, x: Tensor) -> Tensor:
        """Compute what is projected and added to a map (N, channels, H, W): (N, inner, L)."""
        theta, phi, g = (conv(x).flatten(2) for conv in (self.theta, self.phi, self.g))
        return self.attended(theta, phi, g)

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, channels, H, W) into maps of the same shape."""
        y = self.context(x)
        z: Tensor = x + self.conv_out(y.reshape(y.shape[0], y.shape[1], x.shape[2], x.shape[3]))
        return z


class DisentangledNonLocal(NonLocal):
    """`NonLocal` with centred queries, a temperature, and one more context that is the same for all places.

    Args:
        temperature: Divides the products.
        channels: As `NonLocal`.
        reduction: As `NonLocal`.
        use_scale: As `NonLocal`.
        mode: Only ``"embedded_gaussian"``.
    """

    def __init__(self, channels: int, *, temperature: float, reduction: int, use_scale: bool, mode: Mode) -> None:
        if mode != "embedded_gaussian":
            raise UsageError(f"mode is '{mode}'; DNLNet has embedded_gaussian only")
        super().__init__(channels, reduction=reduction, use_scale=use_scale, mode=mode)
        self.scale = self.scale / temperature
        self.conv_mask = nn.Conv2d(channels, 1, 1)

    def context(self, x: Tensor) -> Tensor:
        """Compute what is projected and added to a map (N, channels, H, W): (N, inner, L)."""
        theta, phi, g = (conv(x).flatten(2) for conv in (self.theta, self.phi, self.g))
        pairwise = self.attended(theta - theta.mean(dim=2, keepdim=True), phi, g)
        mask = self.conv_mask(x).flatten(2).softmax(dim=2)
        unary: Tensor = g @ mask.transpose(1, 2)
        return pairwise + unary


@register_head("nl")
class NLHead(FCNHead):
    """An FCN head with a non-local block after its first convolution block.

    Args:
        reduction: As `NonLocal`.
        use_scale: As `NonLocal`.
        mode: As `NonLocal`.
        options: As `FCNHead`.
    """

    def __init__(
        self,
        *,
        reduction: int = 2,
        use_scale: bool = True,
        mode: Mode = "embedded_gaussian",
        **options: Unpack[FCNOptions],
    ) -> None:
        super().__init__(**options)
        self.nl_block = NonLocal(self.channels, reduction=reduction, use_scale=use_scale, mode=mode)

    def between(self, x: Tensor) -> Tensor:
        """Attend between the convolution blocks."""
        y: Tensor = self.nl_block(x)
        return y


@register_head("dnl")
class DNLHead(FCNHead):
    """An FCN head with a disentangled non-local block after its first convolution block.

    Args:
        reduction: As `NonLocal`.
        use_scale: As `NonLocal`.
        mode: As `DisentangledNonLocal`.
        temperature: As `DisentangledNonLocal`.
        options: As `FCNHead`.
    """

    def __init__(
        self,
        *,
        reduction: int = 2,
        use_scale: bool = True,
        mode: Mode = "embedded_gaussian",
        temperature: float = 0.05,
        **options: Unpack[FCNOptions],
    ) -> None:
        super().__init__(**options)
        self.dnl_block = DisentangledNonLocal(
            self.channels, temperature=temperature, reduction=reduction, use_scale=use_scale, mode=mode
        )

    def between(self, x: Tensor) -> Tensor:
        """Attend between the convolution blocks."""
        y: Tensor = self.dnl_block(x)
        return y
