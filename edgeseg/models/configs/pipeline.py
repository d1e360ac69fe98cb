"""How a config's test pictures become the network's input: channel order, mean and std, size and resize.

mmsegmentation 1.x says it in the model's ``data_preprocessor``, 0.x in the test pipeline's ``Normalize``. Scales there
are width x height; sizes here are height x width. Pixels are 0..255.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeseg.errors import UsageError
from edgeseg.models.configs.options import short_type, shown
from edgeseg.specs import LARGEST_SIDE, InputSpec, ResizeFilter, ResizeRule, Size
from edgeseg.text import one_line

__all__ = ["Preparation", "dataset_of", "read_preparation"]

_ADVICE = "give a config without it, or what stands for it on the command line"
_PREPROCESSORS = ("SegDataPreProcessor", "BaseDataPreprocessor")
_OF_PREPROCESSOR = frozenset({
    "type", "mean", "std", "bgr_to_rgb", "rgb_to_bgr", "size", "size_divisor", "pad_val", "seg_pad_val",
    "batch_augments", "test_cfg", "non_blocking",
})  # fmt: skip
_LEAVES_PIXELS = frozenset({
    "LoadImageFromFile", "LoadImageFromNDArray", "LoadAnnotations", "PackSegInputs", "RandomFlip", "ImageToTensor",
    "DefaultFormatBundle", "Collect", "ToTensor", "Resize", "Normalize", "MultiScaleFlipAug",
})  # fmt: skip
_PADS = frozenset({"Pad", "ResizeToMultiple"})
_FILTERS: dict[tuple[str, str], ResizeFilter] = {
    ("cv2", "bilinear"): "linear", ("cv2", "nearest"): "nearest", ("cv2", "bicubic"): "cubic", ("cv2", "area"): "area",
    ("pillow", "bilinear"): "pillow_bilinear",
}  # fmt: skip
_BOUND = 3
"""From so many times the short side on, the long side of a scale is a bound, not the size of a picture."""


@dataclass(frozen=True)
class Preparation:
    """What a config says of its test pictures.

    Attributes:
        input: None where it says nothing of normalisation.
        size: Height x width; None where it says nothing of it.
        resize: How a picture becomes one of that size; None where it says nothing of it.
        notes: Sentences the user must see.
    """

    input: InputSpec | None
    size: Size | None
    resize: ResizeRule | None
    notes: tuple[str, ...]


def dataset_of(config: Mapping[str, Any], uses: tuple[str, ...] = ("test", "val", "train")) -> Mapping[str, Any]:
    """Return what a config says of the first data set that it has for one of `uses`, taken out of wrappers.

    Example:
        >>> cityscapes = {"type": "CityscapesDataset"}
        >>> dataset_of({"val_dataloader": {"dataset": {"type": "RepeatDataset", "dataset": cityscapes}}})
        {'type': 'CityscapesDataset'}
    """
    data = config.get("data")
    old = data if isinstance(data, Mapping) else {}
    for word in uses:
        loader = config.get(f"{word}_dataloader")
        found = loader.get("dataset") if isinstance(loader, Mapping) else old.get(word)
        while isinstance(found, (Mapping, list, tuple)) and found:
            if not isinstance(found, Mapping):
                found = found[0]
            elif "dataset" in found or "datasets" in found:
                found = found.get("dataset", found.get("datasets"))
            else:
                return found
    return {}


def read_preparation(config: Mapping[str, Any], usual: InputSpec | None = None) -> Preparation:
    """Read how a config's test pictures become the network's input.

    Args:
        config: The whole.
        usual: The network's own normalisation, whose mean is padded with where the config has none.

    Raises:
        UsageError: It does something to pictures that edgeseg does not.

    Example:
        >>> preprocessor = {"type": "SegDataPreProcessor", "mean": [1, 2, 3], "std": [1, 1, 1], "bgr_to_rgb": True}
        >>> scale = {"type": "Resize", "scale": (2048, 1024), "keep_ratio": True}
        >>> found = read_preparation({"model": {"data_preprocessor": preprocessor}, "test_pipeline": [scale]})
        >>> found.input.channel_order, found.input.mean, found.size, found.resize.mode
        ('rgb', (1.0, 2.0, 3.0), (1024, 2048), 'letterbox')
    """
    steps = list(_steps(dataset_of(config, ("test", "val")).get("pipeline") or config.get("test_pipeline") or ()))
    model = config["model"]
    preprocessor = model.get("data_preprocessor") or config.get("data_preprocessor") or {}
    notes = [*_check_steps(steps), *_padded(preprocessor)]
    spec = _input(config, preprocessor, [step for step in steps if short_type(step) == "Normalize"])
    size, resize = _size(config, preprocessor, steps, spec or usual or InputSpec(), notes)
    return Preparation(spec, size, resize, tuple(notes))


def _steps(pipeline: Any) -> Iterator[dict[str, Any]]:
    """Yield a pipeline's steps, those inside 0.x's ``MultiScaleFlipAug`` too, which get its scale."""
    if not isinstance(pipeline, (list, tuple)) or not all(isinstance(step, Mapping) for step in pipeline):
        raise UsageError("the config's test pipeline is no list of dictionaries; check it")
    for step in pipeline:
        yield dict(step)
        if short_type(step) != "MultiScaleFlipAug":
            continue
        for inner in _steps(step.get("transforms") or ()):
            resizes = short_type(inner) == "Resize" and "img_scale" not in inner
            yield {**inner, "img_scale": step.get("img_scale")} if resizes else inner


def _check_steps(steps: list[dict[str, Any]]) -> Iterator[str]:
    """Refuse steps that change pixels in a way that edgeseg does not; say which are left out."""
    for step in steps:
        name = short_type(step)
        if name in _PADS:
            yield f"the test pipeline's {name} is left out: a picture is brought to the graph's size at once"
        elif name not in _LEAVES_PIXELS:
            raise UsageError(
                f"the config's test pipeline has the step {one_line(name, 60) or shown(step)}, which edgeseg does not "
                f"do; {_ADVICE}"
            )
        color = step.get("color_type", "color")
        if name.startswith("Load") and not str(color).startswith("color"):
            raise UsageError(f"the config loads pictures with color_type={shown(color)}; edgeseg's have three colours")
        if name == "MultiScaleFlipAug" and (step.get("flip") or step.get("img_ratios")):
            yield "the test pipeline tests several scales or flips; edgeseg runs one picture once"


def _padded(preprocessor: Any) -> Iterator[str]:
    if not isinstance(preprocessor, Mapping):
        raise UsageError(f"the config's data_preprocessor is {shown(preprocessor)}; it must be a dictionary")
    name = short_type(preprocessor) or _PREPROCESSORS[0]
    if name not in _PREPROCESSORS:
        raise UsageError(f"the config's data_preprocessor is a {one_line(name, 60)}; edgeseg knows SegDataPreProcessor")
    unknown = [key for key in preprocessor if key not in _OF_PREPROCESSOR]
    if unknown:
        raise UsageError(
            f"the config's data_preprocessor has '{one_line(unknown[0], 60)}', which edgeseg does not know"
        )
    if preprocessor.get("test_cfg"):
        yield "the data_preprocessor's padding of test pictures is left out: the graph has one size"


def _input(config: Mapping[str, Any], preprocessor: Mapping[str, Any], steps: list[dict[str, Any]]) -> InputSpec | None:
    """Read mean, std and channel order; 0.x's step converts to RGB unless it says otherwise."""
    if preprocessor.get("mean") is not None and steps:
        raise UsageError(f"the config normalises twice, in data_preprocessor and in the test pipeline; {_ADVICE}")
    if steps:
        return _spec(steps[-1], steps[-1].get("to_rgb", True), "the test pipeline's Normalize")
    if not preprocessor:
        old = config.get("img_norm_cfg")
        return _spec(old, old.get("to_rgb", True), "img_norm_cfg") if isinstance(old, Mapping) else None
    flips = bool(preprocessor.get("bgr_to_rgb")) or bool(preprocessor.get("rgb_to_bgr"))
    return _spec(preprocessor, flips, "data_preprocessor")


