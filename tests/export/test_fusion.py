"""Folding is exact, leaves the original alone, and is refused when it is not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeseg.errors import ExportError
from edgeseg.export.fusion import fuse
from edgeseg.models.layers.folding import fold_bn


def _lively(bn: nn.BatchNorm2d, generator: torch.Generator) -> nn.BatchNorm2d:
    """Statistics and affine values away from the defaults."""
    for tensor in (bn.running_mean, bn.weight, bn.bias):
        if tensor is not None:
            tensor.data.normal_(generator=generator)
    assert bn.running_var is not None
    bn.running_var.uniform_(0.2, 2.0, generator=generator)
    return bn


@settings(max_examples=40, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    per_group=st.integers(1, 3),
    outs=st.integers(1, 3),
    kernel=st.sampled_from([1, 2, 3]),
    stride=st.integers(1, 2),
    bias=st.booleans(),
    transposed=st.booleans(),
    affine=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_fold_bn_equals_conv_then_bn(
    groups: int,
    per_group: int,
    outs: int,
    kernel: int,
    stride: int,
    bias: bool,
    transposed: bool,
    affine: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv = kind(groups * per_group, groups * outs, kernel, stride, groups=groups, bias=bias).double()
    bn = _lively(nn.BatchNorm2d(groups * outs, affine=affine).double().eval(), generator)
    x = torch.randn(2, groups * per_group, 7, 6, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(fold_bn(conv, bn)(x), bn(conv(x)), rtol=1e-12, atol=1e-12)


def test_fold_bn_refuses_a_bn_without_statistics() -> None:
    with pytest.raises(ExportError, match="running statistics"):
        fold_bn(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False))


def test_fuse_folds_sequentials_on_a_copy() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Sequential(nn.ConvTranspose2d(4, 2, 2, 2), nn.BatchNorm2d(2)),
    )
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fused, report = fuse(network, torch.randn(1, 3, 8, 8))
    assert report.batch_norms == (2, 0)
    assert report.error <= 1e-12
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert next(fused.parameters()).dtype is torch.float32


def test_fuse_leaves_a_bn_after_an_activation() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    _, report = fuse(network, torch.randn(1, 3, 8, 8))
    assert report.batch_norms == (1, 1)


class _Wrong(nn.Module):
    """A block whose fuse() changes its output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result

    def fuse(self) -> None:
        self.conv.weight.data *= 1.0001


def test_fuse_refuses_a_rewrite_that_is_not_exact() -> None:
    with pytest.raises(ExportError, match="--no-fuse"):
        fuse(_Wrong(), torch.randn(1, 3, 4, 4))


class _HoldsFuse(nn.Module):
    """Has a submodule named as the method that fusion looks for."""

    def __init__(self) -> None:
        super().__init__()
        self.fuse = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.fuse(image)
        return y


def test_a_submodule_named_fuse_is_no_rewrite() -> None:
    fused, report = fuse(_HoldsFuse().eval(), torch.ones(1, 3, 4, 4))
    assert report.batch_norms == (1, 0)
    assert fused(torch.ones(1, 3, 4, 4)).shape == (1, 4, 4, 4)
