"""Networks composed of a backbone, an optional neck and decode heads, under mmsegmentation's key names.

`create_segmentor` puts any backbone that declares its features and any head together; the registry's ``mmseg_*``
networks are such compositions with the published options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.backbones.registry import can_dilate, create_backbone
from edgeseg.models.features import Backbone, FeatureInfo
from edgeseg.models.heads.base import DecodeHead
from edgeseg.models.heads.registry import head_class, neck_class

__all__ = ["Segmentor", "create_segmentor"]


def _one_or_list(heads: nn.Module | Sequence[nn.Module]) -> nn.Module:
    return heads if isinstance(heads, nn.Module) else nn.ModuleList(heads)


def _several(heads: nn.Module | None) -> list[nn.Module]:
    if heads is None:
        return []
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


class Segmentor(nn.Module):
    """A backbone, an optional neck, and one head or a cascade in which each refines the logits of the one before.

    Args:
        backbone: Declares ``feature_info`` and computes ``features`` (`edgeseg.models.features`).
        decode_head: A head, or the heads of a cascade; keys are ``decode_head.`` or ``decode_head.0.`` and so on.
        neck: Turns the backbone's maps into those that the heads read.
        auxiliary_head: Training-only heads on the same maps; one, or several with an index in their keys.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, h, w) at the stride of the (last) head.

    Raises:
        UsageError: The backbone declares no features, or there is no head.

    Example:
        >>> import torch
        >>> from edgeseg.models.backbones.registry import create_backbone
        >>> from edgeseg.models.heads.fcn import FCNHead
        >>> head = FCNHead(in_channels=512, channels=32, num_classes=3)
        >>> network = Segmentor(create_backbone("resnet18"), head).eval()
        >>> network(torch.zeros(1, 3, 64, 128)).shape
        torch.Size([1, 3, 2, 4])
    """

    def __init__(
        self,
        backbone: nn.Module,
        decode_head: nn.Module | Sequence[nn.Module],
        *,
        neck: nn.Module | None = None,
        auxiliary_head: nn.Module | Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, Backbone):
            raise UsageError(f"{type(backbone).__name__} declares no features; choose a backbone")
        self._features: Callable[[Tensor], list[Tensor]] = getattr(backbone, "feature_maps", backbone.features)
        self.backbone: nn.Module = backbone
        self.neck = neck
        self.decode_head = _one_or_list(decode_head)
        self.auxiliary_head = None if auxiliary_head is None else _one_or_list(auxiliary_head)
        heads = _several(self.decode_head)
        inner = [each for head in heads for each in getattr(head, "checkpoint_ignores", ())]
        self.checkpoint_ignores = (
            *((r"^auxiliary_head\.",) if auxiliary_head is None else ()),
            *(rf"^decode_head\.(\d+\.)?({each})" for each in inner),
        )
        if not heads:
            raise UsageError("a Segmentor got an empty list of heads; give at least one")

    def maps(self, image: Tensor) -> list[Tensor]:
        """Compute the maps that the heads read."""
        maps = self._features(image)
        return maps if self.neck is None else self.neck(maps)

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Compute logits from the maps that `maps` gives."""
        first, *rest = _several(self.decode_head)
        logits: Tensor = first(maps)
        for head in rest:
            logits = head([*maps, logits])
        return logits

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at the stride of the (last) head; see the class."""
        return self.decode(self.maps(image))

    def forward_train(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the logits, those of the auxiliary heads, each at its own stride, and what the heads train with."""
        maps = self.maps(image)
        outputs = [self.decode(maps), *(head(maps) for head in _several(self.auxiliary_head))]
        for head in _several(self.decode_head):
            outputs += getattr(head, "training_logits", lambda _: [])(maps)
        return tuple(outputs)


def _info_of(module: nn.Module) -> tuple[FeatureInfo, ...]:
    if not isinstance(module, Backbone):
        raise UsageError(f"{type(module).__name__} declares no features; choose a backbone")
    return module.feature_info


def _build_head(
    name: str, info: tuple[FeatureInfo, ...], num_classes: int, options: Mapping[str, Any], *, first: bool
) -> nn.Module:
    """Build a head with the options that follow from the maps, replaced by those given."""
    cls = head_class(name)
    if cls.refines == first:
        need = "refines another's logits; give that head as coarse_head" if first else "refines nothing"
        raise UsageError(f"head '{name}' {need}")
    return cls(**{**cls.options_for(info), **options, "num_classes": num_classes})


def _build_backbone(backbone: str | nn.Module, head: type[DecodeHead], output_stride: int | None) -> nn.Module:
    """Build a backbone at the output stride given, or at the one that the head is published with."""
    if not isinstance(backbone, str):
        return backbone
    return create_backbone(
        backbone, output_stride=output_stride or (head.output_stride if can_dilate(backbone) else None)
    )


def create_segmentor(
    *,
    backbone: str | nn.Module,
    head: str,
    num_classes: int,
    neck: str | None = None,
    neck_options: Mapping[str, Any] | None = None,
    coarse_head: str | None = None,
    coarse_options: Mapping[str, Any] | None = None,
    output_stride: int | None = None,
    **head_options: Any,
) -> Segmentor:
    """Compose a network of a backbone and a head; weights are random.

    Args:
        backbone: Name of `edgeseg.models.backbones.registry` (``"resnet18_v1c"``), of a registered network that
            declares features, or such a module.
        head: Name of `edgeseg.models.heads.registry`, such as ``"psp"``.
        num_classes: Output channels.
        neck: Name of a neck (``"fpn"``).
        neck_options: Its options; ``in_channels`` follows from the backbone.
        coarse_head: The head whose logits a refining head (``"ocr"``, ``"point"``) starts from; ``"fcn"`` for OCRNet,
            ``"fpn"`` for PointRend. K-Net (``"knet"``) holds the head that it refines, ``"fcn"`` where none is given.
        coarse_options: Its options.
        output_stride: Of a ResNet; None is the one the head is published with.
        head_options: Published options of the head (``dilations``, ``pool_scales``, ...); ``in_channels``, ``in_index``
            and ``channels`` follow from the backbone where they are left out.

    Returns:
        The network, in eval mode.

    Raises:
        UnknownNameError: No such backbone, head or neck.
        UsageError: The parts do not fit.

    Example:
        >>> import torch
        >>> network = create_segmentor(backbone="resnet18_v1c", head="psp", num_classes=3)
        >>> network(torch.zeros(1, 3, 64, 128)).shape
        torch.Size([1, 3, 8, 16])
    """
    module = _build_backbone(backbone, head_class(coarse_head or head), output_stride)
    info = _info_of(module)
    necked = None
    if neck is not None:
        necked = neck_class(neck)(**{"in_channels": [each.channels for each in info], **(neck_options or {})})
        info = tuple(FeatureInfo(necked.out_channels, each.reduction) for each in info)
    heads: list[nn.Module] = []
    inside = head_class(head).contains and "kernel_generate_head" not in head_options
    if coarse_head is not None or inside:
        heads.append(_build_head(coarse_head or "fcn", info, num_classes, coarse_options or {}, first=True))
    if inside:
        head_options["kernel_generate_head"] = heads.pop()
    heads.append(_build_head(head, info, num_classes, head_options, first=not heads))
    return Segmentor(module, heads if len(heads) > 1 else heads[0], neck=necked).eval()
