"""K-Net against the plain form of what it rewrites, over every head that it is published on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UsageError
from edgeseg.models.heads.knet import IterativeDecodeHead, KernelUpdateHead, StageOptions
from edgeseg.models.heads.registry import build_from_config, head_class
from edgeseg.models.segmentor import create_segmentor

EXACT = 1e-10
UPDATOR = {"in_channels": 4, "feat_channels": 4}
PLAIN = {"conv_cfg": {"type": "Conv2d"}, "act_cfg": None}


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def _stage(**options: Any) -> KernelUpdateHead:
    chosen = {"in_channels": 8, "num_heads": 2, "feedforward_channels": 16, "kernel_updator_cfg": UPDATOR, **options}
    return KernelUpdateHead(StageOptions(**chosen)).double().eval()


def _plain(stage: KernelUpdateHead, x: Tensor, kernels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The stage as published: the map is convolved, and the kernels are those of a convolution per picture."""
    y = stage.feat_transform(x) if stage.feat_transform is not None else x
    kernels = stage.kernel_update_conv(torch.einsum("nkhw,nchw->nkc", logits.softmax(dim=1), y), kernels)
    kernels = stage.attention_norm(kernels + stage.attention(kernels))
    if stage.ffn is not None:
        kernels = stage.ffn_norm(kernels + stage.ffn(kernels))
    weights = stage.fc_mask(stage.mask_fcs(kernels))[:, :, :, None, None]
    return kernels, torch.cat([F.conv2d(each[None], weight) for each, weight in zip(y, weights, strict=True)])


@pytest.mark.parametrize(
    "options",
    [
        {"feat_transform_cfg": PLAIN},
        {"feat_transform_cfg": {"act_cfg": None}, "with_ffn": False, "num_mask_fcs": 1},
        {"feat_transform_cfg": None, "num_ffn_fcs": 3, "out_channels": 8},
    ],
)
def test_a_stage_need_not_convolve_its_map(options: dict[str, Any]) -> None:
    stage = _stage(**options)
    inputs = _randn(2, 8, 5, 7), _randn(2, 3, 8), _randn(2, 3, 5, 7)
    for got, want in zip(stage(*inputs), _plain(stage, *inputs), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=EXACT)


def test_halves_of_a_kernel_are_updated_alike() -> None:
    updator = _stage().kernel_update_conv
    half, gathered = _randn(1, 3, 4), _randn(1, 3, 4)
    got = updator(torch.cat((gathered, gathered), dim=2), torch.cat((half, half), dim=2))
    torch.testing.assert_close(got[:, :, :4], got[:, :, 4:], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"conv_kernel_size": 3}, "conv_kernel_size 3"),
        ({"kernel_updator_cfg": {**UPDATOR, "gate_norm_act": True}}, "gate_norm_act True"),
        ({"feat_transform_cfg": {"act_cfg": {"type": "ReLU"}}}, "feat_transform_cfg"),
        ({"out_channels": 4}, "the same"),
    ],
)
def test_options_that_nobody_publishes(options: dict[str, Any], words: str) -> None:
    stage = {"in_channels": 8, "num_heads": 2, "kernel_updator_cfg": UPDATOR, **options}
    first = head_class("fcn")(in_channels=4, channels=8, num_classes=3)
    with pytest.raises(UsageError, match=words):
        IterativeDecodeHead(kernel_generate_head=first, kernel_update_head=[stage], num_stages=1)


def test_number_of_classes_and_stages() -> None:
    config = {
        "type": "IterativeDecodeHead", "num_stages": 2,
        "kernel_generate_head": {"type": "FCNHead", "in_channels": 4, "channels": 8, "num_classes": 19},
    }  # fmt: skip
    head = build_from_config(config, num_classes=5).eval()
    assert len(head.get_submodule("kernel_update_head").state_dict()) > 0
    assert head([torch.zeros(2, 4, 6, 6)]).shape == (2, 5, 6, 6)
    first = head_class("fcn")(in_channels=4, channels=8, num_classes=3)
    with pytest.raises(UsageError, match="5 classes"):
        IterativeDecodeHead(kernel_generate_head=first, num_classes=5)
    with pytest.raises(UsageError, match="one per stage"):
        IterativeDecodeHead(kernel_generate_head=first, kernel_update_head=[])


@pytest.mark.parametrize("coarse", [None, "fcn", "psp", "aspp", "uper"])
def test_over_every_head(coarse: str | None) -> None:
    with torch.device("meta"):
        network = create_segmentor(backbone="resnet18_v1c", head="knet", coarse_head=coarse, num_classes=5)
        logits = network(torch.empty(1, 3, 64, 128))
    stride = 4 if coarse == "uper" else 8
    assert logits.shape == (1, 5, 64 // stride, 128 // stride)
    assert isinstance(network.decode_head, IterativeDecodeHead)
    assert type(network.decode_head.kernel_generate_head) is head_class(coarse or "fcn")


def test_a_head_of_ones_own_and_heads_that_have_no_classifier() -> None:
    first = head_class("psp")(in_channels=512, in_index=3, channels=16, num_classes=5)
    network = create_segmentor(backbone="resnet18", head="knet", num_classes=5, kernel_generate_head=first)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 8, 8)
    for wrong in (nn.Conv2d(3, 3, 1), {"type": "FPN", "in_channels": [4]}):
        with pytest.raises(UsageError, match="no classifier"):
            IterativeDecodeHead(kernel_generate_head=wrong)  # type: ignore[arg-type]
