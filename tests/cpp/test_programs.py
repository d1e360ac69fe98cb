"""The programs of ``cpp/``: built as docs/cpp.md says, on bundles of every kind; labels equal to the Predictor's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg import Predictor
from edgeseg.specs import ResizeRule
from tests.cpp.compilers import CPP, json_headers
from tests.runtimes.bundles import make_tiny_bundle, picture

PICTURE_SIZE = (75, 110)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that cmake built the programs in."""
    openvino = pytest.importorskip("openvino")
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    folder = tmp_path_factory.mktemp("programs")
    options = [
        f"-DOpenVINO_DIR={Path(openvino.__file__).parent / 'cmake'}",
        f"-DNLOHMANN_JSON_INCLUDE={json_headers()}",
        *(
            f"-D{name}={os.environ[name]}"
            for name in ("ONNXRUNTIME_INCLUDE", "ONNXRUNTIME_LIBRARY")
            if name in os.environ
        ),
    ]
    configured = subprocess.run(["cmake", "-S", CPP, "-B", folder, *options], capture_output=True, text=True)
    if "Could NOT find PNG" in configured.stderr:
        pytest.skip("needs libpng's headers")
    assert configured.returncode == 0, configured.stderr
    subprocess.run(["cmake", "--build", folder, "--parallel", "2"], check=True, capture_output=True)
    return folder


def call(program: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program; without PATH and the like, as a device would."""
    return subprocess.run([program, *words], capture_output=True, text=True)


def write_picture(path: Path) -> Path:
    assert cv2.imwrite(str(path), cv2.cvtColor(picture(PICTURE_SIZE, seed=3), cv2.COLOR_RGB2BGR))
    return path


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"align_corners": True},
        {"num_classes": 1, "threshold": 0.5},
        {"num_classes": 300},
        {"resize": ResizeRule("letterbox", pad_value=(114, 7, 30))},
    ],
    ids=["plain", "align_corners", "one class", "wide labels", "letterbox"],
)
@pytest.mark.parametrize(("program", "target"), [("edgeseg-openvino", "openvino"), ("edgeseg-onnxruntime", "ort")])
def test_labels_are_those_of_the_predictor(
    programs: Path, tmp_path: Path, kind: dict[str, object], program: str, target: str
) -> None:
    if not (programs / program).exists():
        pytest.skip("needs ONNX Runtime's headers: set ONNXRUNTIME_INCLUDE and ONNXRUNTIME_LIBRARY")
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "openvino"), **kind)  # type: ignore[arg-type]
    source, labels = write_picture(tmp_path / "picture.png"), tmp_path / "labels.png"
    done = call(programs / program, bundle.path, source, labels)
    assert (done.returncode, done.stderr) == (0, "")
    with Predictor(bundle.path, target=target) as predictor:
        wanted = predictor(source).labels
    got = cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)
    assert got is not None
    assert len(np.unique(wanted)) > 1
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


def test_what_is_wrong_is_one_sentence_and_leaves_nothing(programs: Path, tmp_path: Path) -> None:
    program = programs / "edgeseg-openvino"
    bundle, other = make_tiny_bundle(tmp_path, targets=("openvino",)), make_tiny_bundle(tmp_path / "ort")
    source, labels = write_picture(tmp_path / "picture.png"), tmp_path / "labels.png"
    deep, clear = tmp_path / "deep.png", tmp_path / "clear.png"
    cv2.imwrite(str(deep), np.zeros((8, 8, 3), np.uint16))
    cv2.imwrite(str(clear), np.zeros((8, 8, 4), np.uint8))
    (tmp_path / "half.png").write_bytes(source.read_bytes()[:900])
    cases = [
        ((tmp_path / "none", source, labels), "manifest.json' cannot be read"),
        ((other.path, source, labels), "has no openvino/model.xml; export it with the target"),
        ((bundle.path, tmp_path / "none.png", labels), "none.png' cannot be opened"),
        ((bundle.path, bundle.path / "manifest.json", labels), "cannot be read as a PNG: Not a PNG file"),
        ((bundle.path, tmp_path / "half.png", labels), "cannot be read as a PNG"),
        ((bundle.path, deep, labels), "it has 16 bits, expected 8"),
        ((bundle.path, clear, labels), "it has transparency"),
        ((bundle.path, source, tmp_path / "none" / "labels.png"), "cannot be written"),
    ]
    for words, said in cases:
        done = call(program, *words)
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert not list(tmp_path.glob("labels.png*"))
    assert call(program).returncode == 2


def test_a_bundle_that_is_not_whole_is_refused(programs: Path, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("openvino",))
    source = write_picture(tmp_path / "picture.png")
    manifest = bundle.path / "manifest.json"
    written = manifest.read_text()
    changes: list[tuple[dict[str, object], str]] = [
        ({"schema_version": 1}, "schema version 1, this program reads"),
        ({"num_classes": 0}, "num_classes or batch is out of range"),
        ({"postprocess": {}}, "is no manifest of edgeseg"),
        ({"sizes": {"openvino/model.xml": 1}}, "openvino/model.xml is missing or has another size"),
    ]
    for change, said in changes:
        manifest.write_text(json.dumps({**json.loads(written), **change}))
        done = call(programs / "edgeseg-openvino", bundle.path, source, tmp_path / "labels.png")
        assert done.returncode == 1
        assert said in done.stderr
    manifest.write_text("{")
    assert "is no manifest" in call(programs / "edgeseg-openvino", bundle.path, source, tmp_path / "l.png").stderr
