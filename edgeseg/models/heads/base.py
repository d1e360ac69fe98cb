"""What every decode head shares: which maps it reads, its classifier, and the convolutions it is made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.conv_bn import ConvBN
from edgeseg.models.layers.resize import resize_like

__all__ = ["ConvBias", "DecodeHead", "HeadOptions", "Neck", "Unit", "concat_resized", "units"]

Unit = Callable[..., nn.Module]
"""Makes a convolution with BN and ReLU from input channels, output channels and kernel size, such as `ConvBN`."""


class ConvBias(nn.Module):
    """A convolution with bias under the key ``conv``, and ReLU where `relu`: mmcv's ConvModule without norm.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Kernel size; zeros keep the size of the map.
        relu: Activate.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, relu: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, 1, kernel // 2)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps (N, in_channels, H, W) into (N, out_channels, H, W)."""
        y: Tensor = self.conv(x)
        return torch.relu(y) if self.relu else y


def units(
    in_channels: int, out_channels: int, kernel: int, count: int, *, unit: Unit = ConvBN, **options: Any
) -> nn.Sequential:
    """Build `count` convolution blocks in a row, the first from `in_channels` channels."""
    widths = [in_channels, *[out_channels] * count]
    return nn.Sequential(*(unit(widths[k], out_channels, kernel, **options) for k in range(count)))


def concat_resized(maps: Sequence[Tensor], *, align_corners: bool) -> Tensor:
    """Resize all maps to the size of the first and concatenate them."""
    rest = [resize_like(each, maps[0], align_corners=align_corners) for each in maps[1:]]
    return torch.cat((maps[0], *rest), dim=1)


class _Needed(TypedDict):
    in_channels: int | Sequence[int]
    channels: int
    num_classes: int


class HeadOptions(_Needed, total=False):
    """Options of `DecodeHead`, for the constructors of its subclasses."""

    in_index: int | Sequence[int]
    input_transform: Literal["resize_concat", "multiple_select"] | None
    align_corners: bool
    dropout_ratio: float


class DecodeHead(nn.Module):
    """Base of the heads: a map from the backbone's maps (`feature_map`), dropout, and the 1x1 ``conv_seg`` with bias.

    Args:
        in_channels: Channels of the map it reads, or one number per map.
        channels: Of the map that ``conv_seg`` reads.
        num_classes: Output channels.
        in_index: Which of the backbone's maps it reads: one, or a list.
        input_transform: What a list is for: ``"resize_concat"`` resizes all to the size of the first and concatenates,
            ``"multiple_select"`` keeps them apart. Heads that need a list set it themselves.
        align_corners: Of every resize, here and of the logits to the picture.
        dropout_ratio: Of whole channels before ``conv_seg``, in training; 0 or less is none.

    Shape:
        list of maps -> logits (N, num_classes, H, W). A head that refines another's logits finds them at the end of
        the list.

    Attributes:
        refines: Needs the logits of a head before it, as the last entry of the list.
        contains: Holds the head that it refines itself, as its option ``kernel_generate_head``.
        output_stride: Of the ResNet it is published with.
        checkpoint_ignores: Regular expressions of published keys, below the head, that it does not hold.
    """

    checkpoint_ignores: tuple[str, ...] = ()
    refines: ClassVar[bool] = False
    contains: ClassVar[bool] = False
    output_stride: ClassVar[int] = 8
    reads_all: ClassVar[bool] = False
    default_transform: ClassVar[Literal["resize_concat", "multiple_select"] | None] = None

    def __init__(
        self,
        *,
        in_channels: int | Sequence[int],
        channels: int,
        num_classes: int,
        in_index: int | Sequence[int] = -1,
        input_transform: Literal["resize_concat", "multiple_select"] | None = None,
        align_corners: bool = False,
        dropout_ratio: float = 0.1,
    ) -> None:
        super().__init__()
        self.input_transform = input_transform or self.default_transform
        many = self.input_transform is not None
        if many == isinstance(in_index, int) or many == isinstance(in_channels, int):
            raise UsageError(
                f"{type(self).__name__} got in_index {in_index} and in_channels {in_channels} with input_transform "
                f"{self.input_transform}; give lists of the same length with a transform, and single numbers without"
            )
        self.in_index = [in_index] if isinstance(in_index, int) else list(in_index)
        self.widths = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        if len(self.in_index) != len(self.widths):
            raise UsageError(
                f"{type(self).__name__} got {len(self.widths)} numbers of channels for {len(self.in_index)} maps; give "
                "one number per map"
            )
        self.in_channels = sum(self.widths) if self.input_transform == "resize_concat" else self.widths[-1]
        self.channels, self.num_classes, self.align_corners = channels, num_classes, align_corners
        self.dropout = nn.Dropout2d(dropout_ratio) if dropout_ratio > 0 else nn.Identity()
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return the options that follow from a backbone's maps; the width is a quarter of its map's, as published."""
        widths = [each.channels for each in info]
        main = next((k for k, each in enumerate(info) if each.main), len(info) - 1)
        options: dict[str, Any] = {"in_channels": widths[main], "in_index": main, "channels": widths[main] // 4}
        if cls.reads_all:
            options |= {"in_channels": widths, "in_index": list(range(len(info)))}
        return options

    def select_all(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Compute the maps that the head reads, in the order of `in_index`."""
        return [features[k] for k in self.in_index]

    def select(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that the head reads; several are resized and concatenated."""
        return concat_resized(self.select_all(features), align_corners=self.align_corners)

    def resize(self, x: Tensor, other: Tensor) -> Tensor:
        """Resize `x` to the height and width of `other`, with the head's `align_corners`."""
        return resize_like(x, other, align_corners=self.align_corners)

    @abstractmethod
    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map (N, channels, H, W) that is classified."""

    def classify(self, x: Tensor) -> Tensor:
        """Compute logits (N, num_classes, H, W) of a map (N, channels, H, W)."""
        logits: Tensor = self.conv_seg(self.dropout(x))
        return logits

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Compute logits; see the class."""
        return self.classify(self.feature_map(features))

    def training_logits(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Compute outputs that serve training only, of a head that builds them on request (``aux``)."""
        return []


class Neck(nn.Module):
    """Base of the necks: from the backbone's maps to those that the heads read, at the same strides.

    Args:
        out_channels: Of every map put out.
    """

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
