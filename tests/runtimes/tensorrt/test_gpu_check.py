"""The GPU check on a fake GPU, and what it says without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu_check
from tests.runtimes.bundles import make_tiny_bundle
from tests.runtimes.fakes import FakeTensorRT


@pytest.mark.parametrize("align_corners", [False, True])
def test_compares_and_times(
    tmp_path: Path, tensorrt: FakeTensorRT, capsys: pytest.CaptureFixture[str], align_corners: bool
) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"), align_corners=align_corners)
    out = tmp_path / "out.json"
    arguments = [str(bundle.path), "--target", "trt", "--repeat", "3", "--json", str(out)]
    assert gpu_check.main([*arguments, "--cache-dir", str(tmp_path / "plans")]) == 0
    found = json.loads(out.read_text())[0]
    assert (found["device"], found["engine"]) == ("Fake A, sm_87", "tensorrt 10.3.0")
    assert (found["pixels"], found["differing"], found["max_logit_error"]) == (32 * 48, 0, 0.0)
    assert found["device_ms"] == pytest.approx([1.5, 1.5])
    assert (found["differing_from_own"], found["repeatable"]) == (0, True)
    assert tensorrt.calls.count("ran") == 4 + 2 * (3 + 20) + 1 + 2 * (3 + 20)
    assert "0 of 1536 labels differ" in capsys.readouterr().out


def test_what_is_outside_the_budget_has_an_exit_code_and_the_file_all_the_same(
    tmp_path: Path, tensorrt: FakeTensorRT, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, out = make_tiny_bundle(tmp_path, targets=("ort", "trt")), tmp_path / "out.json"
    reference = gpu_check._reference
    monkeypatch.setattr(gpu_check, "_reference", lambda *args: -reference(*args))
    arguments = [str(bundle.path), "--repeat", "1", "--json", str(out), "--cache-dir", str(tmp_path / "plans")]
    assert gpu_check.main(arguments) == 4
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "labels differ, 99.900% must be equal" in said[0]
    assert "of their range, 1.0e-02 is allowed" in said[1]
    assert json.loads(out.read_text())[0]["differing"] > 0
    assert gpu_check.main([*arguments, "--min-agreement", "0", "--max-logit-error", "9"]) == 0


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_one_sentence_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([str(make_tiny_bundle(tmp_path, targets=("ort", "trt")).path)]) == 6
    said = capsys.readouterr().err.strip()
    assert "no NVIDIA driver" in said
    assert "\n" not in said
