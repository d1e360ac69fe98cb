"""Networks of 1, 2, 4, 5 and 13 channels, from the module to labels: what PyTorch computes by hand comes out."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from edgeseg import Predictor
from edgeseg.bundle import Bundle, open_bundle
from edgeseg.errors import InputError, UsageError
from edgeseg.export import export_model
from edgeseg.export.channels import settle_channels
from edgeseg.export.deploy import DeployNetwork, check_normalisation
from edgeseg.models import custom_spec
from edgeseg.models.source import resolve_network
from edgeseg.sources import open_iterable
from edgeseg.specs import InputSpec, ResizeRule
from tests.export.channel_networks import Classes

SIZE = (32, 48)
TARGETS = ("ort", "openvino")
COUNTS = (1, 2, 4, 5, 13)
GREY_NOTE = "the network takes 1 channel, so the graph makes every picture grey (0.299 R + 0.587 G + 0.114 B)"


def _spec(channels: int) -> InputSpec:
    numbers = [20.0 + 7 * k for k in range(channels)]
    return InputSpec(mean=tuple(numbers), std=tuple(50.0 + x for x in numbers))


@functools.cache
def _bundle(folder: Path, channels: int, mode: Any) -> Bundle:
    spec = custom_spec("net", input=_spec(channels), resize=ResizeRule(mode, "linear", pad_value=9))
    report = export_model(
        Classes(channels), targets=TARGETS, size=SIZE, spec=spec, out=folder, name=f"{mode}{channels}"
    )
    assert [parity.differing for parity in report.parity] == [0, 0]
    return open_bundle(report.path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("channels")


def _picture(channels: int, size: tuple[int, int] = (45, 70)) -> NDArray[np.uint8]:
    """Smooth and noisy: uint8 (H, W, channels), and of RGB for one channel."""
    generator, count = np.random.default_rng(channels), 3 if channels == 1 else channels
    coarse = generator.integers(0, 256, (6, 8, count), dtype=np.uint8)
    planes = [cv2.resize(np.ascontiguousarray(coarse[..., k]), size[::-1], interpolation=2) for k in range(count)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def _by_hand(image: NDArray[np.uint8], channels: int, mode: str) -> NDArray[Any]:
    """Labels at the picture's size, channel by channel."""
    height, width = image.shape[:2]
    inner, top, left = SIZE, 0, 0
    if mode == "letterbox":
        scale = min(SIZE[0] / height, SIZE[1] / width)
        inner = (round(height * scale), round(width * scale))
        top, left = (SIZE[0] - inner[0]) // 2, (SIZE[1] - inner[1]) // 2
    if channels == 1:
        resized = cv2.resize(image, inner[::-1], interpolation=cv2.INTER_LINEAR_EXACT).astype(np.float64)
        planes: list[Any] = [resized @ (0.299, 0.587, 0.114)]
    else:
        exact = cv2.INTER_LINEAR_EXACT
        planes = [
            cv2.resize(np.ascontiguousarray(image[..., k]), inner[::-1], interpolation=exact) for k in range(channels)
        ]
    x = np.full((channels, *SIZE), 9.0)
    for k, plane in enumerate(planes):
        x[k, top : top + inner[0], left : left + inner[1]] = plane
    spec = _spec(channels)
    x = (x - np.array(spec.mean)[:, None, None]) / np.array(spec.std)[:, None, None]
    with torch.inference_mode():
        logits = Classes(channels).double()(torch.from_numpy(x)[None])
        if mode == "stretch":
            return F.interpolate(logits, (height, width), mode="bilinear").argmax(1)[0].numpy()
        full = F.interpolate(logits, SIZE, mode="bilinear")[..., top : top + inner[0], left : left + inner[1]]
    return full.argmax(1)[0].numpy()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("channels", COUNTS)
def test_labels_are_those_of_pytorch(folder: Path, channels: int, target: str) -> None:
    image = _picture(channels)
    with Predictor(_bundle(folder, channels, "stretch"), target) as predictor:
        labels = predictor(image).labels
        assert predictor.self_test().agreement == 1.0
    wanted = _by_hand(image, channels, "stretch")
    assert len(np.unique(wanted)) > 1
    assert np.mean(labels != wanted) <= 1e-3


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("channels", [1, 4, 5])
def test_labels_in_a_letterbox(folder: Path, channels: int, target: str) -> None:
    image = _picture(channels, (31, 31))
    bundle = _bundle(folder, channels, "letterbox")
    assert bundle.manifest.resize.pad_value == (9,) * (3 if channels == 1 else channels)
    with Predictor(bundle, target, output=(32, 32)) as predictor:
        labels = predictor(image).labels
    wanted = _by_hand(image, channels, "letterbox")
    assert wanted.shape == (32, 32)
    assert len(np.unique(wanted)) > 1
    assert np.mean(labels != wanted) <= 2e-3


def test_grey_of_equal_channels_is_the_value_itself() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    deployed = DeployNetwork(nn.Identity(), InputSpec(mean=(0.0,), std=(1.0,)))
    assert torch.equal(deployed.normalise(values), values[..., :1].permute(0, 3, 1, 2).float())


