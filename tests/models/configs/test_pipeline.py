"""How test pictures become the network's input, in the words of mmsegmentation 0.x and 1.x."""

from __future__ import annotations

from typing import Any

import pytest

from edgeseg.errors import UsageError
from edgeseg.models.configs.pipeline import dataset_of, read_preparation
from edgeseg.specs import InputSpec, ResizeRule

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
BOXED = ResizeRule("letterbox", "linear", (124, 116, 104))
LOAD, PACK = {"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}


def _config(
    *steps: dict[str, Any], test_cfg: dict[str, Any] | None = None, crop: Any = None, **preprocessor: Any
) -> dict[str, Any]:
    """A config of 1.x."""
    given = {"type": "SegDataPreProcessor", "mean": list(MEAN), "std": list(STD), "bgr_to_rgb": True, **preprocessor}
    config = {
        "model": {"data_preprocessor": given, "test_cfg": test_cfg or {"mode": "whole"}},
        "test_dataloader": {"dataset": {"type": "CityscapesDataset", "pipeline": [LOAD, *steps, PACK]}},
    }
    return {**config, "crop_size": crop} if crop else config


def _old(**normalise: Any) -> dict[str, Any]:
    """A config of 0.x."""
    steps = [{"type": "Resize", "keep_ratio": True}, {"type": "Normalize", "mean": MEAN, "std": STD, **normalise}]
    flips = {"type": "MultiScaleFlipAug", "img_scale": (2048, 1024), "flip": False, "transforms": steps}
    return {"model": {}, "data": {"test": {"type": "CityscapesDataset", "pipeline": [LOAD, flips]}}}


def _resize(scale: Any, **more: Any) -> dict[str, Any]:
    return {"type": "Resize", "scale": scale, **more}


def test_both_versions_say_the_same() -> None:
    new, old = read_preparation(_config(_resize((2048, 1024), keep_ratio=True))), read_preparation(_old())
    assert new == old
    assert new.input == InputSpec("rgb", MEAN, STD)
    assert new.size == (1024, 2048)
    assert new.resize == BOXED
    assert ["padded with the RGB pixel (124, 116, 104), the mean" in note for note in new.notes] == [True]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (_config(bgr_to_rgb=False), InputSpec("bgr", MEAN, STD)),
        (_config(bgr_to_rgb=False, rgb_to_bgr=True), InputSpec("rgb", MEAN, STD)),
        (_config(mean=None, std=None), InputSpec("rgb")),
        (_config(mean=[0, 0, 0], std=[255, 255, 255]), InputSpec("rgb", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))),
        (_old(to_rgb=False), InputSpec("bgr", MEAN, STD)),
        (_old(to_rgb=True), InputSpec("rgb", MEAN, STD)),
        ({"model": {}}, None),
        ({"model": {}, "data_preprocessor": {"mean": MEAN, "std": STD}}, InputSpec("bgr", MEAN, STD)),
        ({"model": {"data_preprocessor": None}}, None),
        ({"model": {}, "img_norm_cfg": {"mean": MEAN, "std": STD, "to_rgb": False}}, InputSpec("bgr", MEAN, STD)),
        ({"model": {}, "img_norm_cfg": {"mean": MEAN, "std": STD}}, InputSpec("rgb", MEAN, STD)),
    ],
)
def test_normalisation(config: dict[str, Any], expected: InputSpec | None) -> None:
    assert read_preparation(config).input == expected


@pytest.mark.parametrize(
    ("config", "size", "rule"),
    [
        (_config(_resize((1024, 512), keep_ratio=False)), (512, 1024), ResizeRule("stretch")),
        (_config(_resize((1024, 512))), (512, 1024), ResizeRule("stretch")),
        (_config(_resize((960, 720), keep_ratio=True)), (720, 960), BOXED),
        (_config(_resize(512)), (512, 512), ResizeRule("stretch")),
        (_config(_resize((1024, 512), interpolation="bicubic")), (512, 1024), ResizeRule("stretch", "cubic")),
        (_config(_resize((64, 32), backend="pillow")), (32, 64), ResizeRule("stretch", "pillow_bilinear")),
        (_config(crop=(512, 1024)), (512, 1024), None),
        (_config(size=(512, 1024)), (512, 1024), None),
        (_config(), None, None),
        (_config(_resize(None, scale_factor=0.5), size=(64, 96)), (64, 96), None),
        (_config(_resize((2048, 512), keep_ratio=True), size=(448, 512)), (448, 512), BOXED),
        (_config(_resize((2048, 512), keep_ratio=True)), (512, 512), BOXED),
        (_config(_resize((2048, 512), keep_ratio=False)), (512, 2048), ResizeRule("stretch")),
    ],
)  # fmt: skip
def test_sizes_are_height_and_width(
    config: dict[str, Any], size: tuple[int, int] | None, rule: ResizeRule | None
) -> None:
    found = read_preparation(config)
    assert (found.size, found.resize) == (size, rule)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (_config(_resize((2048, 512), keep_ratio=True), size=(512, 512)), "give --size for that of your pictures"),
        (_config(_resize(None, scale_factor=0.5)), "scales pictures by a factor"),
        (_config({"type": "Pad", "size_divisor": 32}), "Pad is left out"),
        (_config({"type": "ResizeToMultiple", "size_divisor": 32}), "ResizeToMultiple is left out"),
        (_config(test_cfg={"size_divisor": 32}), "whole"),
        (_config({"type": "MultiScaleFlipAug", "img_scale": (64, 32), "flip": True}), "flips"),
        (_config(size=(512, 1024)), "that of its crops, 512x1024"),
        (_config(test_cfg={"mode": "slide", "crop_size": (768, 768), "stride": (513, 513)}), "windows of 768x768"),
    ],
)
def test_what_edgeseg_does_otherwise_is_said(config: dict[str, Any], words: str) -> None:
    if words == "whole":
        config["model"]["test_cfg"] = {}
        config["model"]["data_preprocessor"]["test_cfg"] = {"size_divisor": 32}
        words = "padding of test pictures is left out"
    assert any(words in note for note in read_preparation(config).notes)


