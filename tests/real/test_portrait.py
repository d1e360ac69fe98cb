"""SINet and ExtremeC3 with their published weights on six portraits: the published masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import edgeseg
from edgeseg.evaluation import read_labels
from edgeseg.images import read_image
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
            resized = cv2.resize(read_image(picture), (224, 224), interpolation=cv2.INTER_LINEAR)  # as they were made
            assert np.count_nonzero(predictor(resized).labels != expected) == 0, picture.name
            assert np.mean(predictor(picture).labels != expected) < 0.003, picture.name  # by our own filter
