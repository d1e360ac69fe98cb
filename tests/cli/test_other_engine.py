"""An engine of another package on the command line: it is there wherever edgeseg's own are, with no edit in edgeseg."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from edgeseg.runtimes.registry import GROUP
from tests.packages import TOY_ENGINE, environment, install, install_project
from tests.runtimes.bundles import picture

Command = Callable[..., "subprocess.CompletedProcess[str]"]

NETWORK = """
import torch
from torch import nn

def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2, padding=1))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy engine installed, a package that is broken beside it, a network and a picture."""
    made = tmp_path_factory.mktemp("other")
    install_project(made / "site", TOY_ENGINE)
    install(made / "site", "edgeseg-lost", {GROUP: {"lost": "no_such_module:ENGINE"}}, modules={"net": NETWORK})
    cv2.imwrite(str(made / "picture.png"), picture((44, 52)))
    return made


@pytest.fixture(scope="module")
def command(folder: Path) -> Command:
    """Run edgeseg in a process of its own, where the engine is installed."""

    def run(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "edgeseg", *map(str, words)],
            cwd=folder,
            env=environment(folder / "site"),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def bundle(command: Command) -> str:
    """A bundle exported for ONNX Runtime and, named second and in capitals, the toy engine."""
    command("export", "net:tiny", "--name", "tiny", "--size", "32x48", "--target", "ort", "TOY")
    return "tiny.edgeseg"


def test_doctor_lists_it(command: Command) -> None:
    found = {entry["target"]: entry for entry in json.loads(command("doctor", "--json").stdout)["targets"]}
    assert (found["Toy"]["usable"], found["Toy"]["devices"]) == (True, ["CPU"])
    assert found["Toy"]["engine"].startswith("toy on onnx ")
    assert found["lost"]["reason"].startswith("the target 'lost' of edgeseg-lost 0.1.0 cannot be used: ")


def test_export_builds_verifies_and_writes_its_version(folder: Path, bundle: str) -> None:
    manifest = json.loads((folder / bundle / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["targets"] == ["ort", "Toy"]
    assert manifest["versions"]["edgeseg-toy-engine"] == "0.1.0"
    assert "toy/graph.onnx" in manifest["files"]
    proof = {entry["target"]: entry for entry in manifest["parity"]}
    assert proof["Toy"]["ran"]
    assert proof["Toy"]["pixels"] == proof["ort"]["pixels"] > 0


def test_verify_runs_it_with_the_others(command: Command, bundle: str) -> None:
    rows = json.loads(command("verify", bundle, "--json", "--images", "picture.png").stdout)["here"]
    assert [(row["target"], row["status"]) for row in rows] == [("ort", "ok"), ("Toy", "ok"), ("Toy", "ok")]
    assert rows[1]["engine"].startswith("toy on onnx ")


def test_predict_writes_the_labels_of_onnxruntime(folder: Path, command: Command, bundle: str) -> None:
    for target in ("ort", "reference"):
        command("predict", bundle, "picture.png", "--target", target, "--labels", "--out", target)
    (mine,), (theirs,) = ([*(folder / name).rglob("*.png")] for name in ("reference", "ort"))
    assert mine.read_bytes() == theirs.read_bytes()


def test_benchmark_measures_it(folder: Path, command: Command, bundle: str) -> None:
    count = ("--seconds", 0, "--min-samples", 2, "--max-samples", 2)
    command("benchmark", bundle, "--target", "ort", "Toy", *count, "--save", "report.json")
    reports = json.loads((folder / "report.json").read_text(encoding="utf-8"))["reports"]
    assert [report["target"] for report in reports] == ["ort", "Toy"]
    assert len(reports[1]["samples"]["total"]) == 2


def test_an_option_it_has_no_use_for_is_refused(command: Command, bundle: str) -> None:
    done = command("predict", bundle, "picture.png", "--target", "Toy", "--threads", 2, code=2)
    assert "the Toy target has no use for threads=2; leave it out (it takes hint)" in done.stderr


def test_a_package_that_is_broken_is_one_sentence_where_it_is_asked_for(command: Command, bundle: str) -> None:
    for words in (("export", "net:tiny", "--target", "ort", "LOST"), ("predict", bundle, "picture.png", "-t", "lost")):
        done = command(*words, code=6)
        assert "the target 'lost' of edgeseg-lost 0.1.0 cannot be used: 'no_such_module:ENGINE' failed" in done.stderr
        assert "Traceback" not in done.stderr
