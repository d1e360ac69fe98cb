"""PSA, criss-cross, OCR and LRASPP heads against the definitions that their lowered forms stand for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from edgeseg.errors import SizeError, UsageError
from edgeseg.models.heads.cc import CrissCrossAttention
from edgeseg.models.heads.lraspp import LRASPPHead
from edgeseg.models.heads.ocr import OCRHead, region_features
from edgeseg.models.heads.psa import Direction, PSAHead, around_to_absolute
from edgeseg.models.heads.registry import build_from_config
from edgeseg.models.segmentor import create_segmentor

EXACT = 1e-10


def _randn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _worst(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).detach().abs().max())


def _psa_mask(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """What each place says of all, place by place."""
    n, _, h, w = masks.shape
    out = masks.new_zeros(n, h, w, h, w)
    split = masks.reshape(n, *size, h, w)
    for y in range(h):
        for x in range(w):
            for i in range(size[0]):
                for j in range(size[1]):
                    row, column = y + i - (size[0] - 1) // 2, x + j - (size[1] - 1) // 2
                    if 0 <= row < h and 0 <= column < w:
                        out[:, y, x, row, column] = split[:, i, j, y, x]
    return out.reshape(n, h * w, h * w)


@pytest.mark.parametrize("mask", [(1, 1), (3, 5), (4, 2), (9, 11), (13, 12), (20, 4)])
@pytest.mark.parametrize("size", [(5, 6), (1, 4), (3, 1), (1, 1), (7, 2)])
def test_masks_around_become_masks_of_all(mask: tuple[int, int], size: tuple[int, int]) -> None:
    masks = _randn(2, mask[0] * mask[1], *size)
    assert torch.equal(around_to_absolute(masks, mask), _psa_mask(masks, mask))


def _psa(**options: Any) -> PSAHead:
    fixed: dict[str, Any] = {"in_channels": 6, "channels": 4, "num_classes": 3, "mask_size": (5, 3)}
    return PSAHead(**{**fixed, **options}).double().eval()


@pytest.mark.parametrize("psa_type", ["collect", "distribute"])
@pytest.mark.parametrize("psa_softmax", [False, True])
def test_who_gives_and_who_takes(psa_type: Direction, psa_softmax: bool) -> None:
    head = _psa(psa_type=psa_type, psa_softmax=psa_softmax, shrink_factor=1, normalization_factor=2.0)
    x = _randn(2, 6, 4, 5)
    reduced = head.reduce(x)
    absolute = _psa_mask(head.attention(reduced), (5, 3))  # [who tells, of whom]
    sources = absolute.transpose(1, 2) if psa_type == "collect" else absolute  # [who gives, who takes]
    sources = sources.softmax(dim=1) if psa_softmax else sources
    want = (reduced.flatten(2) @ sources / 2).reshape(reduced.shape)
    assert _worst(head._attended(x, head.reduce, head.attention, psa_type), want) < EXACT


@pytest.mark.parametrize(
    ("psa_type", "direction", "transposed"),
    [
        ("bi-direction", "collect", False),
        ("bi-direction", "distribute", True),
        ("collect", "collect", True),
        ("distribute", "distribute", False),
    ],
)
def test_compact_masks_are_transposed_as_published(psa_type: str, direction: Direction, transposed: bool) -> None:
    head = _psa(psa_type=psa_type, compact=True, mask_size=(4, 5))
    masks = _randn(2, 20, 4, 5)
    sources = masks.reshape(2, 20, 20)
    sources = sources.transpose(1, 2) if transposed else sources
    assert _worst(head._weights(masks, direction), sources.softmax(dim=1).transpose(1, 2)) < EXACT


@pytest.mark.parametrize(
    ("size", "shrink", "want"),
    [
        ((16, 32), 2, ((8, 16), False)),
        ((13, 22), 2, ((6, 11), False)),
        ((13, 23), 2, ((7, 12), True)),
        ((13, 23), 1, ((13, 23), False)),
        ((14, 23), 3, ((5, 8), True)),
    ],
)
def test_size_of_the_smaller_map(size: tuple[int, int], shrink: int, want: object) -> None:
    assert _psa(shrink_factor=shrink)._shrunk(*size) == want


def test_psa_options_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="bi-direction"):
        _psa(psa_type="both")
    with pytest.raises(UsageError, match="2x3"):
        _psa(compact=True, mask_size=(2, 3))([_randn(1, 6, 8, 8)])


@pytest.mark.parametrize("size", [(4, 5), (1, 6), (5, 1)])
def test_criss_cross_attention_place_by_place(size: tuple[int, int]) -> None:
    block, x = CrissCrossAttention(16).double().eval(), _randn(2, 16, *size)
    block.gamma.scale.data.fill_(0.7)
    query, key, value = block.query_conv(x), block.key_conv(x), block.value_conv(x)
    want = torch.empty_like(x)
    for row in range(size[0]):
        for column in range(size[1]):
            others = [k for k in range(size[0]) if k != row]
            keys = torch.cat((key[:, :, row], key[:, :, others, column]), dim=2)
            values = torch.cat((value[:, :, row], value[:, :, others, column]), dim=2)
            weights = (query[:, :, row, column][:, None] @ keys).softmax(dim=-1)
            want[:, :, row, column] = 0.7 * (weights @ values.transpose(1, 2))[:, 0] + x[:, :, row, column]
    assert _worst(block(x), want) < EXACT


def test_recurrence_repeats_with_the_same_weights() -> None:
    config = {"type": "CCHead", "in_channels": 4, "channels": 8, "num_classes": 2}
    once, twice = (build_from_config(config, recurrence=k) for k in (1, 2))
    assert set(once.state_dict()) == set(twice.state_dict())


def test_region_features_are_weighted_averages() -> None:
    x, logits = _randn(2, 5, 3, 4), _randn(2, 3, 3, 4)
    got = region_features(x, logits)
    weights = logits.flatten(2).softmax(dim=2)
    want = (weights[1, 2] * x[1, 4].flatten()).sum()
    assert got.shape == (2, 5, 3, 1)
    assert float((got[1, 4, 2, 0] - want).abs()) < EXACT


def test_ocr_has_one_scale() -> None:
    with pytest.raises(UsageError, match="scale 2"):
        OCRHead(in_channels=4, channels=4, ocr_channels=2, num_classes=2, scale=2)


def test_ocr_refines_an_fcn_head() -> None:
    with torch.device("meta"):
        network = create_segmentor(backbone="hrnet_w18_small", head="ocr", coarse_head="fcn", num_classes=3)
        assert network(torch.empty(2, 3, 64, 96)).shape == (2, 3, 2, 3)


def test_ocr_reads_all_maps_of_hrnet() -> None:
    joined: dict[str, Any] = {
        "in_channels": (18, 36, 72, 144),
        "in_index": (0, 1, 2, 3),
        "input_transform": "resize_concat",
    }
    with torch.device("meta"):
        network = create_segmentor(
            backbone="hrnet_w18_small", head="ocr", coarse_head="fcn", num_classes=3, channels=64, ocr_channels=32,
            coarse_options={**joined, "channels": 270}, **joined,
        )  # fmt: skip
        assert network(torch.empty(2, 3, 65, 97)).shape == (2, 3, 17, 25)


def test_lraspp_needs_a_large_map() -> None:
    head = LRASPPHead(in_channels=(4, 6, 8), in_index=(0, 1, 2), channels=4, num_classes=2).eval()
    maps = [torch.zeros(1, 4, 104, 100), torch.zeros(1, 6, 104, 100), torch.zeros(1, 8, 52, 50)]
    with torch.no_grad():
        assert head(maps).shape == (1, 2, 104, 100)
    with pytest.raises(SizeError, match="48x50"):
        head([*maps[:2], maps[2][:, :, :48]])


def test_lraspp_branches_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="branch_channels"):
        LRASPPHead(in_channels=(4, 8), in_index=(0, 1), channels=4, num_classes=2)
    with pytest.raises(UsageError, match="resize_concat"):
        LRASPPHead(
            in_channels=(4, 4, 8), in_index=(0, 1, 2), channels=4, num_classes=2, input_transform="resize_concat"
        )


def test_lraspp_on_any_backbone() -> None:
    with torch.device("meta"):
        network = create_segmentor(backbone="resnet18_v1c", head="lraspp", num_classes=3, output_stride=8)
        assert network(torch.empty(1, 3, 400, 408)).shape == (1, 3, 100, 102)
