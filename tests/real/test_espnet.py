"""ESPNet with its published Cityscapes weights on real frames, fp32, 512x1024."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import edgeseg
from edgeseg.evaluation import read_labels
from edgeseg.export.deploy import DeployNetwork
from edgeseg.images import fit_image, read_image
from edgeseg.metrics import ConfusionMatrix, agreement
from edgeseg.models import create_model, model_spec
from edgeseg.postprocess import labels_from_logits
from tests.real.conftest import Export

SIZE = (512, 1024)
TARGETS = ["ort", "openvino"]
FRAMES = ["frankfurt_000000_000294", "frankfurt_000000_000576", "frankfurt_000001_058914"]
LABELLED = FRAMES[2]
CHECKPOINT = "decoder_espnet_p_2_q_8.pth"


def _picture(shared: Path, frame: str) -> Path:
    return shared / "real" / "cityscapes" / f"{frame}_leftImg8bit.png"


@pytest.fixture(scope="session")
def bundle(export_real: Export) -> Path:
    return export_real("espnet_p2_q8", CHECKPOINT, SIZE)


@pytest.mark.parametrize("frame", [LABELLED, *(pytest.param(frame, marks=pytest.mark.slow) for frame in FRAMES[:2])])
def test_labels_are_those_of_fp32_pytorch(frame: str, bundle: Path, shared: Path, real_weights: Path) -> None:
    spec = model_spec("espnet_p2_q8")
    network = DeployNetwork(create_model("espnet_p2_q8", weights=real_weights / CHECKPOINT), spec.input).eval()
    picture = fit_image(read_image(_picture(shared, frame)), SIZE, spec.resize)[0]
    with torch.inference_mode():
        logits = network(torch.from_numpy(picture[None]))[0].numpy()
    expected = labels_from_logits(logits, SIZE, postprocess=spec.postprocess)
    for target in TARGETS:
        with edgeseg.Predictor(bundle, target, output="network") as predictor:
            differing, total = agreement(expected, predictor(_picture(shared, frame)).labels)
        assert total == 524_288
        assert differing <= 5, target


@pytest.mark.parametrize("target", TARGETS)
def test_labels_agree_with_the_published_class_maps(target: str, bundle: Path, shared: Path) -> None:
    """The published script resizes after normalising, in floats; on uint8 it moves up to 0.36 % of the labels."""
    with edgeseg.Predictor(bundle, target, output="network") as predictor:
        for frame in FRAMES:
            published = read_labels(shared / "real" / "espnet" / f"espnet_p2_q8__{frame}.png")
            differing, total = agreement(published, predictor(_picture(shared, frame)).labels)
            assert 1 - differing / total >= 0.995, frame


@pytest.mark.parametrize("target", TARGETS)
def test_accuracy_on_ground_truth_is_the_recorded_one(target: str, bundle: Path, shared: Path) -> None:
    record = json.loads((shared / "real" / "espnet" / "espnet_real.json").read_text())
    runs = [run for run in record["runs"] if run["model"] == "espnet_p2_q8" and run["frame"].startswith(LABELLED)]
    (score,) = [run["score_vs_ground_truth"] for run in runs]
    truth = read_labels(shared / "real" / "cityscapes" / f"{LABELLED}_gtFine_labelTrainIds.png")
    with edgeseg.Predictor(bundle, target, output="network") as predictor:
        labels = predictor(_picture(shared, LABELLED)).labels
    matrix = ConfusionMatrix(19)
    matrix.update(truth, np.kron(labels, np.ones((2, 2), np.uint8)), ignore=255)  # nearest, as the record has it
    present = matrix.counts.sum(axis=1) > 0
    assert present.sum() == score["present_classes"]
    assert matrix.pixel_accuracy == pytest.approx(score["pixel_accuracy"], abs=0.002)
    assert np.mean(matrix.iou[present]) == pytest.approx(score["mean_iou_over_present_classes"], abs=0.002)
