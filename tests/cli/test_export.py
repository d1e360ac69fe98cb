"""`edgeseg export`: files, reports, exit codes, and what is left after it was stopped."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from edgeseg.bundle import open_bundle
from edgeseg.models import create_model
from edgeseg.models.checkpoints import read_checkpoint
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule
from tests.cli.conftest import Edgeseg
from tests.export.networks import Tiny
from tests.runtimes.bundles import picture

ROOT = Path(__file__).resolve().parents[2]
TINY = "tests.export.networks:tiny"
SIZE = ("--size", "32x48")


class Meter:
    """Of a training run."""


def test_report_and_next_commands(edgeseg: Edgeseg, tmp_path: Path) -> None:
    done = edgeseg("export", TINY, *SIZE, "--target", "ort", "openvino", "--out", tmp_path / "b c")
    assert done.code == 0, done.err
    path = tmp_path / "b c" / "tiny.edgeseg"
    assert open_bundle(path).manifest.targets == ("ort", "openvino")
    assert done.out.splitlines()[0] == str(path)
    assert "32x48 (height x width), 5 classes" in done.out
    assert "0 of 4608" in done.out
    assert "random" not in done.out
    assert f"edgeseg predict '{path}' IMAGE --target openvino" in done.out
    assert f"edgeseg benchmark '{path}' --target ort openvino" in done.out
    assert done.err.splitlines()[:2] == ["folding batch norms", "exporting to ONNX"]


def test_every_convention_by_flags(edgeseg: Edgeseg, tmp_path: Path) -> None:
    words = ["--mean", 1, 2, 3, "--std", 4, 5, 6, "--scale", 0.5, "--channel-order", "bgr", "--resize", "letterbox"]
    words += ["--resize-filter", "area", "--align-corners", "--labels", "generic", "--name", "n", "--fixed-batch", 2]
    words += ["--target", "trt", "--output", "labels", "--label-size", "16x24", "--no-fuse", "--json"]
    done = edgeseg("export", TINY, *SIZE, *words, "--out", tmp_path)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["path"] == str(tmp_path / "n.edgeseg")
    assert report["fusion"] is None
    assert [entry["target"] for entry in report["parity"]] == ["ort", "trt"]
    assert [entry["ran"] for entry in report["parity"]] == [True, False]
    manifest = open_bundle(tmp_path / "n.edgeseg").manifest
    assert manifest.input == InputSpec("bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 0.5)
    assert manifest.resize == ResizeRule("letterbox", "area")
    assert manifest.postprocess == PostprocessSpec(True)
    assert manifest.batch == 2
    labels = onnx.load(tmp_path / "n.edgeseg" / "labels" / "gpu.onnx").graph.output[0]
    assert [dim.dim_value for dim in labels.type.tensor_type.shape.dim] == [2, 16, 24]


def test_random_weights_are_told(edgeseg: Edgeseg, tmp_path: Path) -> None:
    done = edgeseg("export", "espnet_c_p2_q3", "--size", "32x64", "--out", tmp_path)
    assert "The weights are random" in done.out
    assert open_bundle(tmp_path / "espnet_c_p2_q3.edgeseg").manifest.facts["weights"] == "random (seed 0)"


def test_the_weights_of_a_file_of_several_are_chosen_and_told(edgeseg: Edgeseg, tmp_path: Path) -> None:
    raw, averaged = Tiny(seed=1).state_dict(), Tiny(seed=2).state_dict()
    file = tmp_path / "run.pth"
    torch.save({"state_dict": raw, "state_dict_ema": averaged, "best": pathlib.PurePosixPath("x")}, file)
    words = ("export", TINY, *SIZE, "--weights", file, "--out", tmp_path / "b")
    refused = edgeseg(*words)
    assert refused.code == 3
    assert "holds several sets of weights ('state_dict', 'state_dict_ema'); choose one with" in refused.sentence
    assert not (tmp_path / "b").exists()
    done = edgeseg(*words, "--weights-key", "state_dict_ema", "--target", "torch", "ort")
    assert done.code == 0, done.err
    assert "run.pth: the weights are those under 'state_dict_ema'; not taken: 'state_dict'" in done.out
    bundle = open_bundle(tmp_path / "b" / "tiny.edgeseg")
    assert bundle.manifest.facts["weights"] == "run.pth, state_dict_ema"
    stored = read_checkpoint(next(bundle.path.rglob("*.safetensors")))
    assert torch.equal(stored["head.weight"], averaged["head.weight"])
    notes = json.loads(edgeseg(*words, "--weights-key", "state_dict", "--json").out)["notes"]
    assert notes[0] == "run.pth: the weights are those under 'state_dict'; not taken: 'state_dict_ema'"


def test_what_a_checkpoint_holds_besides_tensors_is_told(edgeseg: Edgeseg, tmp_path: Path) -> None:
    torch.save({"state_dict": Tiny().state_dict(), "log": Meter()}, tmp_path / "run.pth")
    done = edgeseg("export", TINY, *SIZE, "--weights", tmp_path / "run.pth", "--out", tmp_path)
    assert done.code == 0, done.err
    skipped = "run.pth: objects that are no tensors were passed over, not built: tests.cli.test_export.Meter"
    assert skipped in " ".join(done.out.split())


def test_what_each_pass_did_is_told_and_rewrites_can_be_left_out(edgeseg: Edgeseg, tmp_path: Path) -> None:
    told = edgeseg("export", TINY, *SIZE, "--out", tmp_path / "a", "-v", "--skip-pass", "ComposeConvs").out
    assert "PushLinear" in told
    assert "ComposeConvs" not in told
    plain = edgeseg("export", TINY, *SIZE, "--out", tmp_path / "b", "--no-rewrites", "--json").out
    assert [entry["name"] for entry in json.loads(plain)["passes"]] == ["RemoveUnused", "MergeDuplicates", "StripNotes"]


def test_pictures_of_ones_own(edgeseg: Edgeseg, tmp_path: Path) -> None:
    import cv2

    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture((40, 60)))
    out, mine = tmp_path / "out", tmp_path / "a.png"
    done = edgeseg("export", TINY, *SIZE, "--parity-images", tmp_path, "--sample", mine, "--out", out, "--json")
    assert json.loads(done.out)["parity"][0]["images"] == 5


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Checkpoints that do not do."""
    torch.save({"state": [Tiny()]}, tmp_path / "pickle.pth")
    torch.save(create_model("espnet_c_p2_q5").state_dict(), tmp_path / "c_q5.pth")
    torch.save({"nothing.weight": torch.zeros(3)}, tmp_path / "foreign.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "c_q5.pth").read_bytes()[:5000])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "no_pictures").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("espnet_p2_q88", 2, "unknown network 'espnet_p2_q88': did you mean 'espnet_p2_q8'"),
        ("espnet_c_p2_q3 --target opnvino", 2, "unknown target 'opnvino': did you mean 'openvino'"),
        ("espnet_c_p2_q3 --target ort opnvino", 2, "unknown target 'opnvino': did you mean 'openvino'"),
        ("espnet_c_p2_q3 --size 60x96", 2, "multiples of 8, got 60x96; use 56x96 or 64x96"),
        ("espnet_c_p2_q3 --size big", 2, "size 'big' is not HEIGHTxWIDTH"),
        ("espnet_c_p2_q3 --size 0x8", 2, "size '0x8' is not HEIGHTxWIDTH"),
        ("espnet_c_p2_q3 --dynamic --output labels", 2, "leave out --dynamic"),
        ("TINY --skip-pass PushLiner", 2, "unknown pass 'PushLiner': did you mean 'PushLinear'"),
        ("TINY --classes 3", 2, "num_classes (--classes) is for registered networks"),
        ("TINY --channel-order gbr", 2, "channel order 'gbr' is neither"),
        ("TINY --std 0 1 1", 2, "must not be zero"),
        ("TINY --mean nan 1 1", 2, "must be finite numbers"),
        ("TINY --resize squeeze", 2, "resize mode 'squeeze' is none of"),
        ("TINY --labels city", 2, "unknown label set 'city'"),
        ("TINY --name ../x", 2, "cannot name a bundle"),
        ("no_such_package:make", 2, "cannot import 'no_such_package'"),
        ("tests.export.networks:broken", 4, "the factory 'tests.export.networks:broken' failed: RuntimeError: no"),
        ("espnet_c_p2_q3 --weights FILES/nothing.pth", 3, "no checkpoint at"),
        ("espnet_c_p2_q3 --weights FILES/folder.pth", 3, "no checkpoint at"),
        ("espnet_c_p2_q3 --weights FILES/empty.pth", 3, "is empty (0 bytes)"),
        ("espnet_c_p2_q3 --weights FILES/cut.pth", 3, "damaged or truncated"),
        ("espnet_c_p2_q3 --weights FILES/pickle.pth", 3, "holds pickled objects besides tensors"),
        ("espnet_c_p2_q3 --weights FILES/c_q5.pth", 3, "unexpected (;it fits 'espnet_c_p2_q5': use that name"),
        ("espnet_c_p2_q8 --weights FILES/c_q5.pth", 3, "missing (;it fits 'espnet_c_p2_q5': use that name"),
        ("espnet_c_p2_q3 --weights FILES/foreign.pth", 3, "unexpected (nothing.weight);no registered network"),
        ("TINY --parity-images FILES/no_pictures", 7, "holds no images"),
        ("TINY --sample FILES/nothing.png", 7, "nothing.png"),
        ("TINY --sample FILES/taken", 7, "cannot be read as a picture"),
        ("TINY --out FILES/taken", 8, "cannot write"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    words: str, code: int, told: str, edgeseg: Edgeseg, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "here").mkdir()
    monkeypatch.chdir(files / "here")
    monkeypatch.syspath_prepend(ROOT)
    given = words.replace("FILES", str(files)).replace("TINY", TINY).split()
    size = [] if "--size" in given else ["--size", "32x64"]
    done = edgeseg("export", *given, *size)
    assert done.code == code, done.err
    for part in told.split(";", 1) if code == 3 else [told]:
        assert part in done.sentence
    assert done.out == ""
    assert list((files / "here").iterdir()) == []


def test_a_target_that_is_not_installed(edgeseg: Edgeseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    done = edgeseg("export", TINY, *SIZE, "--target", "openvino", "--out", tmp_path)
    assert done.code == 6
    assert "pip install 'edgeseg[openvino]'" in done.sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "stopped; nothing half-written was left"),
        (OSError(28, "No space left on device"), 8, "the disk is full"),
    ],
)
def test_stopped_in_the_middle(
    error: BaseException, code: int, told: str, edgeseg: Edgeseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("edgeseg.export.bundle_files.cv2.imencode", fail)
    done = edgeseg("export", TINY, *SIZE, "--out", tmp_path)
    assert done.code == code
    assert told in done.sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "code", "step"),
    [(signal.SIGINT, 130, "exporting to ONNX"), (signal.SIGTERM, 143, "running fp32 PyTorch")],
)
def test_a_signal_to_a_running_export(number: signal.Signals, code: int, step: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgeseg", "export", "espnet_c_p2_q3", "--size", "128x256", "--out", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip() == step:
                break
        time.sleep(0.02)
        os.kill(process.pid, number)
        rest = process.stderr.read()
    assert process.returncode == code, rest
    assert "Traceback" not in rest
    assert rest.rstrip().endswith("nothing half-written was left")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_only_a_bundle_is_replaced(kind: str, edgeseg: Edgeseg, tmp_path: Path) -> None:
    taken = tmp_path / "tiny.edgeseg"
    if kind == "file":
        taken.write_text("mine")
    else:
        folder = taken if kind == "folder" else tmp_path / "elsewhere"
        folder.mkdir()
        (folder / "photographs").write_text("mine")
    if kind == "link":
        taken.symlink_to(tmp_path / "elsewhere")
    done = edgeseg("export", TINY, *SIZE, "--out", tmp_path)
    assert done.code == 2
    assert "is there and is no bundle" in done.sentence
    assert (taken if kind == "file" else taken / "photographs").read_text() == "mine"


def test_a_bundle_is_replaced(edgeseg: Edgeseg, tmp_path: Path) -> None:
    for divisor in (1, 2):
        assert edgeseg("export", TINY, *SIZE, "--scale", 1 / divisor, "--out", tmp_path).code == 0
    assert open_bundle(tmp_path / "tiny.edgeseg").manifest.input.scale == 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.edgeseg"]
