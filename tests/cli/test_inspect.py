"""`edgeseg inspect`: what a network returns, on the terminal, and what cannot be exported in one sentence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.cli.conftest import Edgeseg


class _Two(nn.Module):
    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.aux, self.main, self.keys = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 4, 1), keys

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.keys, (self.aux(image), self.main(image)), strict=True))


def named() -> nn.Module:
    return _Two("aux", "out")


def unnamed() -> nn.Module:
    return _Two("first", "second")


def broken() -> nn.Module:
    network = nn.Conv2d(3, 4, 1)
    nn.init.constant_(network.weight, torch.nan)
    return network


def test_what_is_seen(edgeseg: Edgeseg) -> None:
    done = edgeseg("inspect", f"{__name__}:named", "--size", "16x24")
    assert done.code == 0
    rows = {line[:20].strip(): line[20:].strip() for line in done.out.splitlines()}
    assert (rows["logits"], rows["channels"], rows["size of the logits"]) == ("'out' of what it returns", "4", "16x24")
    assert "'out' was taken" in done.out


def soft() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1))


def one() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid())


@pytest.mark.parametrize(
    ("factory", "kind"),
    [
        ("named", "logits"),
        ("soft", "probabilities that sum to 1 at every pixel"),
        ("one", "a probability: one channel within 0..1"),
    ],
)
def test_what_the_values_look_like(edgeseg: Edgeseg, factory: str, kind: str) -> None:
    done = edgeseg("inspect", f"{__name__}:{factory}", "--size", "16x24")
    rows = {line[:20].strip(): line[20:].strip() for line in done.out.splitlines()}
    assert (done.code, rows["looks like"]) == (0, kind)


class _Mask(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return 255.0 * (image[:, :1] > 0)


def mask() -> nn.Module:
    return _Mask()


def test_a_mask_is_seen_with_its_threshold(edgeseg: Edgeseg) -> None:
    done = edgeseg("inspect", f"{__name__}:mask", "--size", "16x24")
    assert (done.code, "127.5 for 0..255" in done.sentence) == (4, True)
    done = edgeseg("inspect", f"{__name__}:mask", "--size", "16x24", "--threshold", "127.5")
    assert (done.code, "0 .. 255" in done.out) == (0, True)


def test_several_maps_need_a_word(edgeseg: Edgeseg) -> None:
    done = edgeseg("inspect", f"{__name__}:unnamed", "--size", "16x24")
    assert done.code == 2
    assert "first (1, 5, 16, 24), second (1, 4, 16, 24)" in done.sentence
    done = edgeseg("inspect", f"{__name__}:unnamed", "--size", "16x24", "--take", "second")
    assert (done.code, "'second' of what it returns" in done.out) == (0, True)


def test_a_broken_network_is_one_sentence(edgeseg: Edgeseg) -> None:
    done = edgeseg("inspect", f"{__name__}:broken", "--size", "16x24")
    assert done.code == 4
    assert "NaN or infinity is in 'weight'" in done.sentence


def test_a_registered_network_and_a_size_it_does_not_take(edgeseg: Edgeseg) -> None:
    done = edgeseg("inspect", "espnet_c_p2_q3", "--size", "64x96")
    assert (done.code, "a tensor alone" in done.out) == (0, True)
    assert [line.split() for line in done.out.splitlines() if "looks like" in line] == [["looks", "like", "logits"]]
    assert edgeseg("inspect", "espnet_c_p2_q3", "--size", "65x96").code == 2
