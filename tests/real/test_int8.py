"""int8 of real networks on real pictures: ESPNet on the CamVid test set, SINet on portraits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgeseg
from edgeseg.evaluation import LabelledPictures, evaluate_bundle, read_labels
from edgeseg.export.report import ExportReport

pytestmark = [pytest.mark.slow, pytest.mark.real]
CPU_TARGETS = ("ort", "openvino")


@pytest.fixture(scope="module")
def espnet(shared: Path, real_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    folder = shared / "camvid"
    if not folder.is_dir():
        pytest.skip("CamVid is not beside the checkout")
    return edgeseg.export_model(
        "espnet_p2_q8_trainvariant",
        weights=real_weights / "decoder_espnet_p_2_q_8_camvid.pth",
        size=(360, 480),
        targets=CPU_TARGETS,
        precision="int8",
        calib=folder / "calib" / "images",
        min_agreement=0.9865,
        force=True,  # whether it is faster is for benchmarks to say
        out=tmp_path_factory.mktemp("espnet"),
    )


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_espnet_loses_at_most_half_a_point_on_camvid(target: str, espnet: ExportReport, shared: Path) -> None:
    test = shared / "camvid" / "test"
    data = LabelledPictures(test / "images", test / "labels", ignore=11)
    scores = evaluate_bundle(espnet.path, data, target=target).scores()
    assert 100 * scores["void ignored"]["mIoU"] >= 57.18 - 0.5


def test_espnet_keeps_few_operators_in_fp32(espnet: ExportReport) -> None:
    found = espnet.precision
    assert found is not None
    assert found.lowered > 3 * len(found.kept)


def test_sinet_keeps_its_portraits(shared: Path, real_weights: Path, tmp_path: Path) -> None:
    people, folder = shared / "people" / "images", shared / "real" / "portrait"
    if not people.is_dir():
        pytest.skip("the photographs of people are not beside the checkout")
    calib = tmp_path / "calib"
    calib.mkdir()
    for file in sorted(people.iterdir())[::70]:
        (calib / file.name).write_bytes(file.read_bytes())
    report = edgeseg.export_model(
        "sinet",
        weights=real_weights / "SINet.pth",
        targets=CPU_TARGETS,
        precision="int8",
        calib=calib,
        min_agreement=0.99,
        force=True,  # SINet is too small to be faster in int8, and acceptance says so
        out=tmp_path,
    )
    for target in CPU_TARGETS:
        shares = []
        with edgeseg.Predictor(report.path, target, output="network") as predictor:
            for picture in sorted((folder / "images").iterdir()):
                expected = read_labels(folder / "expected" / f"sinet__{picture.stem}__demo.png", positive_label=255)
                shares.append(np.mean(predictor(picture).labels == expected))
        assert np.mean(shares) >= 0.99, target
