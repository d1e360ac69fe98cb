"""`edgeseg export --machine-profile`: what it changes, what is written down, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from edgeseg.bundle import open_bundle
from edgeseg.errors import UnknownNameError
from edgeseg.export.config import ExportConfig
from edgeseg.graph.profile import DEFAULT_PROFILE, active_profile, load_profile
from tests.cli.conftest import Edgeseg

NETWORK = "tests.cli.test_export_machine:bottleneck"


def bottleneck() -> nn.Module:
    """A network with two 1x1 convolutions through a narrow map: one alone computes more and moves less."""
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Conv2d(16, 5, 1)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1), nn.ReLU(), last).eval()


def _convolutions(bundle: Path) -> int:
    return sum(node.op_type == "Conv" for node in onnx.load(bundle / "model.onnx").graph.node)


@pytest.fixture
def quick_memory(tmp_path: Path) -> Path:
    """A profile file by which moving bytes costs nothing beside computing."""
    profile = replace(load_profile(DEFAULT_PROFILE), name="quick memory", bandwidth=1e15, node_seconds=0.0)
    file = tmp_path / "quick.json"
    file.write_text(json.dumps(profile.to_json()))
    return file


def test_the_profile_decides_and_is_written_down(edgeseg: Edgeseg, tmp_path: Path, quick_memory: Path) -> None:
    words = ("export", NETWORK, "--size", "32x48", "--out", tmp_path)
    for name, more in (("plain", ()), ("same", (DEFAULT_PROFILE,)), ("quick", (quick_memory,))):
        option = ("--machine-profile", *more) if more else ()
        done = edgeseg(*words, "--name", name, *option)
        assert done.code == 0, done.err
    plain, same, quick = (tmp_path / f"{name}.edgeseg" for name in ("plain", "same", "quick"))
    assert [_convolutions(plain), _convolutions(same), _convolutions(quick)] == [3, 3, 4]
    facts = [open_bundle(path).manifest.facts["machine_profile"] for path in (plain, same, quick)]
    assert facts[0] == facts[1] == load_profile(DEFAULT_PROFILE).to_json()
    assert facts[2] == load_profile(quick_memory).to_json()
    assert active_profile() == load_profile(DEFAULT_PROFILE)


def test_what_is_no_profile_is_told_before_the_work(edgeseg: Edgeseg, tmp_path: Path) -> None:
    words = ("export", NETWORK, "--size", "32x48", "--out", tmp_path / "out", "--machine-profile")
    done = edgeseg(*words, "x86-avx51")
    assert done.code == 2
    assert done.sentence == ("unknown machine profile 'x86-avx51': did you mean 'x86-avx512' or 'x86-avx2'?"), (
        done.sentence
    )
    (tmp_path / "bad.json").write_text("{}")
    done = edgeseg(*words, tmp_path / "bad.json")
    assert done.code == 7
    assert "is no machine profile: kind is missing" in done.sentence
    assert not (tmp_path / "out").exists()


def test_the_configuration_names_the_profile(quick_memory: Path) -> None:
    assert ExportConfig().machine_profile == load_profile("x86-avx512")
    assert ExportConfig(machine="arm-neon").machine_profile == load_profile("arm-neon")
    assert ExportConfig(machine=quick_memory).machine_profile.name == "quick memory"
    with pytest.raises(UnknownNameError, match="unknown machine profile 'arm'"):
        ExportConfig(machine="arm")
