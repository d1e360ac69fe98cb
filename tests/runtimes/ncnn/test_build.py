"""ncnn's files at export: what pnnx cannot do is said, for it ends with 0 and says nothing."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.bundle import Bundle
from edgeseg.errors import ExportError, UsageError
from edgeseg.export import export_model
from edgeseg.export.config import ExportConfig
from edgeseg.predictor import Predictor
from edgeseg.runtimes import BuildRequest, open_session
from edgeseg.runtimes.ncnn import NCNN_MODEL
from edgeseg.runtimes.ncnn.build import build
from tests.runtimes.bundles import make_tiny_bundle, picture

pytest.importorskip("ncnn")
pnnx = pytest.importorskip("pnnx")


class Shared(nn.Module):
    """The same convolution registered twice: pnnx makes its weights inputs of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=8, padding=1)
        self.first = nn.Conv2d(4, 4, 1)
        self.again = nn.ModuleList([self.first])

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image)
        logits: Tensor = self.again[0](F.relu(self.first(features)))
        return logits


class Resized(nn.Module):
    """Logits that are resized to the picture's size at the end."""

    def __init__(self, *, align_corners: bool) -> None:
        super().__init__()
        self.stem, self.align_corners = nn.Conv2d(3, 4, 3, stride=8, padding=1), align_corners

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.stem(image), size=image.shape[-2:], mode="bilinear", align_corners=self.align_corners)


class Foreign(nn.Module):
    """An operator that ncnn has no layer for."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=8, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return torch.cummax(self.stem(image), 1)[0]


def request(bundle: Bundle, network: nn.Module) -> BuildRequest:
    network = network.eval()
    return BuildRequest(
        folder=bundle.path,
        graph=bundle.file("model.onnx"),
        manifest=bundle.manifest,
        network=network,
        folded=network,
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path)


def test_free_height_and_width_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--dynamic .* which ncnn cannot \(pnnx computes sizes into its graph\)"):
        ExportConfig(targets=("ort", "ncnn"), dynamic=True)


@pytest.mark.parametrize("network", [Shared(), Resized(align_corners=True), Resized(align_corners=False)])
def test_masks_are_pytorchs(tmp_path: Path, network: nn.Module) -> None:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    report = export_model(network, targets=("ncnn",), size=(64, 96), out=tmp_path, name="own")
    parity = {entry.target: entry for entry in report.parity}["ncnn"]
    assert parity.ran
    assert parity.differing == 0
    assert parity.max_logit_error <= 1e-5 * parity.logit_range
    with Predictor(report.path, "ncnn") as predictor:
        assert predictor.self_test().differing == 0


def test_a_peeled_resize_is_not_computed(tmp_path: Path) -> None:
    report = export_model(Resized(align_corners=True), targets=("ncnn",), size=(64, 96), out=tmp_path, name="own")
    assert "Interp" not in (report.path / NCNN_MODEL).read_text()


def test_what_ncnn_has_no_layer_for_is_named(bundle: Bundle) -> None:
    with pytest.raises(ExportError, match=r"ncnn has no layer for aten::cummax, .*; leave the target ncnn out"):
        build(request(bundle, Foreign()))
    assert not (bundle.path / NCNN_MODEL).exists()


def test_other_logits_than_the_manifest_says_are_refused(bundle: Bundle) -> None:
    manifest = dataclasses.replace(bundle.manifest, num_classes=5)
    asked = dataclasses.replace(request(bundle, Shared()), manifest=manifest)
    with pytest.raises(ExportError, match="ncnn's graph gives logits 4x4x6, expected 5x4x6"):
        build(asked)


@pytest.mark.skipif(sys.platform == "win32", reason="programs in place of pnnx are shell scripts")
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'cannot do it' >&2", "it ended with 0 after 'cannot do it'"),
        ("exit 3", "it ended with 3"),
        ("kill -SEGV $$", "it ended with -11"),
    ],
)
def test_a_pnnx_that_makes_nothing_is_told(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    program = tmp_path / "pnnx"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(program))
    with pytest.raises(ExportError, match=rf"pnnx made no ncnn graph \({why}"):
        build(request(bundle, Shared()))


def test_nothing_is_left_behind(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch, here = tmp_path / "scratch", tmp_path / "here"
    for folder in (scratch, here):
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.chdir(here)
    build(request(bundle, Shared()))
    assert not list(here.iterdir())
    assert not [path for path in scratch.iterdir() if "ncnn" in path.name]
    assert sorted(path.name for path in (bundle.path / "ncnn").iterdir()) == ["model.bin", "model.param"]


def test_a_classifier_has_one_label_for_its_picture(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    report = export_model(network, targets=("ncnn",), size=(64, 96), out=tmp_path, name="own")
    session = open_session(Bundle(report.path, report.bundle.manifest), "ncnn")
    assert session.run(picture((64, 96))[None])["logits"].shape == (1, 4, 1, 1)
    assert np.isfinite(session.run(picture((64, 96))[None])["logits"]).all()