def test_a_grey_picture_is_the_same_in_every_form(folder: Path) -> None:
    grey = np.ascontiguousarray(_picture(1)[..., 0])
    cv2.imwrite(str(folder / "grey.png"), grey)
    cv2.imwrite(str(folder / "grey16.png"), grey.astype(np.uint16) * 257)
    rgb = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    with Predictor(_bundle(folder, 1, "stretch")) as predictor:
        forms: list[Any] = [
            grey,
            grey[..., None],
            rgb,
            grey.astype(np.uint16) * 257,
            folder / "grey.png",
            folder / "grey16.png",
        ]
        labels = [result.labels for result in predictor.predict_batch(forms)]
        swapped = predictor(_picture(1)[..., ::-1], color="bgr").labels
        assert np.array_equal(swapped, predictor(_picture(1)).labels)
    assert all(np.array_equal(other, labels[0]) for other in labels)


@pytest.mark.parametrize("channels", [2, 4, 5, 13])
def test_files_stacks_and_arrays_give_the_same(folder: Path, channels: int) -> None:
    image = _picture(channels)
    pages = [np.ascontiguousarray(image[..., k]) for k in range(channels)]
    np.save(folder / "a.npy", image)
    cv2.imwritemulti(str(folder / "a.tif"), pages)
    stack = [folder / f"{k}.png" for k in range(channels)]
    for path, page in zip(stack, pages, strict=True):
        cv2.imwrite(str(path), page)
    with Predictor(_bundle(folder, channels, "stretch")) as predictor:
        forms: list[Any] = [
            image,
            image.astype(np.uint16) * 257,
            folder / "a.npy",
            str(folder / "a.tif"),
            stack,
            tuple(stack),
        ]
        results = predictor.predict_batch(forms)
        streamed = list(predictor.stream([folder / "a.npy", stack, image]))
        (alone,) = list(predictor.stream(folder / "a.tif"))
    wanted = results[0]
    assert all(np.array_equal(result.labels, wanted.labels) for result in [*results, *streamed, alone])  # type: ignore[union-attr]
    assert wanted.image is not None
    seen = image[..., :3] if channels > 2 else image[..., [0, 0, 0]]
    np.testing.assert_array_equal(wanted.image, seen)
    assert wanted.overlay().shape == (45, 70, 3)
    assert results[4].source == str(stack[0])


def test_the_order_of_channels_matters(folder: Path) -> None:
    image = _picture(4)
    with Predictor(_bundle(folder, 4, "stretch")) as predictor:
        one, other = predictor(image).labels, predictor(image[..., [2, 1, 0, 3]]).labels
    assert not np.array_equal(one, other)


def test_three_files_are_the_channels_of_a_colour_network(folder: Path) -> None:
    image, stack = _picture(3), [folder / f"rgb{k}.png" for k in range(3)]
    for k, path in enumerate(stack):
        cv2.imwrite(str(path), np.ascontiguousarray(image[..., k]))
    with Predictor(_bundle(folder, 3, "stretch")) as predictor:
        np.testing.assert_array_equal(predictor(stack).labels, predictor(image).labels)


def test_another_number_of_channels_is_one_sentence(folder: Path) -> None:
    image = _picture(5)
    np.save(folder / "five.npy", image)
    with Predictor(_bundle(folder, 4, "stretch")) as predictor:
        for wrong in (image, image[..., :3], image[..., 0], folder / "five.npy"):
            with pytest.raises(InputError, match="and this network takes 4 channels"):
                predictor(wrong)
        with pytest.raises(InputError, match="colour order 'bgr' is for pictures of 3 channels"):
            predictor(image[..., :4], color="bgr")
        (failure,) = list(predictor.stream(open_iterable([_picture(3)])))
        assert "takes 4 channels; open its source with channels=4" in str(failure.error)  # type: ignore[union-attr]


def test_a_list_is_not_for_one_channel(folder: Path) -> None:
    with Predictor(_bundle(folder, 1, "stretch")) as predictor, pytest.raises(InputError, match="give the path alone"):
        predictor([folder / "grey.png"])


def test_the_bundle_says_how_many_channels(folder: Path) -> None:
    manifest = _bundle(folder, 5, "stretch").manifest
    assert manifest.input == _spec(5)
    assert manifest.input.channels == 5
    assert "sample.tif" in manifest.files
    assert "sample.png" not in manifest.files
    assert "sample.png" in _bundle(folder, 1, "stretch").manifest.files


def test_given_pictures_are_verified_on(tmp_path: Path) -> None:
    for name, channels in (("a.npy", 4), ("b.npy", 4), ("sample.npy", 4)):
        (tmp_path / "p").mkdir(exist_ok=True)
        np.save(tmp_path / ("" if name == "sample.npy" else "p") / name, _picture(channels))
    report = export_model(
        Classes(4), size=SIZE, channels=4, out=tmp_path, parity_images=tmp_path / "p", sample=tmp_path / "sample.npy"
    )
    assert [(parity.images, parity.differing) for parity in report.parity] == [(5, 0)]
    np.save(tmp_path / "p" / "c.npy", _picture(5))
    with pytest.raises(InputError, match=r"c.npy' has shape .* takes 4 channels"):
        export_model(Classes(4), size=SIZE, channels=4, out=tmp_path, parity_images=tmp_path / "p")