def _spec(part: Mapping[str, Any], to_rgb: Any, place: str) -> InputSpec:
    mean, std = part.get("mean"), part.get("std")
    if mean is None and std is None:
        return InputSpec("rgb" if to_rgb else "bgr")
    if mean is None or std is None:
        raise UsageError(f"{place} has one of mean and std; give both, or none")
    for name, values in (("mean", mean), ("std", std)):
        if not isinstance(values, (list, tuple)) or len(values) != 3 or not all(map(_is_number, values)):
            raise UsageError(f"{place}.{name} is {shown(values)}; it must be three finite numbers, one per colour")
    m, s = [float(x) for x in mean], [float(x) for x in std]
    return InputSpec("rgb" if to_rgb else "bgr", (m[0], m[1], m[2]), (s[0], s[1], s[2]))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _size(
    config: Mapping[str, Any],
    preprocessor: Mapping[str, Any],
    steps: list[dict[str, Any]],
    spec: InputSpec,
    notes: list[str],
) -> tuple[Size | None, ResizeRule | None]:
    """Read the graph's size and how pictures are brought to it; append sentences to `notes`."""
    test_cfg = config["model"].get("test_cfg") or config.get("test_cfg") or {}
    window = _window(test_cfg, notes)
    crop = window or _height_width(preprocessor.get("size") or config.get("crop_size"), "crop_size")
    resizes = [step for step in steps if short_type(step) == "Resize"]
    if not resizes:
        if crop:
            notes.append(f"the config resizes no test picture; the size is that of its crops, {_text(crop)}")
        return crop, None
    step = resizes[-1]
    scale = _scale(step)
    if scale is None:
        notes.append("the test pipeline scales pictures by a factor, which is left out: the graph has one size")
        return crop, None
    keeps = bool(step.get("keep_ratio", "scale" not in step))
    if keeps and max(scale) >= _BOUND * min(scale):
        size = crop or (min(scale), min(scale))
        notes.append(
            f"the test pipeline brings the short side of pictures to {min(scale)}, whatever the long one becomes; the "
            f"graph has one size, {_text(size)}: give --size for that of your pictures"
        )
    else:
        size = scale
    return size, _rule(step, keeps, spec, notes)


