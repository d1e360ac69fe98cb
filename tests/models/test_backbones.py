"""Every backbone's maps against what it declares, and what the classification networks and PortraitNet promise."""

from __future__ import annotations

import pytest
import torch

from edgeseg.errors import UsageError
from edgeseg.models import create_model, list_models
from edgeseg.models.families.parsenet import bilinear_kernel
from edgeseg.models.families.portraitnet import PortraitNet
from edgeseg.models.features import Backbone, Features
from edgeseg.models.layers.norm import L2Norm
from edgeseg.models.layers.width import make_divisible
from edgeseg.models.registry import build_on_meta

BACKBONES = [name for name in list_models() if isinstance(build_on_meta(name), Backbone)]
SIZE = (192, 320)


@pytest.mark.parametrize("name", BACKBONES)
def test_maps_are_those_declared(name: str) -> None:
    backbone = Features(build_on_meta(name)).eval()
    with torch.no_grad():
        maps = backbone(torch.empty(1, 3, *SIZE, device="meta"))
    assert [x.shape[1] for x in maps] == [info.channels for info in backbone.feature_info]
    for x, info in zip(maps, backbone.feature_info, strict=True):
        for got, side in zip(x.shape[2:], SIZE, strict=True):
            assert abs(got * info.reduction - side) < 4 * info.reduction  # Xception's stem is not padded


def test_a_network_without_maps_is_no_backbone() -> None:
    with pytest.raises(UsageError, match="declares no features"):
        create_model("portraitnet", features_only=True)


@pytest.mark.parametrize("size", [(224, 224), (65, 130)])
def test_classifiers_take_any_size(size: tuple[int, int]) -> None:
    for name in ("shufflenet_v1_g3_0_5x", "shufflenet_v2_0_5x", "ghostnet_0_5x", "xception"):
        with torch.no_grad():
            logits = build_on_meta(name, 7).eval()(torch.empty(3, 3, *size, device="meta"))
        assert logits.shape == (3, 7)


def test_unit_vectors_are_exact_and_hold_in_half_precision() -> None:
    norm, x = L2Norm(6).double(), torch.randn(2, 6, 3, 4, dtype=torch.float64)
    wanted = 10.0 * x / torch.sqrt((x * x).sum(dim=1, keepdim=True) + 1e-10)
    torch.testing.assert_close(norm(x), wanted, rtol=1e-15, atol=0)
    large = torch.full((1, 1024, 1, 1), 200.0, dtype=torch.float16)  # its square does not fit
    torch.testing.assert_close(L2Norm(1024).half()(large), torch.full_like(large, 10.0 / 32.0), rtol=1e-2, atol=0)


@pytest.mark.parametrize(("value", "want"), [(16 * 0.5, 8), (1.0, 4), (16 * 1.3, 20), (18.0, 20), (184 * 1.3, 240)])
def test_make_divisible(value: float, want: int) -> None:
    assert make_divisible(value, 4) == want


def test_deconvolution_starts_as_bilinear_interpolation() -> None:
    kernel = bilinear_kernel(16)
    for row in range(8):
        for column in range(8):
            assert float(kernel[row::8, column::8].sum()) == pytest.approx(1.0, abs=1e-12)


def test_first_frame_of_a_video_has_no_previous_mask() -> None:
    network = PortraitNet(channels=4).double().eval()
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        wanted = network(torch.cat((image, torch.zeros(1, 1, 64, 96, dtype=torch.float64)), dim=1))
        torch.testing.assert_close(network(image), wanted, rtol=0, atol=1e-12)


def test_boundary_head_is_built_on_request() -> None:
    network, image = PortraitNet(aux=True).eval(), torch.zeros(1, 3, 32, 64)
    with torch.no_grad():
        logits, edge = network.forward_train(image)
        torch.testing.assert_close(logits, network(image), rtol=0, atol=0)
    assert edge.shape == logits.shape
    with pytest.raises(UsageError, match="aux=True"):
        PortraitNet().forward_train(image)