def test_the_mean_is_padded_with_in_rgb() -> None:
    found = read_preparation(_config(_resize((64, 32), keep_ratio=True), bgr_to_rgb=False, mean=[10.4, 20, 300]))
    assert found.resize == ResizeRule("letterbox", "linear", (255, 20, 10))


def test_the_networks_own_mean_is_padded_with_where_the_config_has_none() -> None:
    config = {"model": {}, "test_pipeline": [_resize((64, 32), keep_ratio=True)]}
    assert read_preparation(config, InputSpec("bgr", (1.0, 2.0, 3.0))).resize == ResizeRule(
        "letterbox", pad_value=(3, 2, 1)
    )
    assert read_preparation(config).resize == ResizeRule("letterbox")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (_config({"type": "CLAHE"}), "the step CLAHE, which edgeseg does not do"),
        (_config({"type": "mmdet.Resize"}), "mmdet.Resize"),
        (_config({"type": 3}), "{'type': 3}"),
        (_config({"type": "LoadImageFromFile", "color_type": "grayscale"}), "color_type='grayscale'"),
        (_config({"type": "Normalize", "mean": MEAN, "std": STD}), "normalises twice"),
        (_config(type="mmdet.DetDataPreprocessor"), "is a mmdet.DetDataPreprocessor"),
        (_config(own=1), "has 'own'"),
        (_config(mean=[1, 2]), "mean is [1, 2]; it must be three"),
        (_config(mean=[1, 2, "3"]), "it must be three"),
        (_config(mean=[1, 2, float("nan")]), "it must be three"),
        (_config(mean=[[1], [2], [3]]), "it must be three"),
        (_config(std=None), "one of mean and std"),
        (_config(std=[1, 0, 1]), "must not be zero"),
        (_config(_resize((64, 32), interpolation="lanczos")), "cv2 lanczos"),
        (_config(_resize((64,))), "two whole numbers"),
        (_config(_resize((64, 0))), "two whole numbers"),
        (_config(_resize((64, 99_999))), "from 1 to 65535"),
        (_config(_resize("64x32")), "two whole numbers"),
        (_config(_resize((64.5, 32))), "two whole numbers"),
        (_config(test_cfg={"mode": "tiles"}), "mode is 'tiles'"),
        ({"model": {"test_cfg": 3}}, "test_cfg is 3"),
        ({"model": {"data_preprocessor": [1]}}, "data_preprocessor is [1]"),
        ({"model": {}, "test_pipeline": {"type": "Resize"}}, "no list of dictionaries"),
        ({"model": {}, "test_pipeline": ["Resize"]}, "no list of dictionaries"),
    ],
)
def test_what_cannot_be_done_is_named(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_preparation(config)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_test_pictures_are_those_of_the_data_set_that_is_tested() -> None:
    mine, other = {"type": "Mine"}, {"type": "Other"}
    assert dataset_of({"val_dataloader": {"dataset": other}, "test_dataloader": {"dataset": mine}}) == mine
    assert dataset_of({"val_dataloader": {"dataset": mine}, "test_dataloader": None}) == mine
    assert dataset_of({"data": {"train": other, "test": [mine, other]}}) == mine
    wrapped = {"type": "ConcatDataset", "datasets": [{"type": "RepeatDataset", "dataset": mine}, other]}
    assert dataset_of({"test_dataloader": {"dataset": wrapped}}) == mine
    assert dataset_of({"train_dataloader": {"dataset": mine}}) == mine
    assert dataset_of({"data": 3}) == {}
    trained = {"type": "Mine", "pipeline": [{"type": "RandomCrop"}]}
    assert read_preparation({"model": {}, "train_dataloader": {"dataset": trained}}).size is None
