"""SegFormer's backbone: its attention against torch's own, its sizes, and its head on other backbones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import UnknownNameError
from edgeseg.models.backbones.mit import MIT_DEPTHS, MixVisionTransformer, ReducedAttention, mit
from edgeseg.models.segmentor import create_segmentor


def _small() -> MixVisionTransformer:
    return MixVisionTransformer(embed_dims=4, num_layers=(1, 1, 1, 1)).double().eval()


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("size", [(6, 8), (7, 9)])
def test_attention_is_torchs(ratio: int, size: tuple[int, int]) -> None:
    own = ReducedAttention(8, 2, ratio=ratio).double().eval()
    torchs = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    torchs.load_state_dict(own.attn.state_dict())
    tokens = _randn(2, size[0] * size[1], 8)
    context = tokens
    if ratio > 1:
        cut = own.sr(tokens.transpose(1, 2).reshape(2, 8, *size))
        assert cut.shape[2:] == (size[0] // ratio, size[1] // ratio)
        context = own.norm(cut.flatten(2).transpose(1, 2))
    want, _ = torchs(tokens, context, context)
    torch.testing.assert_close(own(tokens, size), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(29, 29), (64, 96), (47, 75)])
def test_maps_have_the_strides_declared(size: tuple[int, int]) -> None:
    backbone = _small()
    with torch.no_grad():
        maps = backbone.features(_randn(2, 3, *size))
    for x, info in zip(maps, backbone.feature_info, strict=True):
        rounded_up = tuple(-(side // -info.reduction) for side in size)
        assert x.shape == (2, info.channels, *rounded_up)


@pytest.mark.parametrize("variant", MIT_DEPTHS)
def test_widths_of_the_variants(variant: str) -> None:
    with torch.device("meta"):
        backbone = mit(variant)
    widths = [32, 64, 160, 256] if variant == "b0" else [64, 128, 320, 512]
    assert [info.channels for info in backbone.feature_info] == widths
    assert [info.reduction for info in backbone.feature_info] == [4, 8, 16, 32]


def test_unknown_variant() -> None:
    with pytest.raises(UnknownNameError, match="b6"):
        mit("b6")


@pytest.mark.parametrize(("backbone", "head"), [("mit_b0", "fcn"), ("mit_b0", "uper"), ("resnet18", "segformer")])
def test_parts_go_with_others(backbone: str, head: str) -> None:
    with torch.device("meta"):
        network = create_segmentor(backbone=backbone, head=head, num_classes=5)
        assert network(torch.empty(1, 3, 64, 96)).shape[:2] == (1, 5)
