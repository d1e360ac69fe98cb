"""SINet and ExtremeC3 with their published weights on six portraits: the published masks, pixel for pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgeseg
from edgeseg.evaluation import read_labels
from tests.real.conftest import Export

WEIGHTS = {"sinet": "SINet.pth", "extremec3net": "ExtremeC3.pth"}


@pytest.mark.parametrize("target", ["ort", "openvino"])
@pytest.mark.parametrize("network", list(WEIGHTS))
def test_masks_are_the_published_ones(network: str, target: str, export_real: Export, shared: Path) -> None:
    bundle = export_real(network, WEIGHTS[network], (224, 224))
    folder = shared / "real" / "portrait"
    pictures = sorted((folder / "images").iterdir())
    assert len(pictures) == 6
    with edgeseg.Predictor(bundle, target, output="network") as predictor:
        for picture in pictures:
            expected = read_labels(folder / "expected" / f"{network}__{picture.stem}__demo.png", positive_label=255)
            assert np.count_nonzero(predictor(picture).labels != expected) == 0, picture.name
