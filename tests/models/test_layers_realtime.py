"""Blocks of the real-time networks against what they stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.export.fusion import fuse
from edgeseg.models.families.espnetv2_edgenets import PyramidPooling
from edgeseg.models.families.sinet_cityscapes import CrossSqueeze
from edgeseg.models.layers.context_guided import ContextGuided, ContextGuidedDown
from edgeseg.models.layers.downsample import ConvPool
from edgeseg.models.layers.factorized import SplitShuffle1d
from edgeseg.models.layers.paddleseg import PaddleConv, pad_same, same_avg_pool
from edgeseg.models.layers.squeeze import LinearExcite
from edgeseg.models.layers.unpool import max_pool_places, max_unpool


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _unlike_fresh(module: nn.Module) -> nn.Module:
    """Give every tensor values that a mistake would show in: BN statistics and slopes apart from 0 and 1."""
    module.double().eval()
    for seed, (key, value) in enumerate(module.state_dict().items()):
        if value.is_floating_point():
            drawn = 0.5 * _noise(*value.shape, seed=seed)
            value.copy_(drawn.abs() + 0.5 if key.endswith("running_var") else drawn)
    return module


@settings(max_examples=40, deadline=None)
@given(h=st.integers(2, 9), w=st.integers(2, 9), levels=st.integers(1, 4), seed=st.integers(0, 99))
def test_unpooling_goes_to_the_places_of_torch(h: int, w: int, levels: int, seed: int) -> None:
    x = (_noise(2, 3, h, w, seed=seed) * levels).round()  # few levels: many ties
    want, indices = F.max_pool2d(x, 2, 2, return_indices=True)
    got, places = max_pool_places(x)
    assert torch.equal(got, want)
    assert torch.equal(torch.stack(places).sum(dim=0), torch.ones_like(want))
    values = _noise(*want.shape, seed=seed + 100)
    assert torch.equal(
        max_unpool(values, places, (h, w)), F.max_unpool2d(values, indices, (2, 2), (2, 2), output_size=[h, w])
    )


def test_values_that_differ_by_rounding_alone_are_ties() -> None:
    x = torch.full((1, 1, 2, 2), 0.3)
    x[0, 0, 1, 1] = x[0, 0, 1, 1].nextafter(torch.tensor(1.0))
    assert [int(place) for place in max_pool_places(x)[1]] == [1, 0, 0, 0]


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 2)])
def test_same_average_pool_leaves_the_padding_out(size: tuple[int, int]) -> None:
    x = _noise(1, 1, *size)
    got = same_avg_pool(x)[0, 0]
    top, left = size[0] % 2, size[1] % 2  # an odd side has a zero before the first row
    for i in range(got.shape[0]):
        for j in range(got.shape[1]):
            rows, columns = slice(max(0, 2 * i - top), 2 * i - top + 3), slice(max(0, 2 * j - left), 2 * j - left + 3)
            assert got[i, j].item() == pytest.approx(x[0, 0, rows, columns].mean().item(), abs=1e-14)


def test_same_padding_lies_after_on_even_sizes() -> None:
    assert pad_same(torch.ones(1, 1, 4, 5))[0, 0].tolist() == [[0.0, *[1.0] * 5, 0.0]] * 4 + [[0.0] * 7]


@pytest.mark.parametrize(
    "module",
    [
        ConvPool(4, 10),
        ConvPool(4, 10, pool=3, bias=False, names=("main", "norm"), act=("act", nn.PReLU(1))),
        SplitShuffle1d(4, 2),
        ContextGuided(4, 2, 2),
        ContextGuidedDown(4, 6, 2, 3),
        PaddleConv(4, 4, 3, stride=2),
        CrossSqueeze(4, 5, 2),
        PyramidPooling(4, 3, 5),
        PyramidPooling(4, 3, 5, last=True),
        LinearExcite(4, reduction=2),
    ],
    ids=lambda module: type(module).__name__,
)
def test_fused_block_is_exact(module: nn.Module) -> None:
    _, report = fuse(_unlike_fresh(module), _noise(1, 4, 12, 16))
    assert report.error <= 1e-13
    assert report.parameters[1] != report.parameters[0] or not report.batch_norms[0]


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (7, 9), (16, 12)])
def test_pyramid_branches_pool_as_torch_does(size: tuple[int, int]) -> None:
    """Every branch of EPP, whatever form its adaptive pool takes."""
    module = _unlike_fresh(PyramidPooling(4, 3, 5))
    assert isinstance(module, PyramidPooling)
    x = _noise(1, 3, *size)
    for index, scale in enumerate((2.0, 1.5, 1.0, 0.5, 0.1)):
        h, w = (max(5, -int(-side * scale // 1)) for side in size)
        stage = module.stages[index]
        if scale > 1:
            up = F.interpolate(x, size=(h, w), mode="bilinear", align_corners=True)
            want = F.adaptive_avg_pool2d(stage(up), size)
        elif scale < 1:
            want = F.interpolate(
                stage(F.adaptive_avg_pool2d(x, (h, w))), size=size, mode="bilinear", align_corners=True
            )
        else:
            want = stage(x)
        torch.testing.assert_close(module.branch(x, index), want, rtol=0, atol=1e-13)
