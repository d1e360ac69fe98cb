"""The rewrites inside the decode heads, each against the plain form it stands for, and the heads' registry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgeseg.errors import EdgesegError, UnknownNameError, UsageError
from edgeseg.models.heads.base import concat_resized
from edgeseg.models.heads.dm import dynamic_depthwise
from edgeseg.models.heads.enc import Encoding
from edgeseg.models.heads.fcn import FCNHead
from edgeseg.models.heads.fpn import FPN, FPNHead
from edgeseg.models.heads.non_local import DisentangledNonLocal, NonLocal
from edgeseg.models.heads.point import PointHead, largest_places
from edgeseg.models.heads.registry import (
    build_from_config,
    head_class,
    list_heads,
    list_necks,
    neck_class,
    register_head,
    register_neck,
)

EXACT = 1e-10


def _randn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _levels() -> list[Tensor]:
    return [_randn(2, 3, 9, 14), _randn(2, 4, 5, 7), _randn(2, 5, 3, 4)]


def _worst(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).detach().abs().max())


def test_fcn_head_over_concatenated_levels() -> None:
    head = FCNHead(
        in_channels=(3, 4, 5), in_index=(0, 1, 2), channels=6, num_classes=2, kernel_size=1, num_convs=1,
        concat_input=False, input_transform="resize_concat",
    )  # fmt: skip
    head = head.double().eval()
    want = head.conv_seg(head.convs(concat_resized(_levels(), align_corners=False)))
    assert _worst(head(_levels()), want) < EXACT


@pytest.mark.parametrize(
    "options",
    [
        {"in_index": (0, 1), "in_channels": 4},
        {"in_index": (0, 1), "in_channels": (3, 4)},
        {"in_index": 1, "in_channels": 4, "input_transform": "resize_concat"},
        {"in_index": (0, 1), "in_channels": (3, 4, 5), "input_transform": "resize_concat"},
    ],
)
def test_maps_and_channels_that_do_not_fit(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="FCNHead"):
        head_class("fcn")(channels=4, num_classes=2, **options)  # type: ignore[arg-type]


def test_dot_product_without_the_matrix_of_pairs() -> None:
    block = NonLocal(6, reduction=2, use_scale=True, mode="dot_product").double().eval()
    x = _randn(2, 6, 4, 5)
    theta, phi, g = (conv(x).flatten(2) for conv in (block.theta, block.phi, block.g))
    pairs = theta.transpose(1, 2) @ phi / 20
    want = x + block.conv_out((pairs @ g.transpose(1, 2)).transpose(1, 2).reshape(2, 3, 4, 5))
    assert _worst(block(x), want) < EXACT


def test_disentangled_block_need_not_centre_its_keys() -> None:
    block = DisentangledNonLocal(6, temperature=0.05, reduction=2, use_scale=True, mode="embedded_gaussian")
    block = block.double().eval()
    x = _randn(2, 6, 4, 5)
    theta, phi, g = (conv(x).flatten(2) for conv in (block.theta, block.phi, block.g))
    theta, phi = (each - each.mean(2, keepdim=True) for each in (theta, phi))
    weights = (theta.transpose(1, 2) @ phi / 3**0.5 / 0.05).softmax(-1)
    unary = g @ block.conv_mask(x).flatten(2).softmax(2).transpose(1, 2)
    assert _worst(block.context(x), g @ weights.transpose(1, 2) + unary) < EXACT


@pytest.mark.parametrize("name", ["nl", "dnl"])
def test_unknown_mode_of_a_non_local_head(name: str) -> None:
    with pytest.raises(UsageError, match="gaussian"):
        build_from_config(
            {"type": name.upper() + "Head", "mode": "concatenation", "in_channels": 4, "channels": 4, "num_classes": 2}
        )


def test_encoding_without_the_residuals() -> None:
    encoding = Encoding(5, 3).double()
    x = _randn(2, 5, 4, 6)
    residuals = x.flatten(2).transpose(1, 2)[:, :, None] - encoding.codewords
    weights = (residuals.square().sum(3) * encoding.scale).softmax(2)
    assert _worst(encoding(x), (weights[..., None] * residuals).sum(1)) < EXACT


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_dynamic_filters_as_shifts(size: int) -> None:
    x, filters = _randn(2, 3, 6, 5), _randn(2, 3, size, size)
    before, after = size // 2, (size - 1) // 2
    padded = F.pad(x, (before, after, before, after)).reshape(1, 6, 6 + size - 1, 5 + size - 1)
    want = F.conv2d(padded, filters.reshape(6, 1, size, size), groups=6).reshape(x.shape)
    assert _worst(dynamic_depthwise(x, filters), want) < EXACT


@pytest.mark.parametrize("count", [5, 3840, 4100, 8196])
def test_largest_places_in_portions(count: int) -> None:
    values = -_randn(2, 9000).abs()
    places = largest_places(values, count).sort(dim=1).values
    assert torch.equal(places, values.topk(count, dim=1).indices.sort(dim=1).values)


def test_largest_places_may_be_all() -> None:
    assert largest_places(_randn(2, 12), 12).tolist() == [list(range(12))] * 2


def test_point_head_changes_its_points_alone() -> None:
    head = PointHead(
        in_channels=(4,), in_index=(0,), channels=8, num_classes=3, subdivision_steps=1, subdivision_num_points=10
    )
    head = head.double().eval()
    coarse = _randn(1, 3, 5, 7)
    plain = F.interpolate(coarse, scale_factor=2, mode="bilinear")
    changed = (head([_randn(1, 4, 5, 7), coarse]) != plain).any(dim=1)
    best = plain.topk(2, dim=1).values
    gap = (best[:, 0] - best[:, 1]).flatten()
    assert int(changed.sum()) == 10
    assert float(gap[changed.flatten()].max()) <= float(gap[~changed.flatten()].min())


def test_point_head_needs_two_classes() -> None:
    with pytest.raises(UsageError, match="2"):
        PointHead(in_channels=(4,), in_index=(0,), channels=8, num_classes=1)


def test_neck_puts_out_what_comes_in() -> None:
    with pytest.raises(UsageError, match="num_outs"):
        FPN(in_channels=(4, 8), num_outs=3)


def test_feature_strides_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="feature_strides"):
        FPNHead(in_channels=(4, 8), in_index=(0, 1), channels=4, num_classes=2)


def test_heads_by_short_and_by_published_name() -> None:
    assert head_class("psp") is head_class("PSPHead")
    assert neck_class("fpn") is neck_class("FPN")
    assert {"fcn", "psp", "point"} <= set(list_heads())
    assert "fpn" in list_necks()


@pytest.mark.parametrize("find", [head_class, neck_class])
def test_unknown_head_or_neck(find: object) -> None:
    assert callable(find)
    with pytest.raises(UnknownNameError, match="nothing_like_it"):
        find("nothing_like_it")


def test_names_are_given_once() -> None:
    with pytest.raises(EdgesegError, match="twice"):
        register_head("fcn")(FCNHead)
    with pytest.raises(EdgesegError, match="twice"):
        register_neck("fpn")(FPN)


def test_published_configuration() -> None:
    config = {
        "type": "DepthwiseSeparableFCNHead", "in_channels": 4, "channels": 4, "num_classes": 2, "concat_input": False,
        "norm_cfg": {"type": "BN"}, "loss_decode": {"type": "CrossEntropyLoss"},
    }  # fmt: skip
    plain = build_from_config(config).double().eval()
    active = build_from_config({**config, "dw_act_cfg": {"type": "ReLU"}}).double().eval()
    active.load_state_dict(plain.state_dict())
    x = [_randn(1, 4, 6, 6)]
    assert _worst(plain(x), active(x)) > EXACT
    assert build_from_config(config, num_classes=5)(x[0].float()[None]).shape == (1, 5, 6, 6)
