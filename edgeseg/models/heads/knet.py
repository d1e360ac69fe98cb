"""K-Net: the classifier's weights of another head become kernels, which what they find in the picture updates.

Zhang et al., "K-Net: Towards Unified Image Segmentation", NeurIPS 2021, arXiv 2106.14855. Equal to mmsegmentation
1.2.2's IterativeDecodeHead, whose author wrote the paper. Its published configurations give the kernel updater half the
channels of the kernels: each half of a kernel is then updated on its own, with shared weights.

Exact rewrites: the dynamic 1x1 convolutions are products of matrices; and each stage's 1x1 over the whole map
(``feat_transform``) is applied to the few kernels and to what they gathered instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import UsageError
from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.base import ConvBias, DecodeHead
from edgeseg.models.heads.registry import build_from_config, register_head
from edgeseg.models.layers.transformer import FFN, MultiheadAttention

__all__ = ["IterativeDecodeHead", "KernelUpdateHead", "KernelUpdator", "StageOptions"]

_DROPPED = {"type", "num_classes", "dropout", "act_cfg", "ffn_act_cfg", "norm_cfg", "kernel_init"}
"""Published options of a stage and its updater that change nothing in inference, or have one value everywhere."""
_FIXED = {
    "conv_kernel_size": 1, "feat_gather_stride": 1, "mask_transform_stride": 1, "gate_sigmoid": True,
    "gate_norm_act": False, "activate_out": False,
}  # fmt: skip
"""Those of which one value is built, which every published configuration has."""


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a published configuration that our constructors take."""
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise UsageError(f"K-Net got {key} {config[key]}; only {value} is built")
    return {key: value for key, value in config.items() if key not in _DROPPED and key not in _FIXED}


