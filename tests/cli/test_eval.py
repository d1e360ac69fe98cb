"""`edgeseg eval`: scores, and pictures or label maps that are not right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.evaluation import read_labels
from edgeseg.predictor import Predictor
from tests.cli.conftest import Edgeseg
from tests.runtimes.bundles import make_tiny_bundle, picture


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path)


@pytest.fixture
def data(tmp_path: Path, bundle: Bundle) -> Path:
    """Three pictures and the labels the bundle itself gives them."""
    for name in ("images", "labels", "empty"):
        (tmp_path / name).mkdir()
    with Predictor(bundle) as predictor:
        for index in range(3):
            image = picture((40, 60), index)
            cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), image[..., ::-1])
            cv2.imwrite(str(tmp_path / "labels" / f"{index}.png"), predictor(image).labels)
    return tmp_path


def _words(data: Path) -> list[object]:
    return [data / "tiny.edgeseg", "--images", data / "images", "--labels", data / "labels"]


def test_perfect(data: Path, edgeseg: Edgeseg) -> None:
    done = edgeseg("eval", *_words(data))
    assert done.code == 0, done.err
    assert "mIoU 100.00 %, class average 100.00 %, pixel accuracy 100.00 %" in done.out
    assert "3 pictures on ort, onnxruntime" in done.out
    assert done.err == ""


def test_few_pictures_have_no_interval_and_absent_classes_are_told(data: Path, edgeseg: Edgeseg) -> None:
    found = np.unique(np.stack([read_labels(file) for file in (data / "labels").iterdir()]))
    done = edgeseg("eval", *_words(data))
    assert "no intervals: resampling needs 10 pictures, and 3 were scored" in done.out
    told = f"{4 - len(found)} of 4 classes are neither labelled nor predicted, and in no mean"
    assert (told in done.out) == (len(found) < 4)
    assert "frequency-weighted IoU 100.00 %, boundary IoU 100.00 %" in done.out


def test_enough_pictures_have_an_interval(data: Path, edgeseg: Edgeseg) -> None:
    image = cv2.imread(str(data / "images" / "0.png"))
    labels = cv2.imread(str(data / "labels" / "0.png"), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert labels is not None
    for index in range(10):
        cv2.imwrite(str(data / "images" / f"{index}.png"), image)
        wrong = labels.copy()
        wrong[: 2 * index] = (wrong[: 2 * index] + 1) % 4
        cv2.imwrite(str(data / "labels" / f"{index}.png"), wrong)
    done = edgeseg("eval", *_words(data))
    assert "in brackets: the range of 95 % of 1000 resamplings of the pictures" in done.out
    line = next(line for line in done.out.splitlines() if line.startswith("void ignored: "))
    assert re.search(r"pixel accuracy 77\.50 % \(\d\d\.\d\d to \d\d\.\d\d\), frequency", line), line
    scores = json.loads(edgeseg("eval", *_words(data), "--json").out)["intervals"]["scores"]["void ignored"]
    assert set(scores) == {"mIoU", "pixel accuracy", "frequency-weighted IoU"}
    assert scores["pixel accuracy"][0] < 0.775 < scores["pixel accuracy"][1]


def test_subfolders_and_sizes_reach_the_evaluation(data: Path, edgeseg: Edgeseg) -> None:
    for name in ("images", "labels"):
        (data / name / "deep").mkdir()
        (data / name / "1.png").rename(data / name / "deep" / "1.png")
    assert "2 pictures on ort" in edgeseg("eval", *_words(data)).out
    cv2.imwrite(str(data / "labels" / "0.png"), np.zeros((20, 30), np.uint8))
    done = edgeseg("eval", *_words(data), "--recursive")
    assert (done.code, "3 pictures on ort" in done.out) == (0, True)
    assert done.err == "note: scored at the label map's own size, which is not its picture's (1 label map)\n"


def test_json_is_json_also_without_scores(data: Path, edgeseg: Edgeseg) -> None:
    done = edgeseg("eval", *_words(data), "--target", "onnx", "--json", "--limit", 2)
    found = json.loads(done.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert (found["images"], found["target"], found["failures"]) == (2, "ort", [])
    assert found["scores"]["void ignored"]["mIoU"] == 1.0
    for file in (data / "labels").iterdir():
        cv2.imwrite(str(file), np.full((40, 60), 255, np.uint8))
    done = edgeseg("eval", *_words(data), "--ignore", 255, "--json")
    found = json.loads(done.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["scores"]["void ignored"]["mIoU"] is None


def test_one_unreadable_picture_is_reported_and_the_rest_is_scored(data: Path, edgeseg: Edgeseg) -> None:
    (data / "images" / "1.png").write_bytes(b"not a picture")
    done = edgeseg("eval", *_words(data))
    assert done.code == 9
    assert "2 pictures on ort" in done.out
    assert "mIoU 100.00 %" in done.out
    assert "1.png" in done.err.splitlines()[0]
    assert done.sentence == "1 of 3 pictures failed (named above); the others were scored"


def _hit(file: Path) -> None:
    """Make the checksum of a chunk beside the pixels wrong."""
    data = file.read_bytes()
    chunk = (4).to_bytes(4, "big") + b"tEXt" + b"a\0bc" + bytes(4)
    file.write_bytes(data[:33] + chunk + data[33:])


def test_damaged_files_are_reported_and_scored(data: Path, edgeseg: Edgeseg) -> None:
    _hit(data / "images" / "1.png")
    _hit(data / "labels" / "2.png")
    done = edgeseg("eval", *_words(data), "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["images"] == 3
    assert [Path(item["picture"]).name for item in found["damaged"]] == ["1.png", "2.png"]
    first, second = done.err.splitlines()
    assert first.startswith(f"damaged: {data / 'images' / '1.png'}: its tEXt chunk has a wrong checksum")
    assert f"label map '{data / 'labels' / '2.png'}'" in second
    done = edgeseg("eval", *_words(data), "--strict")
    assert done.code == 9
    assert done.sentence == "2 of 3 pictures failed (named above); the others were scored"
    assert "label map" in done.err.splitlines()[1]


def test_max_pixels_holds_for_pictures_and_label_maps(data: Path, edgeseg: Edgeseg) -> None:
    done = edgeseg("eval", *_words(data), "--max-pixels", 2399)
    assert done.code == 7
    assert "40x60, above 2399 pixels" in done.sentence
    cv2.imwrite(str(data / "labels" / "0.png"), np.zeros((80, 60), np.uint8))
    done = edgeseg("eval", *_words(data), "--max-pixels", 2400)
    assert done.code == 9
    assert "0.png' is 80x60, above 2400 pixels" in done.err


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"--images": "empty"}, 7, "holds no images"),
        ({"--images": "nothing"}, 7, "no folder of pictures at"),
        ({"--labels": "nothing"}, 7, "no folder of label maps at"),
        ({"--labels": "empty"}, 7, "3 of 3 pictures have no label map in"),
        ({"--labels": "images"}, 7, "none of the 3 pictures could be scored; the first: label map"),
        ({"--target": "openvin"}, 2, "did you mean 'openvino'"),
        ({"--target": "openvino"}, 5, "exported for ort"),
        ({"--ignore": "65536"}, 2, "--ignore"),
        ({"--limit": "0"}, 2, "--limit"),
        ({"--threads": "0"}, 2, "--threads"),
        ({"--device": "quantum"}, 2, "device 'quantum'"),
    ],
)
def test_bad_input(change: dict[str, str], code: int, message: str, data: Path, edgeseg: Edgeseg) -> None:
    options = {"--images": "images", "--labels": "labels"} | change
    words: list[object] = []
    for flag, value in options.items():
        words += [flag, data / value if flag in ("--images", "--labels") else value]
    done = edgeseg("eval", data / "tiny.edgeseg", *words)
    assert done.code == code, done.err
    assert message in done.sentence
    assert done.out == ""


def test_label_options_reach_the_evaluation(data: Path, edgeseg: Edgeseg) -> None:
    for file in (data / "labels").iterdir():
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert labels is not None
        cv2.imwrite(str(data / "empty" / f"{file.stem}_L.png"), labels + np.uint8(1))
    words = [data / "tiny.edgeseg", "--images", data / "images", "--labels", data / "empty", "--label-suffix", "_L.png"]
    done = edgeseg("eval", *words, "--reduce-zero-label")
    assert (done.code, done.err) == (0, "")
    assert "mIoU 100.00 %" in done.out
    (data / "map.csv").write_text("1,0\n2,1\n3,2\n4,3\n", encoding="utf-8")
    done = edgeseg("eval", *words, "--label-map", data / "map.csv")
    assert (done.code, done.err) == (0, "")
    assert "mIoU 100.00 %" in done.out
    done = edgeseg("eval", *words, "--label-map", data / "map.csv", "--reduce-zero-label")
    assert done.code == 2
    assert "each say what a label value means" in done.sentence


def test_a_pair_that_cannot_be_scored_is_named(data: Path, edgeseg: Edgeseg) -> None:
    cv2.imwrite(str(data / "labels" / "0.png"), np.full((40, 60), 200, np.uint8))
    (data / "labels" / "2.png").unlink()
    done = edgeseg("eval", *_words(data))
    assert done.code == 9
    assert "1 pictures on ort" in done.out
    first, second = done.err.splitlines()[:2]
    assert "0.png': the label map holds 200, expected 0..3; name the void label with --ignore" in first
    assert "cannot read label map" in second
    assert done.sentence == "2 of 3 pictures failed (named above); the others were scored"


def test_a_data_set_and_two_folders_exclude_one_another(data: Path, edgeseg: Edgeseg) -> None:
    done = edgeseg("eval", data / "tiny.edgeseg", "--dataset", "binary", data, "--images", data / "images")
    assert done.code == 2
    assert "leave --images and --labels out" in done.sentence
    done = edgeseg("eval", data / "tiny.edgeseg")
    assert done.code == 2
    assert done.sentence == "give --images and --labels, or --dataset NAME ROOT (edgeseg eval --help)"
    done = edgeseg("eval", data / "tiny.edgeseg", "--dataset", "binary", data)
    assert done.code == 2
    assert "data set binary has 2 classes, the network 4" in done.sentence
    done = edgeseg("eval", data / "tiny.edgeseg", "--dataset", "city", data)
    assert done.code == 2
    assert "did you mean 'cityscapes'" in done.sentence


def test_folders_of_folders_are_explained(data: Path, edgeseg: Edgeseg) -> None:
    for name in ("leftImg8bit/val/ulm", "gtFine/val/ulm"):
        (data / name).mkdir(parents=True)
    folders = ["--images", data / "leftImg8bit" / "val", "--labels", data / "gtFine" / "val"]
    done = edgeseg("eval", data / "tiny.edgeseg", *folders)
    assert done.code == 7
    assert f"use --dataset cityscapes '{data}'" in done.sentence
    assert "--recursive" not in done.sentence
