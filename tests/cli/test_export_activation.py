"""`edgeseg export --activation`: said, found out, contradicted; and the scores that follow."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.cli.conftest import Edgeseg

RAW = ("--mean", "0", "0", "0", "--std", "1", "1", "1", "--size", "16x24")


class _Red(nn.Module):
    """One channel that is 0 where red is 127.5, or a second that is its negative."""

    def __init__(self, channels: int, *, soft: bool) -> None:
        super().__init__()
        self.channels, self.soft = channels, soft

    def forward(self, image: Tensor) -> Tensor:
        logit = 0.05 * image[:, :1] - 6.375
        if self.channels == 1:
            return torch.sigmoid(logit) if self.soft else logit
        both = torch.cat((-logit, logit), 1) / 2
        return both.softmax(1) if self.soft else both


def one() -> nn.Module:
    return _Red(1, soft=True)


def two() -> nn.Module:
    return _Red(2, soft=True)


def logits() -> nn.Module:
    return _Red(2, soft=False)


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    red = np.tile(np.linspace(0, 255, 24).round().astype(np.uint8), (16, 1))
    cv2.imwrite(str(tmp_path / "ramp.png"), np.repeat(red[..., None], 3, 2))
    return tmp_path / "ramp.png"


@pytest.mark.parametrize(
    ("factory", "options", "activation"),
    [
        ("one", (), "sigmoid"),
        ("two", (), "softmax"),
        ("two", ("--activation", "sigmoid"), "sigmoid"),
        ("logits", (), "none"),
    ],
)
def test_scores_are_the_same_probabilities(
    edgeseg: Edgeseg, tmp_path: Path, ramp: Path, factory: str, options: tuple[str, ...], activation: str
) -> None:
    made = edgeseg("export", f"{__name__}:{factory}", *RAW, *options, "--out", str(tmp_path), "--json")
    report = json.loads(made.out)
    assert report["postprocess"]["activation"] == activation
    assert len(report["notes"]) == (activation != "none" and not options)
    done = edgeseg("predict", report["path"], str(ramp), "--labels", "--scores", "--out", str(tmp_path / "p"))
    assert (made.code, done.code) == (0, 0)
    red = np.asarray(cv2.imread(str(ramp)))[..., 2].astype(np.float64)
    share = 1 / (1 + np.exp(6.375 - 0.05 * red))
    labels, scores = (np.asarray(cv2.imread(str(tmp_path / f"p/ramp_{kind}.png"), -1)) for kind in ("labels", "scores"))
    assert np.array_equal(labels, red > 127.5)
    assert np.abs(scores - 255 * np.maximum(share, 1 - share)).max() <= 0.51


@pytest.mark.parametrize(
    ("factory", "word", "told"),
    [
        ("logits", "softmax", "activation softmax was given (--activation), whose values lie within 0..1"),
        ("logits", "sigmoid", "leave it out for logits"),
        ("one", "softmax", "a softmax is 1 everywhere"),
        ("two", "sofmax", "did you mean 'softmax'?"),
    ],
)
def test_a_contradiction_is_one_sentence(edgeseg: Edgeseg, tmp_path: Path, factory: str, word: str, told: str) -> None:
    done = edgeseg("export", f"{__name__}:{factory}", *RAW, "--activation", word, "--out", str(tmp_path))
    assert (done.code, told in done.sentence) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_the_report_says_what_is_in_the_network(edgeseg: Edgeseg, tmp_path: Path) -> None:
    done = edgeseg("export", f"{__name__}:two", *RAW, "--out", str(tmp_path), "--activation", "softmax")
    assert (done.code, "2 classes (softmax in the network)" in done.out) == (0, True)
