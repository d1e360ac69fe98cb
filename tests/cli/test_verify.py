"""`edgeseg verify`: every way a bundle or a machine can be wrong, and what a right one prints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgeseg.bundle import SCHEMA_VERSION, Bundle, Parity, write_manifest
from edgeseg.files import sha256_of
from tests.cli.conftest import Edgeseg
from tests.runtimes.bundles import SAMPLE_SIZE, changed, make_tiny_bundle, picture

NETWORK = "tests.runtimes.bundles:tiny_network"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path, targets=("ort", "openvino", "torch"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two good pictures and, between them, a broken one."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "c"):
        cv2.imwrite(str(folder / f"{name}.png"), picture((40, 60)))
    (folder / "b.png").write_bytes(b"not a picture")
    return folder


def test_every_runtime_that_is_here(bundle: Bundle, edgeseg: Edgeseg) -> None:
    done = edgeseg("verify", bundle.path, "--network", NETWORK)
    assert done.code == 0, done.err
    assert "every SHA-256 as exported" in done.out
    for target in ("ort", "openvino", "torch"):
        (line,) = [line for line in done.out.splitlines() if line.startswith(target)]
        assert " ok " in line
        assert f"0 of {SAMPLE_SIZE[0] * SAMPLE_SIZE[1]}" in line


def test_json_is_json(bundle: Bundle, edgeseg: Edgeseg) -> None:
    done = edgeseg("verify", bundle.path, "--target", "ov", "ort", "--json")
    found = json.loads(done.out)
    assert [(row["target"], row["status"], row["differing"]) for row in found["here"]] == [
        ("openvino", "ok", 0),
        ("ort", "ok", 0),
    ]
    assert done.err == ""


def _flip(bundle: Bundle) -> None:
    data = bytearray((bundle.path / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle.path / "model.onnx").write_bytes(data)


def _truncate(bundle: Bundle) -> None:
    file = bundle.path / "model.onnx"
    file.write_bytes(file.read_bytes()[:100])


def _truncate_and_sign(bundle: Bundle) -> None:
    """As if the export itself had written half a graph."""
    _truncate(bundle)
    bundle.manifest.files["model.onnx"] = sha256_of(bundle.path / "model.onnx")
    write_manifest(bundle.path, bundle.manifest)


def _newer(bundle: Bundle) -> None:
    data = bundle.manifest.to_json() | {"schema_version": SCHEMA_VERSION + 1}
    (bundle.path / "manifest.json").write_text(json.dumps(data))


def _lose(bundle: Bundle) -> None:
    (bundle.path / "sample_labels.png").unlink()


def _garble(bundle: Bundle) -> None:
    (bundle.path / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip, r"model\.onnx in bundle .*its SHA-256 differs.; copy or export it again"),
        (_truncate, r"model\.onnx in bundle .*it has 100 bytes instead of \d+"),
        (_truncate_and_sign, r"model\.onnx .* was exported with another manifest.*copy or export"),
        (_newer, f"schema version {SCHEMA_VERSION + 1}, this edgeseg reads {SCHEMA_VERSION}; update edgeseg"),
        (_lose, r"has lost sample_labels\.png; copy or export it again"),
        (_garble, "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "predict", "benchmark"])
def test_a_damaged_bundle(damage: Any, message: str, command: str, bundle: Bundle, edgeseg: Edgeseg) -> None:
    damage(bundle)
    more: dict[str, list[object]] = {
        "verify": ["--target", "ort"],
        "predict": [bundle.path / "sample.png"],
        "benchmark": ["--in-process"],
    }
    out = ["--out", bundle.path.parent / "out"] if command == "predict" else []
    done = edgeseg(command, bundle.path, *more[command], *out)
    assert done.code == 5, done.err
    assert re.search(message, done.sentence)
    assert not (bundle.path.parent / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--target", "openvin"], 2, "did you mean 'openvino'"),
        (["--target", "trt-rtx"], 6, "; "),
        (["--min-agreement", "-1"], 2, "--min-agreement"),
        (["--images", "nothing"], 7, "nothing"),
    ],
)
def test_bad_input(words: list[str], code: int, message: str, bundle: Bundle, edgeseg: Edgeseg) -> None:
    done = edgeseg("verify", bundle.path, *words)
    assert done.code == code
    assert message in done.sentence


def test_no_bundle(edgeseg: Edgeseg, tmp_path: Path) -> None:
    done = edgeseg("verify", tmp_path / "nothing")
    assert (done.code, done.out) == (5, "")
    assert "no bundle at" in done.sentence


def test_a_missing_engine_is_reported_and_the_rest_is_done(
    bundle: Bundle, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    done = edgeseg("verify", bundle.path)
    assert done.code == 0
    assert "absent" in done.out
    assert "edgeseg[openvino]" in done.out
    asked = edgeseg("verify", bundle.path, "--target", "openvino")
    assert asked.code == 6
    assert "edgeseg[openvino]" in asked.sentence


def test_a_target_that_fails_does_not_hide_the_others(
    bundle: Bundle, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.runtimes.bundles.tiny_network", "no longer a function")
    done = edgeseg("verify", bundle.path, "--network", NETWORK)
    assert done.code == 2
    assert "expected a function that builds" in done.sentence
    assert [line.split()[1] for line in done.out.splitlines()[2:5]] == ["ok", "ok", "failed"]


def test_masks_that_differ(bundle: Bundle, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeseg.predictor.Predictor.self_test", lambda self: Parity("x", 100, 5))
    done = edgeseg("verify", bundle.path, "--target", "ort")
    assert done.code == 4
    assert (
        done.sentence
        == "the masks of this machine are not those of PyTorch: ort on CPUExecutionProvider (5 of 100 labels)"
    )
    assert edgeseg("verify", bundle.path, "--target", "ort", "--min-agreement", "0.95").code == 0


def test_targets_against_one_another(bundle: Bundle, pictures: Path, edgeseg: Edgeseg) -> None:
    own = ("--network", NETWORK)
    good = edgeseg("verify", bundle.path, *own, "--images", pictures / "a.png", "--json")
    assert good.code == 0
    rows = json.loads(good.out)["here"]
    assert [row["reason"] for row in rows[3:]] == ["against ort on 1 pictures"] * 2
    done = edgeseg("verify", bundle.path, *own, "--images", pictures, "--json")
    assert done.code == 9
    assert done.sentence == "1 of the pictures failed (named above); the others were compared"
    assert "b.png" in done.err.splitlines()[0]
    assert json.loads(done.out)["here"][3]["pixels"] == 2 * 32 * 48
    (pictures / "a.png").unlink()
    (pictures / "c.png").unlink()
    assert edgeseg("verify", bundle.path, "--images", pictures).code == 7
    (pictures / "b.png").unlink()
    assert "holds no images" in edgeseg("verify", bundle.path, "--images", pictures).sentence


_NETWORKS = ("evil:build", "evil", "os:abort", "sys:exit", "http.server:test", "builtins:breakpoint")


@pytest.mark.parametrize("network", _NETWORKS)
@pytest.mark.parametrize("target", [None, "torch"])
def test_no_code_that_a_bundle_names_runs(network: str, target: str | None, tmp_path: Path) -> None:
    """Everything in the bundle is made to fit, `evil.py` lies beside it and in the current folder."""
    bundle = changed(make_tiny_bundle(tmp_path, targets=("ort", "torch")), network=network)
    for folder in (tmp_path, bundle.path):
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w').close()\ndef build(): pass\n")
    words = [] if target is None else ["--target", target]
    command = [sys.executable, "-m", "edgeseg", "verify", str(bundle.path), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert not (tmp_path / "RAN").exists()
    assert done.returncode == (0 if target is None else 6), done.stderr
    assert "is none of edgeseg's own" in " ".join((done.stdout + done.stderr).split())
    if target is None:
        assert [line.split()[1] for line in done.stdout.splitlines()[2:4]] == ["ok", "absent"]


def test_a_bundle_without_targets_is_refused(bundle: Bundle, edgeseg: Edgeseg) -> None:
    text = (bundle.path / "manifest.json").read_text()
    (bundle.path / "manifest.json").write_text(re.sub(r'"targets": \[[^]]*\]', '"targets": []', text))
    done = edgeseg("verify", bundle.path)
    assert done.code == 5
    assert "targets" in done.sentence
