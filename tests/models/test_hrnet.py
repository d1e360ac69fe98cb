"""HRNet as a backbone: the maps that it declares, at sizes that do not halve evenly."""

from __future__ import annotations

import pytest
import torch

from edgeseg.models.backbones.hrnet import HRNet, HRStage, hrnet
from edgeseg.models.layers.residual import WideBottleneck


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (141, 203)])
def test_maps_are_those_declared(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = hrnet(18, small=True).eval()
        maps = network(torch.empty(1, 3, *size))
    assert [info.reduction for info in network.feature_info] == [4, 8, 16, 32]
    for x, info in zip(maps, network.feature_info, strict=True):
        height, width = (-(side // -info.reduction) for side in size)
        assert tuple(x.shape) == (1, info.channels, height, width)


def test_widths_follow_from_the_finest() -> None:
    with torch.device("meta"):
        assert [info.channels for info in hrnet(32).feature_info] == [32, 64, 128, 256]


def test_stages_of_bottlenecks() -> None:
    stages = (HRStage(1, (4, 8), (1, 2), WideBottleneck),)
    with torch.device("meta"):
        network = HRNet(1, stages).eval()
        maps = network(torch.empty(1, 3, 32, 32))
    assert [x.shape[1] for x in maps] == [16, 32]
    assert "transition1.1.0.0.weight" in network.state_dict()
