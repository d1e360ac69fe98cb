"""The training example: a tiny run writes, resumes and refuses; the shipped person weights load and find a person."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgeseg.models import create_model, model_spec

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "examples" / "person" / "pphumanseg_lite_person.safetensors"
ASTRONAUT = ROOT / ".." / "shared" / "real" / "portrait" / "images" / "skimage_astronaut.png"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_person_example", ROOT / "examples" / "train_person.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six training and two validation pictures: a bright ellipse is the person."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    random = np.random.default_rng(0)
    for i in range(8):
        image = random.integers(0, 90, (60, 84, 3), dtype=np.uint8)
        mask = np.zeros((60, 84), np.uint8)
        cv2.ellipse(mask, (30 + 3 * i, 30), (14, 22), 0, 0, 360, 255, -1)
        image[mask > 0] += 120
        cv2.imwrite(str(folder / "images" / f"p{i}.jpg"), image)
        cv2.imwrite(str(folder / "masks" / f"p{i}.png"), mask)
    (folder / "train.txt").write_text("".join(f"p{i}\n" for i in range(6)))
    (folder / "val.txt").write_text("p6\np7\n")
    return folder


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--out", str(out), "--size", "32x32", "--batch", "2", "--threads", "1", *more]


def test_a_run_writes_weights_and_score(script: ModuleType, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert script.main(arguments(data, out, "--epochs", "1")) == 0
    weights = out / "pphumanseg_lite_person.safetensors"
    score = json.loads((out / "score.json").read_text())
    assert score["images"] == 2
    assert score["size"] == "32x32"
    assert 0.0 <= score["foreground_iou"] <= 1.0
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.pt", weights.name, "score.json"]
    create_model("pphumanseg_lite", num_classes=2, weights=weights)
    (out / "score.json").unlink()
    assert script.main(arguments(data, out, "--evaluate", str(weights))) == 0
    assert json.loads((out / "score.json").read_text()) == score


def test_resuming_equals_not_stopping(
    script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert script.main(arguments(data, whole, "--epochs", "4")) == 0
    step = script.Trainer.train_step

    def interrupted(trainer: object) -> float:
        loss: float = step(trainer)
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C within the first epoch
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(script.Trainer, "train_step", interrupted)
        assert script.main(arguments(data, parts, "--epochs", "4")) == 130
    assert "go on with --resume" in capsys.readouterr().out
    assert not (parts / "score.json").exists()
    assert script.main(arguments(data, parts, "--epochs", "4", "--resume")) == 0
    first, second = (load_file(x / "pphumanseg_lite_person.safetensors") for x in (whole, parts))
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=0, atol=0, msg=key)


def test_refusals_say_what_to_do(
    script: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert script.main(arguments(data, out, "--resume")) == 3
    assert "leave out --resume" in capsys.readouterr().err
    assert script.main(arguments(tmp_path, out)) == 7
    assert "train.txt" in capsys.readouterr().err
    out.mkdir(exist_ok=True)
    (out / "checkpoint.pt").write_bytes(b"x")
    assert script.main(arguments(data, out)) == 2
    assert "add --resume" in capsys.readouterr().err


def test_score_counts_pixels_at_the_source_size(script: ModuleType) -> None:
    """A network that answers 'left half' on a mask of the left three quarters: 40 of 60 columns."""

    class LeftHalf(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(image.shape[0], 2, image.shape[2], image.shape[3])
            logits[:, 1, :, : image.shape[3] // 2] = 1
            logits[:, 0, :, image.shape[3] // 2 :] = 1
            return logits

    mask = np.zeros((50, 80), np.uint8)
    mask[:, :60] = 255
    empty = np.zeros((50, 80), np.uint8)
    image = np.zeros((50, 80, 3), np.uint8)
    spec = model_spec("pphumanseg_lite")
    score = script.evaluate(LeftHalf(), [(image, mask), (image, empty)], spec, (32, 32))
    assert score.foreground_iou == pytest.approx(40 / 100, abs=1e-4)
    assert score.mean_image_iou == pytest.approx((40 / 60 + 0) / 2, abs=1e-4)


def test_shipped_weights_find_the_astronaut(script: ModuleType) -> None:
    network = create_model("pphumanseg_lite", num_classes=2, weights=WEIGHTS)
    assert WEIGHTS.stat().st_size < 1_000_000
    if not ASTRONAUT.is_file():
        pytest.skip("needs ../shared/real/portrait/images/skimage_astronaut.png beside the checkout")
    image = cv2.imread(str(ASTRONAUT))
    assert image is not None
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    resized = cv2.resize(image, (192, 192), interpolation=cv2.INTER_LINEAR)
    with torch.inference_mode():
        logits = network(script.to_input([resized], model_spec("pphumanseg_lite").input))
    person = (logits.argmax(1)[0] == 1).numpy()
    assert person.shape == (96, 96)
    assert person[18:32, 36:46].mean() > 0.9  # face
    assert person[60:90, 20:45].mean() > 0.9  # suit
    assert person[:30, 58:70].mean() < 0.1  # wall between head and shuttle
    assert person[52:65, 72:].mean() < 0.1  # dark table
    assert 0.3 < person.mean() < 0.65  # 0.42 by eye without the helmet; flag and shuttle are partly taken for person
