"""What belongs to a network: input conventions, resize rule and postprocessing, as frozen data without torch.

All sizes are height x width. These objects are written into the bundle's manifest and read back on the device.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from edgeseg.errors import SizeError, UsageError
from edgeseg.fields import Fields

__all__ = [
    "ACTIVATIONS",
    "GREY",
    "LARGEST_SIDE",
    "MOST_CHANNELS",
    "Activation",
    "ChannelOrder",
    "InputSpec",
    "PostprocessSpec",
    "ResizeFilter",
    "ResizeMode",
    "ResizeRule",
    "Size",
    "check_channels",
    "parse_size",
]

Size = tuple[int, int]
"""Height, width in pixels."""

LARGEST_SIDE = 65535
"""Most pixels a graph's input or output has in one direction."""

MOST_CHANNELS = 512
"""Most channels of a network's input."""

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601, as OpenCV and Pillow take them); the result is not rounded."""

Activation = Literal["none", "sigmoid", "softmax"]
ChannelOrder = Literal["rgb", "bgr"]
ResizeMode = Literal["stretch", "letterbox", "none"]
ResizeFilter = Literal["linear", "area", "cubic", "nearest", "pillow_bilinear"]

ACTIVATIONS: tuple[Activation, ...] = ("none", "sigmoid", "softmax")
"""What a network may have applied to its output already."""

_MODES = ("stretch", "letterbox", "none")
_FILTERS = ("linear", "area", "cubic", "nearest", "pillow_bilinear")


def parse_size(text: str) -> Size:
    """Parse ``"512x1024"`` (height x width) into ``(512, 1024)``; one number means a square.

    Raises:
        UsageError: Not one or two positive whole numbers.

    Example:
        >>> parse_size("512x1024"), parse_size("224")
        ((512, 1024), (224, 224))
    """
    parts = text.lower().replace("×", "x").split("x")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or min(numbers) < 1:
        raise UsageError(f"size '{text}' is not HEIGHTxWIDTH; write for example 512x1024 (height first)")
    return numbers[0], numbers[1]


def check_channels(channels: int) -> None:
    """Refuse a number of channels that no network takes.

    Raises:
        UsageError: Not 1 to `MOST_CHANNELS`.
    """
    if not 1 <= channels <= MOST_CHANNELS:
        raise UsageError(f"{channels} channels were asked for; a network's input has 1 to {MOST_CHANNELS}")


def _counted(numbers: int) -> str:
    return f"{numbers} number{'s' * (numbers != 1)}"


@dataclass(frozen=True)
class InputSpec:
    """How pixels become network input: ``x = (pixel - mean) / std * scale``, pixel on the 0..255 scale.

    Mean and std have one number per channel, which says how many channels the network takes. A network of 1 channel is
    given pictures too: the graph makes them grey, ``0.299 R + 0.587 G + 0.114 B``. One of 2, 4 or more is given arrays
    of as many channels, in the network's order.

    Attributes:
        channel_order: Order of the channels in which the network was trained; ``bgr`` is for 3 channels only.
        mean: Per channel, on 0..255, in the network's channel order.
        std: Per channel, on 0..255, in the network's channel order.
        scale: Factor applied after mean and std. 1.0 for most; 1/255 for networks that divide twice (ESPNet, SINet).

    Raises:
        UsageError: Numbers that are not finite, a zero std or scale, other counts of mean and std, more than
            `MOST_CHANNELS` of them, or ``bgr`` for another number of channels than 3.

    Example:
        >>> InputSpec(channel_order="bgr", mean=(104.0, 117.0, 123.0)).std
        (1.0, 1.0, 1.0)
        >>> InputSpec(mean=(127.5,), std=(127.5,)).channels
        1
    """

    channel_order: ChannelOrder = "rgb"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.channel_order not in ("rgb", "bgr"):
            raise UsageError(f"channel order '{self.channel_order}' is neither 'rgb' nor 'bgr'")
        self._check_count()
        numbers = (*self.mean, *self.std, self.scale)
        if not all(math.isfinite(x) for x in numbers):
            raise UsageError(f"mean {self.mean}, std {self.std} and scale {self.scale} must be finite numbers")
        if min(abs(x) for x in self.std) == 0.0 or self.scale == 0.0:
            raise UsageError(f"std {self.std} and scale {self.scale} must not be zero")

    def _check_count(self) -> None:
        if len(self.mean) != len(self.std):
            raise UsageError(
                f"mean has {_counted(len(self.mean))} and std {len(self.std)}; give each one number per channel"
            )
        check_channels(self.channels)
        if self.channel_order == "bgr" and self.channels != 3:
            raise UsageError(f"channel order 'bgr' is for networks of 3 channels, this one takes {self.channels}")

    @property
    def channels(self) -> int:
        """How many channels the network takes."""
        return len(self.mean)

    @property
    def image_channels(self) -> int:
        """Channels of the graph's input: 3, RGB, where the network takes 1 or 3; else as many as it takes.

        Example:
            >>> InputSpec.plain(1).image_channels, InputSpec.plain(4).image_channels
            (3, 4)
        """
        return 3 if self.channels == 1 else self.channels

    @classmethod
    def plain(cls, channels: int = 3) -> InputSpec:
        """Build pixels / 255, for any number of channels.

        Raises:
            UsageError: Not 1 to `MOST_CHANNELS` channels.

        Example:
            >>> InputSpec.plain(2)
            InputSpec(channel_order='rgb', mean=(0.0, 0.0), std=(255.0, 255.0), scale=1.0)
        """
        check_channels(channels)
        return cls("rgb", (0.0,) * channels, (255.0,) * channels)

    def spread(self, channels: int) -> InputSpec:
        """Take single numbers of mean and std for every channel; those of as many channels stay as they are.

        Raises:
            UsageError: Mean and std have another count of numbers than 1 and `channels`.

        Example:
            >>> InputSpec(mean=(127.5,), std=(127.5,)).spread(4).mean
            (127.5, 127.5, 127.5, 127.5)
        """
        if self.channels not in (1, channels):
            raise UsageError(
                f"mean and std have {_counted(self.channels)} each, and the network takes {channels} "
                f"channel{'s' * (channels != 1)}; give {channels} each{', or one for all' * (channels != 1)}"
            )
        times = channels // self.channels
        return replace(self, mean=self.mean * times, std=self.std * times)

    @classmethod
    def unit_scale(
        cls,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        channel_order: ChannelOrder = "rgb",
    ) -> InputSpec:
        """Build from a mean and std on the 0..1 scale (of pixel / 255), one number per channel.

        Example:
            >>> InputSpec.unit_scale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).mean
            (127.5, 127.5, 127.5)
        """
        return cls(channel_order, tuple(255.0 * x for x in mean), tuple(255.0 * x for x in std))

    @classmethod
    def imagenet(cls, channel_order: ChannelOrder = "rgb") -> InputSpec:
        """Build the convention of most published weights: RGB, /255, ImageNet mean and std."""
        return cls.unit_scale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), channel_order)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Fields) -> InputSpec:
        """Read what `to_json` gave.

        Raises:
            FieldError: A field that is missing or of another kind.
            UsageError: Numbers that are not finite, a zero std or scale, or ``bgr`` for other than 3 channels.
        """
        order: Any = fields.choice("channel_order", ("rgb", "bgr"))
        channels = len(fields.items("mean", 1, MOST_CHANNELS))
        mean, std = fields.numbers("mean", channels), fields.numbers("std", channels)
        return cls(order, mean, std, fields.number("scale"))


@dataclass(frozen=True)
class ResizeRule:
    """How a picture of any size becomes one of the network's size; accuracy depends on it, so it belongs to the model.

    Attributes:
        mode: ``stretch`` ignores the aspect ratio, ``letterbox`` keeps it and pads, ``none`` refuses another size.
        filter: ``linear`` (no antialias), ``area``, ``cubic``, ``nearest``, as OpenCV means them, or Pillow's
            antialiased bilinear; `edgeseg.resizing` has each, the same on every machine.
        pad_value: Pixel value of the padding, 0..255: one number for all channels, or one each, such as RGB.

    Raises:
        UsageError: An unknown mode or filter, or padding that is no pixel value.

    Example:
        >>> ResizeRule("letterbox", pad_value=(114, 114, 114)).filter
        'linear'
    """

    mode: ResizeMode = "stretch"
    filter: ResizeFilter = "linear"
    pad_value: int | tuple[int, ...] = (0, 0, 0)

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise UsageError(f"resize mode '{self.mode}' is none of {', '.join(_MODES)}")
        if self.filter not in _FILTERS:
            raise UsageError(f"resize filter '{self.filter}' is none of {', '.join(_FILTERS)}")
        if isinstance(self.pad_value, int):
            object.__setattr__(self, "pad_value", (self.pad_value,) * 3)
        if not self._pads or not all(0 <= value <= 255 for value in self._pads):
            raise UsageError(f"pad_value is {self.pad_value}; it must be whole numbers from 0 to 255")

    @property
    def _pads(self) -> tuple[int, ...]:
        return (self.pad_value,) if isinstance(self.pad_value, int) else self.pad_value

    def padding(self, channels: int) -> tuple[int, ...]:
        """Pixel value of the padding for a picture of so many channels; equal numbers stand for any count.

        Raises:
            UsageError: `pad_value` has different numbers, and another count of them.

        Example:
            >>> ResizeRule("letterbox", pad_value=114).padding(4)
            (114, 114, 114, 114)
        """
        pads = self._pads
        if len(pads) != channels and len(set(pads)) > 1:
            raise UsageError(
                f"pad_value has {_counted(len(pads))}, and the picture {channels} channels; give {channels}, or one"
            )
        return pads if len(pads) == channels else pads[:1] * channels

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Fields, channels: int = 3) -> ResizeRule:
        """Read what `to_json` gave, for pictures of so many channels.

        Raises:
            FieldError: A field that is missing or has a wrong value.
        """
        pad = fields.integers("pad_value", channels, 0, 255)
        mode: Any = fields.choice("mode", _MODES)
        kind: Any = fields.choice("filter", _FILTERS)
        return cls(mode, kind, pad)


_OWN: Any = None
"""Stands for the threshold of the activation where none is given."""


@dataclass(frozen=True)
class PostprocessSpec:
    """How the output of a network becomes labels: bilinear resize with `align_corners`, then argmax over channels.

    One channel means two classes: label 1 where the resized output is above `threshold`, else 0.

    Attributes:
        align_corners: As in ``torch.nn.functional.interpolate``.
        threshold: For networks of one channel only; without one 0.5 after a sigmoid, else 0.
        activation: What the network has applied itself: ``none`` (it returns logits), ``sigmoid`` (a probability per
            channel) or ``softmax`` (probabilities that sum to 1). It decides the scores: probabilities are taken as
            they are, logits become probabilities by a softmax, one channel of them by a sigmoid.

    Raises:
        UsageError: Another activation, or a threshold that is no finite number, or not between 0 and 1 after a sigmoid.

    Example:
        >>> PostprocessSpec(align_corners=True).threshold
        0.0
        >>> PostprocessSpec(activation="sigmoid").threshold
        0.5
    """

    align_corners: bool = False
    threshold: float = _OWN
    activation: Activation = "none"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation '{self.activation}' is none of {', '.join(ACTIVATIONS)}")
        if self.threshold is _OWN:
            object.__setattr__(self, "threshold", 0.5 if self.activation == "sigmoid" else 0.0)
        if not math.isfinite(self.threshold):
            raise UsageError(f"threshold is {self.threshold}; it must be a finite number")
        if self.activation == "sigmoid" and not 0.0 < self.threshold < 1.0:
            raise UsageError(
                f"threshold is {self.threshold:g} after a sigmoid, whose values lie between 0 and 1, so every pixel "
                "would have one label; give one between them, such as 0.5"
            )

    def with_activation(self, activation: Activation, threshold: float | None = None) -> PostprocessSpec:
        """Copy with another activation.

        Args:
            activation: What the network has applied itself.
            threshold: The new one. Without it one that was given stays, and one that was the activation's own becomes
                the new activation's.

        Example:
            >>> PostprocessSpec().with_activation("sigmoid").threshold
            0.5
            >>> PostprocessSpec(threshold=0.25).with_activation("sigmoid").threshold
            0.25
        """
        kept = _OWN if self.threshold == PostprocessSpec(activation=self.activation).threshold else self.threshold
        return PostprocessSpec(self.align_corners, kept if threshold is None else threshold, activation)

    def check_channels(self, channels: int) -> None:
        """Refuse a softmax over one channel, which is 1 everywhere.

        Raises:
            UsageError: It is one.

        Example:
            >>> PostprocessSpec(activation="softmax").check_channels(2)
        """
        if self.activation == "softmax" and channels == 1:
            raise UsageError(
                "activation softmax was given for one channel, over which a softmax is 1 everywhere; use sigmoid for a "
                "probability, or none for a logit"
            )

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values; the activation of logits is left out, as it was before there were others."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("activation", "none")}

    @classmethod
    def from_fields(cls, fields: Fields) -> PostprocessSpec:
        """Read what `to_json` gave.

        Raises:
            FieldError: A field that is missing or of another kind.
            UsageError: A threshold that cannot be.
        """
        activation: Any = fields.choice("activation", ACTIVATIONS) if "activation" in fields else "none"
        return cls(fields.flag("align_corners"), fields.number("threshold"), activation)


def check_divisor(name: str, size: Size, divisor: int) -> None:
    """Refuse a size that `divisor` does not divide, naming the nearest sizes that it does.

    Raises:
        SizeError: With what was got, what is expected and the nearest sizes below and above.

    Example:
        >>> check_divisor("tiny", (32, 48), 8)
    """
    height, width = size
    if height >= divisor and width >= divisor and height % divisor == 0 and width % divisor == 0:
        return
    low = tuple(max(divisor, x // divisor * divisor) for x in size)
    high = tuple(max(divisor, -(-x // divisor) * divisor) for x in size)
    fits = " or ".join(dict.fromkeys(f"{h}x{w}" for h, w in (low, high)))
    raise SizeError(
        f"{name} takes heights and widths that are multiples of {divisor}, got {height}x{width}; use {fits}"
    )
