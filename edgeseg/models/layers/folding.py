"""Exact rewrites of weights for inference: batch norms folded into convolutions, near ones and distant ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.errors import ExportError

__all__ = ["fold_backwards", "fold_bn", "fold_bn_pair", "fold_distant", "linear_to_conv", "merge_convs", "split_bn"]


def fold_bn(conv: nn.Conv2d | nn.ConvTranspose2d, bn: nn.BatchNorm2d) -> nn.Conv2d | nn.ConvTranspose2d:
    """Return the convolution that equals `conv` followed by `bn` in eval mode; computed in float64.

    Raises:
        ExportError: The BN keeps no running statistics, so it has no fixed inference form.
    """
    if bn.running_mean is None or bn.running_var is None:
        raise ExportError("a BatchNorm without running statistics has no inference form; train with running statistics")
    mean, var = bn.running_mean.double(), bn.running_var.double()
    gamma = bn.weight.double() if bn.affine else torch.ones_like(mean)
    beta = bn.bias.double() if bn.affine else torch.zeros_like(mean)
    scale = gamma / torch.sqrt(var + bn.eps)
    folded = copy.deepcopy(conv)
    old_bias = torch.zeros_like(mean) if conv.bias is None else conv.bias.double()
    weight = conv.weight.double() * _per_output(scale, conv)
    folded.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    folded.bias = nn.Parameter(((old_bias - mean) * scale + beta).to(conv.weight.dtype), requires_grad=False)
    return folded


def _per_output(scale: Tensor, conv: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """Shape `scale`, a number per output channel, to multiply the convolution's weight."""
    if isinstance(conv, nn.Conv2d):
        return scale.view(-1, 1, 1, 1)
    per_group = scale.view(conv.groups, -1)  # transposed weight: (in, out / groups, kh, kw)
    return per_group.repeat_interleave(conv.in_channels // conv.groups, dim=0)[:, :, None, None]


def fold_bn_pair(owner: nn.Module, conv: str, bn: str) -> None:
    """Fold ``owner.bn`` into ``owner.conv`` in place; the BN becomes an identity. Harmless where already folded.

    Args:
        owner: Module whose forward runs the one directly after the other, and nothing else after the convolution.
        conv: Attribute name of a Conv2d or ConvTranspose2d.
        bn: Attribute name of its BatchNorm2d.
    """
    first, second = owner.get_submodule(conv), owner.get_submodule(bn)
    if isinstance(first, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(second, nn.BatchNorm2d):
        setattr(owner, conv, fold_bn(first, second))
        setattr(owner, bn, nn.Identity())


def fold_distant(owner: nn.Module, conv: str, bn: str) -> None:
    """Fold a BN into a convolution that lies elsewhere; nothing happens where either is something else by now.

    Exact where what lies between them is a bilinear resize or nothing: bilinear weights sum to one and act on each
    channel alone, so they commute with a scale and shift per channel.

    Args:
        owner: Module that both paths start from.
        conv: Dotted path of the convolution.
        bn: Dotted path of the BN, replaced by ``nn.Identity``.
    """
    pair = nn.Sequential(owner.get_submodule(conv), owner.get_submodule(bn))
    fold_bn_pair(pair, "0", "1")
    owner.set_submodule(conv, pair[0])
    owner.set_submodule(bn, pair[1])


def fold_backwards(owner: nn.Module, bn: str, conv: str) -> None:
    """Fold a BN into the 1x1 convolution with bias that directly follows it; harmless where already folded.

    Args:
        owner: Module that runs the one directly after the other.
        bn: Dotted path of the BN, replaced by ``nn.Identity``.
        conv: Dotted path of the convolution.
    """
    first, second = owner.get_submodule(bn), owner.get_submodule(conv)
    if not isinstance(first, nn.BatchNorm2d) or not isinstance(second, nn.Conv2d) or second.bias is None:
        return
    state = first.state_dict()
    scale = state["weight"] / torch.sqrt(state["running_var"] + first.eps)
    shift = state["bias"] - state["running_mean"] * scale
    with torch.no_grad():
        second.bias.add_(second.weight[:, :, 0, 0] @ shift)
        second.weight.mul_(scale[None, :, None, None])
    owner.set_submodule(bn, nn.Identity())


def split_bn(bn: nn.BatchNorm2d, sizes: tuple[int, ...]) -> list[nn.BatchNorm2d]:
    """Split a BN over a concatenation into one BN per part, `sizes` channels each."""
    parts: list[nn.BatchNorm2d] = []
    start = 0
    for size in sizes:
        part = nn.BatchNorm2d(size, eps=bn.eps).to(bn.weight.device, bn.weight.dtype).eval()
        keep = slice(start, start + size)
        state = {key: value[keep] for key, value in bn.state_dict().items() if value.ndim == 1}
        part.load_state_dict(state, strict=False)
        parts.append(part)
        start += size
    return parts


def linear_to_conv(linear: nn.Linear) -> nn.Conv2d:
    """Build the 1x1 convolution that equals a Linear on maps (N, C, 1, 1)."""
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    conv = conv.to(linear.weight.device, linear.weight.dtype)
    with torch.no_grad():
        conv.weight.copy_(linear.weight[:, :, None, None])
        if conv.bias is not None:
            conv.bias.copy_(linear.bias)
    return conv.train(linear.training)


def merge_convs(convs: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """Build the 1x1 convolution that equals several with bias on the same input, their outputs concatenated."""
    first = convs[0]
    merged = nn.Conv2d(first.in_channels, sum(conv.out_channels for conv in convs), 1)
    merged = merged.to(first.weight.device, first.weight.dtype)
    state = {key: torch.cat([conv.state_dict()[key] for conv in convs]) for key in ("weight", "bias")}
    merged.load_state_dict(state)
    return merged
