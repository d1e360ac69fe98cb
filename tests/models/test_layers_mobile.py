"""Blocks of the mobile transformers, LETNet and MobileNetV3 against what they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models.backbones.mobilenetv3 import LARGE, MMSEG, PADDLE, SMALL, MobileNetV3, MobileNetV3Style, Row
from edgeseg.models.layers.attention import attend
from edgeseg.models.layers.eca import EfficientChannelAttention
from edgeseg.models.layers.folding import fold_backwards, merge_convs
from edgeseg.models.layers.keys import put_module
from edgeseg.models.layers.pixelwise import ChannelNorm, PixelLinear, ResidualDepthwise, fold_norm
from edgeseg.models.layers.windows import fold_windows, unfold_windows


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _assert_close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_windows_are_those_of_unfold_and_fold(kernel: int) -> None:
    x = _noise(2, 3, 6, 7)
    windows = unfold_windows(x, kernel)
    want = F.unfold(x, kernel, padding=kernel // 2)
    _assert_close(windows.flatten(2), want)
    other = _noise(*windows.shape, seed=1)
    _assert_close(fold_windows(other, kernel), F.fold(other.flatten(2), (6, 7), kernel, padding=kernel // 2))


def test_attention_is_that_of_torch() -> None:
    q, k, v = _noise(2, 12, 5), _noise(2, 12, 5, seed=1), _noise(2, 6, 5, seed=2)
    queries, keys, values = (x.reshape(2, 3, -1, 5).transpose(2, 3) for x in (q, k, v))
    want = F.scaled_dot_product_attention(queries, keys, values)
    got = attend(q, k, v, heads=3, scale=1.0 / math.sqrt(4.0))
    _assert_close(got, want.transpose(2, 3).reshape(2, 6, 5))


@pytest.mark.parametrize("kernel", [3, 5])
def test_neighbours_as_a_banded_matrix(kernel: int) -> None:
    layer = EfficientChannelAttention(7, kernel=kernel).double()
    x = _noise(2, 7, 4, 5)
    want = layer(x)
    layer.fuse()
    layer.fuse()
    _assert_close(layer(x), want)


def test_pixelwise_layers_are_those_on_tokens() -> None:
    linear, norm = PixelLinear(6, 4).double(), ChannelNorm(6, eps=1e-3).double()
    norm.weight.data, norm.bias.data = _noise(6, seed=1), _noise(6, seed=2)
    x = _noise(2, 6, 3, 5)
    tokens = x.flatten(2).transpose(1, 2)
    as_map = F.layer_norm(tokens, (6,), norm.weight, norm.bias, 1e-3).transpose(1, 2).reshape(2, 6, 3, 5)
    _assert_close(norm(x), as_map)
    want = F.linear(tokens, linear.weight, linear.bias).transpose(1, 2).reshape(2, 4, 3, 5)
    _assert_close(linear(x), want)


def test_norm_folds_into_the_linear_behind_it() -> None:
    row = nn.Sequential(ChannelNorm(6), PixelLinear(6, 4)).double()
    first = row.get_submodule("0")
    first.get_parameter("weight").data, first.get_parameter("bias").data = _noise(6, seed=1), _noise(6, seed=2)
    x = _noise(2, 6, 3, 5)
    want = row(x)
    fold_norm(row, "0", "1")
    fold_norm(row, "0", "1")
    assert isinstance(row[1], nn.Conv2d)
    _assert_close(row(x), want)


def test_depthwise_takes_the_addition_once() -> None:
    layer = ResidualDepthwise(3, name="proj").double()
    x = _noise(1, 3, 5, 6)
    want = layer(x)
    layer.fuse()
    layer.fuse()
    _assert_close(layer(x), want)


def test_merged_convolutions_give_the_concatenation() -> None:
    convs = [nn.Conv2d(5, out_channels, 1).double() for out_channels in (2, 3, 4)]
    x = _noise(2, 5, 3, 4)
    _assert_close(merge_convs(convs)(x), torch.cat([conv(x) for conv in convs], dim=1))


def test_norm_before_a_convolution_folds_into_it() -> None:
    bn = nn.BatchNorm2d(3)
    for k, tensor in enumerate((bn.weight.data, bn.bias.data, bn.running_mean)):
        assert tensor is not None
        tensor.copy_(_noise(3, seed=k))
    row = nn.Sequential(bn, nn.Conv2d(3, 4, 1)).double().eval()
    x = _noise(2, 3, 4, 5)
    want = row(x)
    fold_backwards(row, "0", "1")
    assert isinstance(row[0], nn.Identity)
    _assert_close(row(x), want)


def test_modules_lie_under_dotted_names() -> None:
    owner = nn.Module()
    put_module(owner, "a.b", nn.PReLU(2))
    put_module(owner, "a.c", nn.PReLU(3))
    assert list(owner.state_dict()) == ["a.b.weight", "a.c.weight"]


@pytest.mark.parametrize("style", [PADDLE, MMSEG], ids=["paddle", "mmseg"])
@pytest.mark.parametrize("rows", [LARGE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_maps_of_mobilenetv3_are_those_declared(
    rows: tuple[Row, ...], style: MobileNetV3Style, output_stride: int
) -> None:
    with torch.device("meta"):
        network = MobileNetV3(rows, style=style, taps=tuple(range(len(rows) + 1)), output_stride=output_stride).eval()
        maps = network(torch.empty(1, 3, 65, 96))
    assert max(info.reduction for info in network.feature_info) == output_stride
    for info, found in zip(network.feature_info, maps, strict=True):
        assert found.shape[1:] == (info.channels, -(-65 // info.reduction), -(-96 // info.reduction))
