"""`edgeseg export --config`: mmsegmentation's config in place of a name and of conventions."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgeseg.bundle import open_bundle
from edgeseg.models.registry import build_network
from tests.cli.conftest import Edgeseg
from tests.models.configs.trees import write, write_tree

OWN = (
    "model = dict(decode_head=dict(num_classes=3))\n"
    "test_dataloader = dict(dataset=dict(metainfo=dict(classes=('road', 'crack', 'sky'), "
    "palette=[[9, 8, 7], [6, 5, 4], [3, 2, 1]])))\n"
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_tree(tmp_path, OWN)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    torch.save({"state_dict": build_network("mmseg_fastscnn", 3, aux=True).state_dict()}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_a_config_and_its_checkpoint(edgeseg: Edgeseg, tmp_path: Path, config: Path, weights: Path) -> None:
    done = edgeseg("export", "--config", config, "--weights", weights, "--size", "32x64", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    told = " ".join(done.out.split())
    assert "own.py: network 'mmseg_fastscnn', 3 output channels (road, crack, sky), 1024x2048" in told
    assert "in place of what the config says: --size" in told
    assert "weights are random" not in told
    manifest = open_bundle(tmp_path / "out" / "mmseg_fastscnn.edgeseg").manifest
    assert (manifest.labels, manifest.palette[1]) == (("road", "crack", "sky"), (6, 5, 4))
    assert (manifest.input.mean, manifest.input.channel_order) == ((123.675, 116.28, 103.53), "rgb")
    assert (manifest.resize.mode, manifest.input_size, manifest.num_classes) == ("letterbox", (32, 64), 3)
    cv2.imwrite(str(tmp_path / "frame.png"), np.full((48, 40, 3), 90, np.uint8))
    assert edgeseg("predict", manifest_path(tmp_path), tmp_path / "frame.png", "--out", tmp_path / "seen").code == 0


def manifest_path(folder: Path) -> Path:
    return folder / "out" / "mmseg_fastscnn.edgeseg"


def test_options_go_before_the_config_and_are_said(edgeseg: Edgeseg, tmp_path: Path, config: Path) -> None:
    given = (
        "--size",
        "32x64",
        "--mean",
        1,
        2,
        3,
        "--channel-order",
        "bgr",
        "--resize",
        "stretch",
        "--labels",
        "generic",
    )
    done = edgeseg("export", "mmseg_fastscnn", "--config", config, *given, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    notes = json.loads(done.out)["notes"]
    assert "in place of what the config says: --size, --labels, --mean, --channel-order, --resize" in notes
    manifest = open_bundle(manifest_path(tmp_path)).manifest
    assert (manifest.input.mean, manifest.input.channel_order, manifest.resize.mode) == (
        (1.0, 2.0, 3.0),
        "bgr",
        "stretch",
    )
    assert manifest.input.std == (58.395, 57.12, 57.375)
    assert manifest.labels == ("class 0", "class 1", "class 2")


def test_a_config_is_inspected(edgeseg: Edgeseg, config: Path) -> None:
    done = edgeseg("inspect", "--config", config, "--size", "32x64")
    assert done.code == 0, done.err
    assert "channels            3" in done.out
    assert "own.py: network 'mmseg_fastscnn'" in done.out


@pytest.mark.parametrize("command", ["export", "inspect"])
def test_code_does_not_run_unasked(edgeseg: Edgeseg, tmp_path: Path, command: str) -> None:
    canary = tmp_path / "canary"
    config = write_tree(tmp_path, f"open({str(canary)!r}, 'w').close()\n{OWN}")
    done = edgeseg(command, "--config", config, "--size", "32x64")
    assert done.code == 2
    assert "has 'open(" in done.sentence
    assert "in line 2, which is code" in done.sentence
    assert not canary.exists()


def test_code_runs_where_it_is_trusted(edgeseg: Edgeseg, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    config = write_tree(tmp_path, f"open({str(canary)!r}, 'w').close()\nprint('hello')\n{OWN}")
    done = edgeseg("inspect", "--config", config, "--trust-config", "--size", "32x64")
    assert (done.code, canary.exists()) == (0, True), done.err


def test_what_cannot_be_is_one_sentence(edgeseg: Edgeseg, tmp_path: Path, config: Path, weights: Path) -> None:
    out = ("--size", "32x64", "--out", tmp_path / "out")
    cases: tuple[tuple[tuple[object, ...], int, str], ...] = (
        ((), 2, "missing argument 'network', or its --config FILE"),
        (("erfnet", "--config", config), 2, "is of 'mmseg_fastscnn', and NETWORK is 'erfnet'"),
        (("erfnet", "--trust-config"), 2, "give it as --config FILE"),
        (("--config", tmp_path / "missing.py"), 2, "no such file"),
        (("--config", write(tmp_path / "c.py", "x = 1")), 2, "no dictionary 'model'"),
        (
            ("--config", write_tree(tmp_path / "b", "model = dict(backbone=dict(fusion_out_channels=9))")),
            2,
            "=9 (there 128)",
        ),
        (("--config", write_tree(tmp_path / "d"), "--weights", weights), 3, "has 3 classes, and own.py says 19"),
        (("--config", config, "--threshold", 0.5), 2, "one output channel"),
        (("--config", config, "--labels", "person"), 2, "does not fit a network of 3"),
    )
    for words, code, expected in cases:
        done = edgeseg("export", *words, *out)
        assert (done.code, expected in done.sentence) == (code, True), done.sentence
    assert not (tmp_path / "out").exists()