class KernelUpdator(nn.Module):
    """Kernels, moved by gates towards what their masks gathered.

    Args:
        in_channels: Of a kernel; a longer one is cut into parts of this width.
        feat_channels: Inside.
        out_channels: Of the result; the input's where it is left out.
    """

    def __init__(self, *, in_channels: int, feat_channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        width, out = feat_channels, out_channels or in_channels
        self.in_channels = in_channels
        self.dynamic_layer = nn.Linear(in_channels, 2 * width)
        self.input_layer = nn.Linear(in_channels, 2 * width)
        self.input_gate = nn.Linear(width, width)
        self.update_gate = nn.Linear(width, width)
        self.norm_in = nn.LayerNorm(width)
        self.norm_out = nn.LayerNorm(width)
        self.input_norm_in = nn.LayerNorm(width)
        self.input_norm_out = nn.LayerNorm(width)
        self.fc_layer = nn.Linear(width, out)
        self.fc_norm = nn.LayerNorm(out)

    def forward(self, gathered: Tensor, kernels: Tensor) -> Tensor:
        """Turn two tensors (N, K, C) into the new kernels (N, K, C)."""
        n, count, _ = kernels.shape
        param_in, param_out = self.dynamic_layer(gathered.reshape(n, -1, self.in_channels)).chunk(2, dim=-1)
        input_in, input_out = self.input_layer(kernels.reshape(n, -1, self.in_channels)).chunk(2, dim=-1)
        gate = input_in * param_in
        input_gate = torch.sigmoid(self.input_norm_in(self.input_gate(gate)))
        update_gate = torch.sigmoid(self.norm_in(self.update_gate(gate)))
        mixed = update_gate * self.norm_out(param_out) + input_gate * self.input_norm_out(input_out)
        return torch.relu(self.fc_norm(self.fc_layer(mixed))).reshape(n, count, -1)


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """Options of a stage, named as in mmsegmentation.

    Attributes:
        in_channels: Of the map.
        kernel_updator_cfg: Options of `KernelUpdator`.
        out_channels: Of the kernels; those of the map.
        num_heads: Of the attention between the kernels.
        num_ffn_fcs: Linear layers of the feed-forward network.
        num_mask_fcs: Layers from a kernel to the weights that predict with it.
        feedforward_channels: Inside the feed-forward network.
        with_ffn: Build the feed-forward network.
        feat_transform_cfg: None, or options of a 1x1 convolution of the map with neither norm nor activation.

    Raises:
        UsageError: An option has a value that no published configuration has.
    """

    in_channels: int
    kernel_updator_cfg: Mapping[str, Any]
    out_channels: int | None = None
    num_heads: int = 8
    num_ffn_fcs: int = 2
    num_mask_fcs: int = 3
    feedforward_channels: int = 2048
    with_ffn: bool = True
    feat_transform_cfg: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        width, out, transform = self.in_channels, self.out_channels, self.feat_transform_cfg
        if out not in (None, width):
            raise UsageError(f"out_channels is {out} for kernels of {width} channels; they are the same")
        plain = {"conv_cfg": {"type": "Conv2d"}, "act_cfg": None}
        if transform is not None and {**plain, **transform} != plain:
            raise UsageError(f"feat_transform_cfg is {dict(transform)}; only {plain} is built")


class KernelUpdateHead(nn.Module):
    """One stage: kernels gather, are updated, attend to each other, and predict again.

    Args:
        options: Of the stage.

    Shape:
        map (N, C, H, W), kernels (N, K, C), logits (N, K, H, W) -> new kernels and logits of the same shapes.
    """

    def __init__(self, options: StageOptions) -> None:
        super().__init__()
        width, inner = options.in_channels, options.feedforward_channels
        self.attention = MultiheadAttention(width, options.num_heads)
        self.attention_norm = nn.LayerNorm(width)
        self.kernel_update_conv = KernelUpdator(**_options(options.kernel_updator_cfg))
        self.feat_transform = None if options.feat_transform_cfg is None else ConvBias(width, width, 1)
        self.ffn = FFN(width, inner, num_fcs=options.num_ffn_fcs, act=nn.ReLU) if options.with_ffn else None
        if options.with_ffn:
            self.ffn_norm = nn.LayerNorm(width)
        layers: list[nn.Module] = []
        for _ in range(options.num_mask_fcs):
            layers += [nn.Linear(width, width, bias=False), nn.LayerNorm(width), nn.ReLU()]
        self.mask_fcs = nn.Sequential(*layers)
        self.fc_mask = nn.Linear(width, width)

    def _transform(self) -> tuple[Tensor, Tensor] | None:
        """Compute weight (C, C) and bias (C,) of the map's 1x1 convolution."""
        conv = self.feat_transform
        return None if conv is None else (conv.conv.weight.flatten(1), conv.get_parameter("conv.bias"))

    def _gather(self, places: Tensor, logits: Tensor) -> Tensor:
        """Compute what the softmax of the logits (N, K, L) over the classes gathers (N, K, C) of the map (N, C, L)."""
        weights, transform = logits.softmax(dim=1), self._transform()
        gathered = weights @ places.transpose(1, 2)
        if transform is None:
            return gathered
        return F.linear(gathered, transform[0]) + weights.sum(dim=2, keepdim=True) * transform[1]

    def _predict(self, places: Tensor, weights: Tensor) -> Tensor:
        """Compute logits (N, K, L) of the map (N, C, L) by the weights (N, K, C) of a 1x1 convolution."""
        transform = self._transform()
        if transform is None:
            return weights @ places
        return (weights @ transform[0]) @ places + F.linear(weights, transform[1][None])

    def forward(self, x: Tensor, kernels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Compute one stage; see the class."""
        places = x.flatten(2)
        kernels = self.kernel_update_conv(self._gather(places, logits.flatten(2)), kernels)
        kernels = self.attention_norm(kernels + self.attention(kernels))
        if self.ffn is not None:
            kernels = self.ffn_norm(kernels + self.ffn(kernels))
        return kernels, self._predict(places, self.fc_mask(self.mask_fcs(kernels))).reshape(logits.shape)


def _published(channels: int) -> dict[str, Any]:
    """Return the published options of a stage, in proportion to the channels (512 in all configurations)."""
    half = channels // 2
    return {
        "in_channels": channels,
        "num_mask_fcs": 1,
        "feedforward_channels": 4 * channels,
        "feat_transform_cfg": {"act_cfg": None},
        "kernel_updator_cfg": {"in_channels": half, "feat_channels": half},
    }


@register_head("knet")
class IterativeDecodeHead(DecodeHead):
    """A head, and stages that update the kernels of its classifier.

    Args:
        kernel_generate_head: The head whose classifier is refined, or its published configuration.
        kernel_update_head: Published configurations of the stages; without them, `num_stages` of the published widths
            in proportion to the head's channels.
        num_stages: How many.
        num_classes: Of the head, where that is a configuration.

    Raises:
        UsageError: The parts do not fit, or an option has a value that no published configuration has.
    """

    contains = True

    def __init__(
        self,
        *,
        kernel_generate_head: DecodeHead | Mapping[str, Any],
        kernel_update_head: Sequence[Mapping[str, Any]] | None = None,
        num_stages: int = 3,
        num_classes: int | None = None,
    ) -> None:
        first = _built(kernel_generate_head, num_classes)
        width = first.channels
        super().__init__(
            in_channels=width, channels=width, num_classes=first.num_classes, align_corners=first.align_corners
        )
        del self.conv_seg, self.dropout  # the first head's
        stages = [_published(width)] * num_stages if kernel_update_head is None else kernel_update_head
        if len(stages) != num_stages:
            raise UsageError(f"K-Net got {len(stages)} configurations for {num_stages} stages; give one per stage")
        self.kernel_generate_head = first
        self.kernel_update_head = nn.ModuleList(KernelUpdateHead(StageOptions(**_options(stage))) for stage in stages)

    @classmethod
    def options_for(cls, info: tuple[FeatureInfo, ...]) -> dict[str, Any]:
        """Return no options: the first head has them all."""
        return {}

    def feature_map(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the map that the first head classifies, and all stages read."""
        return self.kernel_generate_head.feature_map(features)

    def classify(self, x: Tensor) -> Tensor:
        """Compute the last stage's logits (N, num_classes, H, W) of a map (N, channels, H, W)."""
        first = self.kernel_generate_head
        logits: Tensor = first.classify(x)
        kernels = first.conv_seg.weight.flatten(1)[None].expand(x.shape[0], -1, -1)
        for stage in self.kernel_update_head:
            kernels, logits = stage(x, kernels, logits)
        return logits


def _built(head: DecodeHead | Mapping[str, Any], num_classes: int | None) -> DecodeHead:
    """Build the first head, of `num_classes` where they are given."""
    module = head
    if isinstance(head, Mapping):
        built = build_from_config(head, **({} if num_classes is None else {"num_classes": num_classes}))
        module = built if isinstance(built, DecodeHead) else head
    if not isinstance(module, DecodeHead) or not isinstance(getattr(module, "conv_seg", None), nn.Conv2d):
        raise UsageError(
            f"K-Net got {head}, which has no classifier of its own; choose a head such as fcn, psp or uper"
        )
    if num_classes not in (None, module.num_classes):
        raise UsageError(f"K-Net got {num_classes} classes for a head of {module.num_classes}; give the same number")
    return module
