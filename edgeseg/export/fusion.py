"""Inference form of a network: BN and branches folded into convolutions, on a copy, checked against the original.

A module that knows an exact rewrite of itself has a method ``fuse()``; `fuse` copies the network, calls every such
method (children before parents), and folds convolution and BN neighbours inside plain ``nn.Sequential`` by itself.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from edgeseg.errors import EdgesegError, ExportError
from edgeseg.models.copying import copy_module
from edgeseg.models.layers.folding import fold_bn_pair
from edgeseg.text import first_line

__all__ = ["FusionReport", "fuse"]

_TOLERANCE = 1e-9
"""Largest difference of the fused network from the original in float64, relative to the largest output."""


@dataclass(frozen=True)
class FusionReport:
    """What fusion did.

    Attributes:
        batch_norms: BN layers before and after.
        parameters: Parameters before and after.
        error: Largest difference in float64, relative to the largest output.
    """

    batch_norms: tuple[int, int]
    parameters: tuple[int, int]
    error: float


def _fold_sequential(sequence: nn.Sequential) -> None:
    names = list(sequence._modules)
    for first, second in itertools.pairwise(names):
        if not _is_rewritten(sequence.get_submodule(first)):
            fold_bn_pair(sequence, first, second)


def _is_rewritten(module: nn.Module) -> bool:
    """Whether hooks or parametrisations (weight_norm, spectral_norm) make its weight anew at every forward."""
    return bool(module._forward_pre_hooks or module._forward_hooks) or is_parametrized(module)


def _fuse_in_place(network: nn.Module) -> None:
    for module in reversed(list(network.modules())):  # children stand after their parents
        if type(module) is nn.Sequential:
            _fold_sequential(module)
        rewrite = getattr(module, "fuse", None)
        if callable(rewrite) and not isinstance(rewrite, nn.Module):  # a submodule may have this name too
            rewrite()


def fuse(network: nn.Module, probe: Tensor) -> tuple[nn.Module, FusionReport]:
    """Return a fused copy of `network` in eval mode, and what was done.

    Args:
        network: Any module; `network` itself is not changed.
        probe: An input (N, 3, H, W) on which both forms are compared in float64.

    Returns:
        The fused copy, in the network's own precision, and a report.

    Raises:
        ExportError: The fused form differs from the original by more than 1e-9 of the largest output, or the module
            does not run in float64.
    """
    exact = copy_module(network).eval().double()
    fused = copy_module(exact)
    _fuse_in_place(fused)
    try:
        with torch.inference_mode():
            wanted, got = exact(probe.double()), fused(probe.double())
    except EdgesegError:
        raise
    except Exception as error:  # the user's own module may insist on float32
        raise ExportError(
            f"the fused form cannot be checked in float64 ({first_line(error)}); export with --no-fuse"
        ) from error
    difference = float((wanted - got).abs().max() / wanted.abs().max().clamp_min(1e-30))
    if not difference <= _TOLERANCE:
        raise ExportError(
            f"the fused form of {type(network).__name__} differs from it by {difference:.1e} of the largest logit (at "
            f"most {_TOLERANCE:.0e} is allowed); export with --no-fuse and check the fuse() methods of its modules"
        )
    dtype = next((p.dtype for p in network.parameters()), torch.float32)
    report = FusionReport((_count_bn(exact), _count_bn(fused)), (_count(exact), _count(fused)), difference)
    return fused.to(dtype), report


def _count_bn(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
