"""ResNet in its forms, and the networks that vary it, where no golden record reaches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.export.fusion import fuse
from edgeseg.models.backbones.resnet import ResNet
from edgeseg.models.families.fanet import FANet
from edgeseg.models.families.shelfnet import SBlock, ShelfNet, ShelfNetLight
from edgeseg.models.families.swiftnet import SwiftNet
from edgeseg.models.features import Features
from edgeseg.models.layers.norm import AbsBatchNorm


def _dilation(conv: nn.Module) -> int:
    assert isinstance(conv, nn.Conv2d)
    return conv.dilation[0]


def _shapes(maps: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(x.shape[1:]) for x in maps]


@pytest.mark.parametrize(
    "network",
    [
        lambda: ResNet(18),
        lambda: ResNet(34, stem="deep"),
        lambda: ResNet(50, stem="deep", strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), avg_down=True),
        lambda: ResNet(101, strides=(2, 2, 2, 2)),
    ],
    ids=["18", "34-deep", "50-stride-8", "101-all-stride"],
)
def test_maps_are_as_declared(network: Callable[[], ResNet]) -> None:
    with torch.device("meta"):
        backbone = network().eval()
        image = torch.empty(1, 3, 96, 160)
    want = [(info.channels, -(-96 // info.reduction), -(-160 // info.reduction)) for info in backbone.feature_info]
    assert _shapes(Features(backbone)(image)) == want == _shapes(backbone(image))


@pytest.mark.parametrize(("depth", "convs"), [(18, ("conv1",)), (50, ("conv2",))])
def test_first_block_of_a_dilated_stage_has_half_the_dilation(depth: int, convs: tuple[str, ...]) -> None:
    with torch.device("meta"):
        network = ResNet(depth, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    for name, first, rest in (("layer3", 1, 2), ("layer4", 2, 4)):
        blocks = list(network.get_submodule(name).children())
        for key in ("conv1", "conv2"):
            found = [_dilation(block.get_submodule(key)) for block in blocks]
            assert found == ([first] + [rest] * (len(blocks) - 1) if key in convs else [1] * len(blocks))


def test_keys_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        keys = set(ResNet(50).state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.downsample.1.bias", "layer4.2.conv3.weight"} <= keys
    assert not any(key.startswith(("fc", "stem")) for key in keys)


def test_absolute_scale_survives_fusion() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3), AbsBatchNorm(4)
    row = nn.Sequential(conv, norm).double().eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([-2.0, -0.5, 0.0, 1.5]))
        norm.get_buffer("running_mean").normal_()
    x = torch.randn(1, 3, 6, 7, dtype=torch.float64)
    flat = conv(x) - norm.get_buffer("running_mean")[:, None, None]
    want = flat / (1.0 + 1e-5) ** 0.5 * (norm.weight.abs() + 1e-5)[:, None, None]
    torch.testing.assert_close(row(x), want, rtol=0, atol=1e-13)
    fused, report = fuse(row, x)
    assert report.batch_norms == (1, 0)
    torch.testing.assert_close(fused(x), want, rtol=0, atol=1e-13)


def test_shared_convolution_becomes_two() -> None:
    block = SBlock(4, light=True).double().eval()
    assert "second.weight" not in block.state_dict()
    with torch.no_grad():
        block.bn1.get_buffer("running_mean").fill_(0.3)
        block.bn2.get_buffer("running_mean").fill_(-0.2)
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    fused, report = fuse(block, x)
    assert report.batch_norms == (2, 0)
    torch.testing.assert_close(fused(x), block(x), rtol=0, atol=1e-13)


def test_swiftnet_keeps_the_normalisation_of_a_checkpoint() -> None:
    network = SwiftNet(3).double().eval()
    image = torch.rand(1, 3, 32, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 255.0
    backbone = network.backbone
    mean, std = backbone.get_buffer("img_mean"), backbone.get_buffer("img_std")
    normalised = (image - mean) / std
    assert torch.equal(backbone.own_input(normalised), normalised)
    mean.copy_(torch.tensor([70.0, 80.0, 90.0]).view(1, 3, 1, 1))
    std.copy_(torch.tensor([44.9, 46.2, 45.3]).view(1, 3, 1, 1))
    torch.testing.assert_close(backbone.own_input(normalised), (image - mean) / std, rtol=0, atol=1e-5)
    fused, _ = fuse(network, normalised)
    assert fused.get_buffer("backbone.img_std") is not None


@pytest.mark.parametrize(
    ("network", "strides"), [(ShelfNetLight, (8, 16, 32)), (ShelfNet, (4, 16)), (FANet, (8, 32, 64))]
)
def test_training_heads_need_aux(network: type[FANet], strides: tuple[int, ...]) -> None:
    with torch.device("meta"):
        image = torch.empty(2, 3, 64, 128)
        with pytest.raises(UsageError, match="aux=True"):
            network(5).forward_train(image)
        outputs = network(5, aux=True).forward_train(image)
    assert [tuple(x.shape) for x in outputs] == [(2, 5, -(-64 // s), -(-128 // s)) for s in strides]


def test_training_head_does_not_change_the_logits() -> None:
    torch.manual_seed(0)
    network = FANet(4, aux=True).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), network.forward_train(image)[0], rtol=0, atol=0)