def _rule(step: Mapping[str, Any], keeps_ratio: bool, spec: InputSpec, notes: list[str]) -> ResizeRule:
    kind = str(step.get("backend") or "cv2"), str(step.get("interpolation", "bilinear"))
    if kind not in _FILTERS:
        raise UsageError(f"the test pipeline resizes by {one_line(' '.join(kind), 60)}, which edgeseg does not")
    if not keeps_ratio:
        return ResizeRule("stretch", _FILTERS[kind])
    pad = _mean_pixel(spec)
    notes.append(
        f"pictures keep their ratio: one of another shape than the graph's is padded with the RGB pixel {pad}, the "
        "mean, where mmsegmentation makes the input smaller"
    )
    return ResizeRule("letterbox", _FILTERS[kind], pad)


def _mean_pixel(spec: InputSpec) -> tuple[int, int, int]:
    """Return the RGB pixel that is normalised to zero, which is what mmsegmentation pads with."""
    red, green, blue = (min(255, max(0, round(x))) for x in spec.mean)
    return (red, green, blue) if spec.channel_order == "rgb" else (blue, green, red)


def _scale(step: Mapping[str, Any]) -> Size | None:
    """Return height x width of a step's scale, which is width x height; the first of several."""
    given = step.get("scale", step.get("img_scale"))
    if isinstance(given, (list, tuple)) and given and isinstance(given[0], (list, tuple)):
        given = given[0]
    size = _height_width(given, "the test pipeline's scale")
    return None if size is None else (size[1], size[0])


def _window(test_cfg: Any, notes: list[str]) -> Size | None:
    """Return the size of the windows that slide over a picture, if they do."""
    if not isinstance(test_cfg, Mapping):
        raise UsageError(f"the config's test_cfg is {shown(test_cfg)}; it must be a dictionary")
    mode = test_cfg.get("mode", "whole")
    if mode == "whole":
        return None
    if mode != "slide":
        raise UsageError(f"the config's test_cfg.mode is {shown(mode)}; edgeseg knows whole and slide")
    crop = _height_width(test_cfg.get("crop_size"), "test_cfg.crop_size")
    notes.append(
        f"the config slides windows{'' if crop is None else f' of {_text(crop)}'} over a picture and averages; edgeseg "
        "runs the whole picture at once, so labels and accuracy are not those of the windows"
    )
    return crop


def _height_width(value: Any, place: str) -> Size | None:
    """Return two positive whole numbers as they stand; one number is both."""
    if value is None:
        return None
    sides = [value, value] if isinstance(value, int) else value
    whole = isinstance(sides, (list, tuple)) and len(sides) == 2 and all(type(side) is int for side in sides)
    if not whole or not all(1 <= side <= LARGEST_SIDE for side in sides):
        raise UsageError(f"{place} is {shown(value)}; it must be two whole numbers from 1 to {LARGEST_SIDE}")
    return sides[0], sides[1]


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
