"""`--mean` and `--std` take as many numbers as the network has channels; `--channels` says how many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.bundle import open_bundle
from edgeseg.cli.export_numbers import joined, numbers_in
from edgeseg.errors import UsageError
from edgeseg.specs import InputSpec
from tests.cli.conftest import Edgeseg

GREY, FOUR, THIRTEEN = (f"tests.export.channel_networks:{name}" for name in ("grey", "four", "thirteen"))
COLOUR = "tests.export.networks:tiny"
SIZE = ("--size", "32x48")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("net --mean 1 2 3 --std 4 5 6", ["net", "--mean=1 2 3", "--std=4 5 6"]),
        ("--mean 1 2 3 4 net", ["--mean=1 2 3 4", "net"]),
        ("--mean -1 .5 2e1 --json", ["--mean=-1 .5 2e1", "--json"]),
        ("--mean=1 2 --std 1,2", ["--mean=1 2", "--std=1,2"]),
        ("--mean", ["--mean"]),
        ("--mean x 1", ["--mean", "x", "1"]),
        ("--size 32 --batch 2", ["--size", "32", "--batch", "2"]),
    ],
)
def test_numbers_that_follow_are_joined(given: str, wanted: list[str]) -> None:
    assert joined(given.split()) == wanted


def test_what_is_no_number_is_one_sentence() -> None:
    assert numbers_in("--mean", "1,2 3") == (1.0, 2.0, 3.0)
    for text in ("", "1,x", ","):
        with pytest.raises(UsageError, match="is no list of numbers; give one per channel, or one for all"):
            numbers_in("--mean", text)


@pytest.mark.parametrize(
    ("network", "words", "wanted"),
    [
        (FOUR, "--channels 4 --mean 1 2 3 4 --std 5 6 7 8", InputSpec(mean=(1, 2, 3, 4), std=(5, 6, 7, 8))),
        (FOUR, "--mean 1 2 3 4 --std 5 --scale 0.5", InputSpec(mean=(1, 2, 3, 4), std=(5,) * 4, scale=0.5)),
        (THIRTEEN, "--channels 13", InputSpec.plain(13)),
        (GREY, "--mean 127.5 --std 60", InputSpec(mean=(127.5,), std=(60.0,))),
        (GREY, "", InputSpec.plain(1)),
        (COLOUR, "--mean 127.5 --std 60", InputSpec(mean=(127.5,) * 3, std=(60.0,) * 3)),
        (COLOUR, "--mean 1 --std 2 --channel-order bgr", InputSpec("bgr", (1.0,) * 3, (2.0,) * 3)),
    ],
)
def test_the_input_of_the_words(edgeseg: Edgeseg, network: str, words: str, wanted: Any, tmp_path: Path) -> None:
    done = edgeseg("export", network, *SIZE, *words.split(), "--target", "ort", "--name", "n", "--out", tmp_path)
    assert done.code == 0, done.err
    assert open_bundle(tmp_path / "n.edgeseg").manifest.input == wanted
    assert ("makes every picture grey" in done.out + done.err) == (network == GREY)


@pytest.mark.parametrize(
    ("network", "words", "code", "told"),
    [
        (FOUR, "", 2, "takes 4 channels and not 3, as pictures have; say --channels 4"),
        (FOUR, "--channels 5", 4, "takes 4 channels, and 5 were said"),
        (
            FOUR,
            "--channels 4 --mean 1 2 3 --std 1 2 3",
            2,
            "--mean has 3, --std has 3, --channels is 4; give one number",
        ),
        (FOUR, "--mean 1 2 3 4 --std 1 2", 2, "--mean has 4, --std has 2; give one number per channel, or one for all"),
        (FOUR, "--channels 4 --mean 1", 2, "4 asked for; give both --mean and --std"),
        (FOUR, "--channels 4 --mean x", 2, "--mean 'x' is no list of numbers"),
        (FOUR, "--channels 600", 2, "600 channels were asked for; a network's input has 1 to 512"),
        (GREY, "--channel-order bgr", 4, "takes 1 channel, and 3 were said"),
        ("regseg", "--channels 4", 2, "the registered network 'regseg' takes 3 channels, and --channels is 4"),
    ],
)
def test_wrong_words_are_one_sentence(
    edgeseg: Edgeseg, network: str, words: str, code: int, told: str, tmp_path: Path
) -> None:
    size = () if network == "regseg" else SIZE
    done = edgeseg("export", network, *size, *words.split(), "--out", tmp_path)
    assert done.code == code, done.err
    assert told in done.err
    assert list(tmp_path.iterdir()) == []


def test_inspect_says_how_many(edgeseg: Edgeseg) -> None:
    done = edgeseg("inspect", GREY, *SIZE)
    assert done.code == 0, done.err
    assert " ".join(done.out.split()).count("channels it takes 1") == 1
    assert "makes every picture grey" in done.out
    done = edgeseg("inspect", FOUR, *SIZE, "--channels", 4)
    assert "channels it takes 4" in " ".join(done.out.split())
    done = edgeseg("inspect", FOUR, *SIZE)
    assert done.code == 0
    assert "channels it takes 4" in " ".join(done.out.split())
    assert "takes 4 channels and not 3, as pictures have; say --channels 4" in " ".join(done.out.split())


def test_a_folder_of_four_channels_from_export_to_overlays(edgeseg: Edgeseg, tmp_path: Path) -> None:
    folder, labels = tmp_path / "pictures", tmp_path / "labels"
    folder.mkdir()
    labels.mkdir()
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    np.save(folder / "a.npy", image)
    cv2.imwritemulti(str(folder / "b.tif"), [np.ascontiguousarray(image[..., k]) for k in range(4)])
    cv2.imwrite(str(folder / "c.png"), image[..., [2, 1, 0, 3]])
    words = ("--parity-images", folder, "--sample", folder / "b.tif", "--channels", 4, "--out", tmp_path, "--name", "n")
    done = edgeseg("export", FOUR, *SIZE, *words, "--target", "ort", "openvino")
    assert done.code == 0, done.err
    bundle = tmp_path / "n.edgeseg"
    assert open_bundle(bundle).manifest.parity[0].images == 6
    assert edgeseg("verify", bundle, "--images", folder).code == 0
    done = edgeseg("predict", bundle, folder, "--labels", "--overlay", "--cutout", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    maps: list[Any] = [cv2.imread(str(tmp_path / "out" / f"{name}_labels.png"), cv2.IMREAD_UNCHANGED) for name in "abc"]
    assert maps[0].shape == (40, 60)
    assert all(np.array_equal(made, maps[0]) for made in maps)
    for name, made in zip("abc", maps, strict=True):
        cv2.imwrite(str(labels / f"{name}.png"), made)
    done = edgeseg("eval", bundle, "--images", folder, "--labels", labels)
    assert done.code == 0, done.err
    assert "mIoU 100.00 %" in done.out
    cv2.imwrite(str(folder / "d.png"), image[..., :3].copy())
    done = edgeseg("predict", bundle, folder, "--out", tmp_path / "out2")
    assert done.code == 9
    assert "d.png' is a PNG of 3 channels, expected 4" in done.err
    stack = [tmp_path / f"{k}.tif" for k in range(4)]
    for k, file in enumerate(stack):
        cv2.imwrite(str(file), np.ascontiguousarray(image[..., k]))
    done = edgeseg("predict", bundle, ",".join(map(str, stack)), "--labels", "--out", tmp_path / "out4")
    assert done.code == 0, done.err
    alone: Any = cv2.imread(str(tmp_path / "out4" / "0_labels.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(alone, maps[0])
    done = edgeseg("predict", bundle, "0", "--out", tmp_path / "out3")
    assert done.code == 7
    assert "is no picture of 4 channels: give files" in done.err
