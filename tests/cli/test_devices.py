"""Devices on the command line: options on each command that runs an engine, and `doctor --verify`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.cli.engine_options import options_of_each
from edgeseg.errors import UsageError
from edgeseg.runtimes import RuntimeOptions
from tests.cli.conftest import Edgeseg
from tests.runtimes.bundles import make_tiny_bundle, picture


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path, targets=("ort", "openvino"))


def test_each_of_several_engines_gets_what_it_takes() -> None:
    found = options_of_each(["ort", "openvino"], RuntimeOptions(threads=2, hint="latency"))
    assert found == {"ort": RuntimeOptions(threads=2), "openvino": RuntimeOptions(threads=2, hint="latency")}
    alone = RuntimeOptions(hint="latency")
    assert options_of_each(["ort"], alone) == {"ort": alone}  # which refuses it
    with pytest.raises(UsageError, match="none of ort, openvino has a use for weights='w'"):
        options_of_each(["ort", "openvino"], RuntimeOptions(weights="w"))
    with pytest.raises(UsageError, match=r"is a word of one engine, and 2 are to run .* with --target"):
        options_of_each(["ort", "openvino"], RuntimeOptions(device="GPU"))


@pytest.mark.parametrize("command", ["verify", "eval", "predict", "benchmark"])
def test_every_command_passes_them_to_the_engine(
    command: str, bundle: Bundle, edgeseg: Edgeseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    cv2.imwrite("in/a.png", picture((40, 60)))
    cv2.imwrite("in/labels.png", np.zeros((40, 60), np.uint8))
    more = {
        "verify": ("--target", "openvino"),
        "eval": ("--target", "openvino", "--images", "in", "--labels", "in", "--label-suffix", ".png"),
        "predict": ("in/a.png", "--target", "openvino"),
        "benchmark": ("--target", "openvino", "--in-process", "--max-samples", 1, "--seconds", 0),
    }[command]
    done = edgeseg(command, bundle.path, *more, "--device", "CPU", "--threads", 1, "--engine-option", "hint=loud")
    assert done.code == 2, done.err
    assert "loud" in done.err
    done = edgeseg(command, bundle.path, *more, "--device", "NPU.9", "--engine-option", "hint=latency")
    assert done.code == 6, done.err
    assert "NPU.9" in done.err


def test_verify_names_the_device(bundle: Bundle, edgeseg: Edgeseg) -> None:
    done = edgeseg(
        "verify", bundle.path, "-t", "openvino", "--device", "CPU", "--engine-option", "precision=f32", "--json"
    )
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["here"]
    assert (row["target"], row["device"], row["status"]) == ("openvino", "CPU", "ok")
    done = edgeseg("verify", bundle.path, "--device", "CPU")
    assert done.code == 2
    assert "name that one with --target" in done.err


def test_doctor_proves_and_shows(bundle: Bundle, edgeseg: Edgeseg) -> None:
    assert "proven on no device" in edgeseg("doctor", bundle.path).out
    done = edgeseg("doctor", "--verify", bundle.path)
    assert done.code == 0, done.err
    file = bundle.path.parent / "tiny.edgeseg.proofs.json"
    assert f"the proofs are in '{file}'" in done.out
    for target in ("ort", "openvino"):
        (line,) = [line for line in done.out.splitlines() if line.split()[:1] == [target] and "labels differ" in line]
        assert "proven" in line
        assert "0 of " in line
    shown = json.loads(edgeseg("doctor", bundle.path, "--json").out)["proofs"][str(bundle.path)]
    assert {(row["target"], row["status"]) for row in shown} == {("ort", "ok"), ("openvino", "ok")}
    file.write_text("{}")
    assert "is no file of proofs" in edgeseg("doctor", bundle.path).out


def test_doctor_ends_with_4_where_a_device_is_wrong(
    bundle: Bundle, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeseg.runtimes.openvino.session import OpenVinoSession

    right = OpenVinoSession.run
    monkeypatch.setattr(
        OpenVinoSession, "run", lambda self, *a: {name: -array for name, array in right(self, *a).items()}
    )
    done = edgeseg("doctor", "--verify", bundle.path)
    assert done.code == 4
    assert "openvino on CPU" in done.err
    assert "WRONG" in done.out
    done = edgeseg("predict", bundle.path, bundle.path / "sample.png", "-t", "openvino", "--out", bundle.path.parent)
    assert "was proven wrong for this bundle" in done.err


def test_doctor_needs_a_bundle_to_verify(edgeseg: Edgeseg) -> None:
    done = edgeseg("doctor", "--verify")
    assert done.code == 2
    assert "name it" in done.err
