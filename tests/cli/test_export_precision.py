"""`edgeseg export --precision`: what is printed, what is refused, and that `verify` accepts the bundle."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgeseg.predictor import Predictor
from tests.cli.conftest import Edgeseg
from tests.export.precision.pictures import write_pictures

TINY = "tests.export.networks:tiny"


def test_int8(edgeseg: Edgeseg, tmp_path: Path) -> None:
    calib = write_pictures(tmp_path / "calib", 6)
    words = ["--size", "32x48", "--precision", "int8", "--calib", calib, "--min-agreement", 0.9, "--force"]
    done = edgeseg("export", TINY, *words, "--out", tmp_path)
    assert done.code == 0, done.err
    assert "5 calibration pictures, scored on 1 others" in done.out
    assert "labels equal to fp32" in done.out
    assert edgeseg("verify", tmp_path / "tiny.edgeseg").code == 0


def test_a_data_set_to_calibrate_on(edgeseg: Edgeseg, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    images = write_pictures(tmp_path / "root" / "images", 4)
    (tmp_path / "root" / "masks").mkdir()
    for file in images.iterdir():
        mask = np.zeros((40, 60), np.uint8)
        mask[:, 20:], mask[:, 30:] = 200, 255
        cv2.imwrite(str(tmp_path / "root" / "masks" / file.name), mask)
    words = ["--size", "32x48", "--precision", "fp16", "--min-agreement", 0, "--force", "--out", tmp_path]
    network = "tests.export.networks:two_classes"
    done = edgeseg("export", network, *words, "--calib-dataset", "binary", tmp_path / "root")
    assert done.code == 0, done.err
    assert "mIoU (fp32)" in done.out
    assert "label value 200 is cut at half: class 1 from 128 on" in done.out
    assert "calibrated on pictures of binary that eval --dataset scores; publish no figures of them" in done.out


def test_label_maps_that_are_read_wrongly_are_told(edgeseg: Edgeseg, tmp_path: Path) -> None:
    """0 is void and k + 1 means class k, and nobody said so: the loss of mIoU alone would look like none."""
    calib = write_pictures(tmp_path / "calib", 4)
    done = edgeseg("export", TINY, "--size", "32x48", "--out", tmp_path)
    assert done.code == 0, done.err
    (tmp_path / "labels").mkdir()
    with Predictor(tmp_path / "tiny.edgeseg") as predictor:
        for file in calib.iterdir():
            cv2.imwrite(str(tmp_path / "labels" / file.name), np.minimum(predictor(file).labels, 3) + np.uint8(1))
    words = [
        "--size",
        "32x48",
        "--precision",
        "fp16",
        "--force",
        "--calib",
        calib,
        "--calib-labels",
        tmp_path / "labels",
    ]
    done = edgeseg("export", TINY, *words, "--max-miou-drop", 0.1, "--out", tmp_path / "fp16")
    assert "check them, see --calib-reduce-zero-label" in done.out


def test_label_options_need_label_maps(edgeseg: Edgeseg, tmp_path: Path) -> None:
    calib = write_pictures(tmp_path / "calib", 2)
    words = ["--size", "32x48", "--precision", "int8", "--out", tmp_path / "out"]
    done = edgeseg("export", TINY, *words, "--calib", calib, "--calib-label-suffix", "_gt.png")
    assert (done.code, done.sentence) == (
        2,
        "--calib-label-suffix concerns label maps of pictures; give --calib-labels too, or --calib-dataset NAME ROOT",
    )
    done = edgeseg("export", TINY, *words, "--calib-labels", calib)
    assert (done.code, done.sentence) == (
        2,
        "--calib-labels concerns label maps of pictures; give --calib too, or --calib-dataset NAME ROOT",
    )
    done = edgeseg("export", TINY, *words, "--calib", calib, "--calib-dataset", "voc", calib)
    assert done.sentence == "--calib-dataset NAME ROOT finds both folders itself; leave --calib and --calib-labels out"


def test_without_calibration_pictures(edgeseg: Edgeseg, tmp_path: Path) -> None:
    done = edgeseg("export", TINY, "--size", "32x48", "--precision", "int8", "--out", tmp_path)
    assert done.code == 2
    assert "give a folder of pictures" in done.sentence
    assert not list(tmp_path.iterdir())


def test_empty_folder(edgeseg: Edgeseg, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = edgeseg("export", TINY, "--size", "32x48", "--precision", "int8", "--calib", empty, "--out", tmp_path)
    assert done.code == 7
    assert "holds no images" in done.sentence


def test_files_that_are_no_pictures_of_the_calibration_are_told(tmp_path: Path) -> None:
    from edgeseg.export.config import ExportConfig
    from edgeseg.export.job import prepare_job
    from edgeseg.models.source import resolve_network
    from tests.export.precision.pictures import write_pictures

    folder = write_pictures(tmp_path, 4)
    (folder / "readme.txt").write_text("of no picture", encoding="utf-8")
    config = ExportConfig(size=(32, 48), precision="fp16", calib=folder)
    notes = prepare_job(resolve_network("tests.export.networks:tiny"), config).notes
    assert "passed over: 1 file that is no picture (readme.txt)" in notes
