"""EdgeNets' ESPNetv2 and SINet with their published Cityscapes weights: the published class maps, from bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgeseg
from edgeseg.evaluation import read_labels
from edgeseg.metrics import agreement
from tests.real.conftest import Export

FRAMES = ["frankfurt_000000_000294", "frankfurt_000000_000576", "frankfurt_000001_058914"]
ESPNETV2 = "espnetv2_edgenets/espnetv2_s_{}_city_1024x512.pth"
CASES = {
    "espnetv2_edgenets_s0_5": (ESPNETV2.format("0.5"), "espnetv2", (512, 1024)),
    "espnetv2_edgenets_s1_0": (ESPNETV2.format("1.0"), "espnetv2", (512, 1024)),
    "sinet_cityscapes": ("SINet_cityscapes.pth", "sinet_cityscapes", (1024, 2048)),
}
SLOW = ("espnetv2_edgenets_s1_0", "sinet_cityscapes")


@pytest.mark.parametrize("target", ["ort", "openvino"])
@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES]
)
def test_labels_are_the_published_class_maps(network: str, target: str, export_real: Export, shared: Path) -> None:
    checkpoint, folder, size = CASES[network]
    bundle = export_real(network, checkpoint, size)
    with edgeseg.Predictor(bundle, target, output="network") as predictor:
        for frame in FRAMES:
            published = read_labels(shared / "real" / folder / f"{network}__{frame}.png")
            picture = shared / "real" / "cityscapes" / f"{frame}_leftImg8bit.png"
            differing, total = agreement(published, predictor(picture).labels)
            assert total == size[0] * size[1]
            assert differing <= 20, frame  # float32 against float64 alone moves up to 4