def test_dynamic_batch_labels_and_reference(tmp_path: Path) -> None:
    report = export_model(Classes(4), size=SIZE, channels=4, out=tmp_path, dynamic=True, name="d")
    with Predictor(report.path, input_size=(64, 64)) as predictor:
        assert predictor(_picture(4)).size == (45, 70)
    report = export_model(Classes(2), size=SIZE, channels=2, out=tmp_path, batch=2, output="labels", name="b")
    assert any("100.0000%" in note for note in report.notes)
    with Predictor(report.path) as predictor:
        first, second = predictor.predict_batch([_picture(2), _picture(2)])
    np.testing.assert_array_equal(first.labels, second.labels)


# --- how many channels a network takes ---------------------------------------------------------------------------


def _settled(module: nn.Module, channels: int | None = None, **conventions: Any) -> Any:
    source = resolve_network(module)
    return settle_channels(source.but(**conventions) if conventions else source, SIZE, channels)


def test_three_channels_stay_as_they_are() -> None:
    source = _settled(Classes(3))
    assert source.spec.input == InputSpec.imagenet()
    assert source.notes == ()


def test_one_channel_is_grey_in_the_graph_and_said() -> None:
    source = _settled(Classes(1))
    assert source.spec.input == InputSpec.plain(1)
    assert source.notes == (
        GREY_NOTE,
        "no mean and std were given: pixels are divided by 255; say otherwise with --mean and --std",
    )
    given = _settled(Classes(1), input=InputSpec(mean=(127.5,), std=(60.0,)))
    assert given.spec.input.mean == (127.5,)
    assert given.notes == (GREY_NOTE,)


@pytest.mark.parametrize("channels", [2, 4, 5, 6, 12, 13, 200])
def test_other_channels_are_named_and_asked_for(channels: int) -> None:
    with pytest.raises(UsageError, match=rf"takes {channels} channels and not 3, .* say --channels {channels} "):
        _settled(Classes(channels))
    assert _settled(Classes(channels), channels).spec.input == InputSpec.plain(channels)


class _Late(nn.Module):
    """Its first convolution in order of registration is not the first in order of computation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head, self.norm, self.stem = nn.Conv2d(9, 2, 1), nn.BatchNorm2d(channels), nn.Conv2d(channels, 9, 1)

    def forward(self, image: torch.Tensor) -> Any:
        return self.head(self.stem(self.norm(image)))


class _Means(nn.Module):
    """Subtracts its own means first, which spread one channel over four."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.Buffer(torch.ones(1, 4, 1, 1))
        self.stem = nn.Conv2d(4, 2, 1)

    def forward(self, image: torch.Tensor) -> Any:
        return self.stem(image - self.means)


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (_Late(6), "takes 6 channels"),
        (nn.Sequential(nn.Conv2d(4, 8, 1, groups=4), nn.Conv2d(8, 2, 1)), "takes 4 channels"),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, 2, 1), nn.PixelShuffle(1)), "takes 4 channels"),
        (_Means(), "takes 1 or 4 channels"),
    ],
)
def test_channels_are_found_by_running(module: nn.Module, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        _settled(module)


def test_numbers_of_mean_and_std_must_fit() -> None:
    spread = _settled(Classes(4), 4, input=InputSpec(mean=(1.0,), std=(2.0,)))
    assert spread.spec.input == InputSpec(mean=(1.0,) * 4, std=(2.0,) * 4)
    assert _settled(Classes(3), input=InputSpec(mean=(1.0,), std=(2.0,))).spec.input.channels == 3
    assert _settled(Classes(4), input=InputSpec.plain(4)).spec.input.channels == 4
    with pytest.raises(UsageError, match="mean and std have 3 numbers each, and the network takes 4 channels; give 4"):
        _settled(Classes(4), 4, input=InputSpec(mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 3.0)))
    with pytest.raises(
        UsageError, match="mean and std have 3 numbers each, and the network takes 1 channel; give 1 each"
    ):
        _settled(Classes(1), 1, input=InputSpec(mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 3.0)))
    with pytest.raises(UsageError, match="pad_value has 3 numbers, and the picture 4 channels"):
        _settled(Classes(4), 4, resize=ResizeRule("letterbox", pad_value=(1, 2, 3)))


def test_a_registered_network_takes_its_own() -> None:
    source = resolve_network("regseg", num_classes=3)
    assert settle_channels(source, SIZE) is source
    one = settle_channels(source.but(input=InputSpec(mean=(5.0,), std=(6.0,))), SIZE)
    assert one.spec.input == InputSpec(mean=(5.0,) * 3, std=(6.0,) * 3)
    with pytest.raises(UsageError, match="the registered network 'regseg' takes 3 channels, and --channels is 4"):
        settle_channels(source, SIZE, 4)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_the_normalisation_is_checked_against_numpy(channels: int) -> None:
    check_normalisation(_spec(channels))
