"""Parts of the STDC, DDRNet, RTFormer and RegSeg families that no golden record reaches."""

from __future__ import annotations

from operator import methodcaller

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.models import create_model
from edgeseg.models.backbones.stdc import MMSEG, OFFICIAL, PADDLE, STDC, SUPER_GRADIENTS, STDCBlock, STDCStyle
from edgeseg.models.families.regseg import HalvingShortcut
from edgeseg.models.families.stdc import plain_bn_state
from edgeseg.models.features import Features
from edgeseg.models.layers.max_pooling import AdaptiveMaxPool, adaptive_max_pool


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(h=st.integers(1, 30), w=st.integers(1, 30), bins=st.integers(1, 13))
def test_adaptive_max_pool_is_that_of_torch(h: int, w: int, bins: int) -> None:
    x = _noise(1, 2, h, w)
    assert torch.equal(adaptive_max_pool(x, (bins, bins)), F.adaptive_max_pool2d(x, bins))
    assert torch.equal(AdaptiveMaxPool(bins)(x), F.adaptive_max_pool2d(x, bins))


@pytest.mark.parametrize("size", [(6, 8), (7, 8), (6, 9), (7, 9)])
def test_halving_shortcut_averages_what_lies_inside(size: tuple[int, int]) -> None:
    shortcut = HalvingShortcut(3, 3).double().eval()
    x = _noise(1, 3, *size)
    pool = nn.AvgPool2d(2, 2, ceil_mode=True)
    want = shortcut.get_submodule("bn")(shortcut.get_submodule("conv")(pool(x)))
    assert (shortcut(x) - want).abs().max() <= 1e-12


@pytest.mark.parametrize("style", [OFFICIAL, PADDLE, SUPER_GRADIENTS, MMSEG])
def test_every_style_of_stdc_is_one_graph(style: STDCStyle) -> None:
    torch.manual_seed(0)
    first = STDCBlock(8, 32, stride=2, style=OFFICIAL).double().eval()
    other = STDCBlock(8, 32, stride=2, style=style).double().eval()
    by_size = {tuple(value.shape): value for key, value in first.state_dict().items() if key.endswith("weight")}
    convs = {key: value for key, value in other.state_dict().items() if key.endswith("weight") and value.ndim == 4}
    for key, value in convs.items():
        other.get_parameter(key).data.copy_(by_size[tuple(value.shape)])
    x = _noise(1, 8, 12, 12)
    got, want = other(x), first(x)
    assert (got[:, 16:] - want[:, 16:]).abs().max() <= 1e-12
    assert (got[:, :16, 1:, 1:] - want[:, :16, 1:, 1:]).abs().max() <= 1e-12
    border = (got[:, :16, 0] - want[:, :16, 0]).abs().max()
    assert border > 1e-3 if style is PADDLE else border <= 1e-12  # the padding counts or not


def test_aliases_share_their_tensors() -> None:
    backbone = STDC(aliases=True)
    state = backbone.state_dict()
    assert state["x8.0.2.conv_list.0.conv.weight"].data_ptr() == state["features.2.conv_list.0.conv.weight"].data_ptr()
    plain = sum(value.numel() for value in STDC().parameters())
    assert sum(value.numel() for value in backbone.parameters()) == plain


def test_weights_of_in_place_bn_become_those_of_plain_bn() -> None:
    state = create_model("stdc1_seg").state_dict()
    head, backbone = "ffm.convblk.bn.weight", "cp.backbone.features.0.bn.weight"
    state[head], state[backbone] = -state[head], -state[backbone]
    converted = plain_bn_state(state)
    assert torch.equal(converted[head], state[head].abs() + 1e-5)
    assert torch.equal(converted[backbone], state[backbone])
    assert converted.keys() == state.keys()


@pytest.mark.parametrize("name", ["stdc1_cls", "ddrnet_23_slim", "ddrnet_23_slim_cls", "regseg", "dwrseg_b"])
def test_maps_are_those_declared(name: str) -> None:
    backbone = Features(create_model(name)).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    declared = [(info.channels, 64 // info.reduction, 96 // info.reduction) for info in backbone.feature_info]
    assert [tuple(x.shape[1:]) for x in maps] == declared


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("stdc1_seg", (8, 8, 16, 8)),
        ("ppliteseg_t", (8, 16, 32)),
        ("ddrnet_23_slim", (8, 8)),
        ("rtformer_slim", (8, 8)),
        ("msfnet", (8, 8)),
    ],
)
def test_training_heads_come_after_the_logits(name: str, strides: tuple[int, ...]) -> None:
    network = create_model(name, aux=True)
    image = _noise(1, 3, 64, 96).float()
    with torch.no_grad():
        outputs, logits = methodcaller("forward_train", image)(network), network(image)
    assert torch.equal(outputs[0], logits)
    assert [64 // x.shape[2] for x in outputs] == list(strides)
