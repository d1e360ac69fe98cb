"""DDRNet, for segmentation and as ImageNet classifiers.

Hong et al., "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road Scenes", 2021,
arXiv 2101.06085 (IEEE T-ITS 2022). Equals the authors' own implementation (ydhongHIT/DDRNet) number for number. Two
branches, one staying at stride 8, exchange maps after every stage. ``seghead_extra`` serves training only and is built
with ``aux`` alone; where DDRNet-39, which exchanges twice at stride 16, attaches it is our reading.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.models.features import FeatureInfo
from edgeseg.models.layers.context import DAPPM
from edgeseg.models.layers.dual_resolution import SegmentHead, stem
from edgeseg.models.layers.residual import BasicBlock, Bottleneck, residual_layer
from edgeseg.models.layers.resize import resize_like
from edgeseg.models.layers.sequential import conv_bn
from edgeseg.models.registry import register
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import InputSpec

__all__ = [
    "DDRNet",
    "DDRNetClassifier",
    "DDRNetTrunk",
    "Plan",
    "ddrnet_23",
    "ddrnet_23_cls",
    "ddrnet_23_slim",
    "ddrnet_23_slim_cls",
    "ddrnet_39",
    "ddrnet_39_cls",
]


@dataclass(frozen=True)
class Plan:
    """Widths and depths.

    Attributes:
        planes: Channels of the first layer.
        blocks: Blocks of the two layers before the branches part.
        sixteenth: Blocks of each layer at stride 16; after each one the branches exchange.
        high: Blocks of the detail branch beside each of these.
        last: Blocks at stride 32, and of the detail branch beside them.
        head: Inner channels of the segmentation head.
        classifier: Channels before the classifier.
        stem_bias: Of the first two convolutions.
    """

    planes: int
    blocks: tuple[int, int] = (2, 2)
    sixteenth: tuple[int, ...] = (2,)
    high: tuple[int, ...] = (2,)
    last: tuple[int, int] = (2, 2)
    head: int = 128
    classifier: int = 2048
    stem_bias: bool = True


SLIM = Plan(32, head=64, classifier=1024)
NORMAL = Plan(64)
DEEP = Plan(64, blocks=(3, 4), sixteenth=(3, 3), high=(3, 3), last=(3, 3), head=256)


def strided_pair(in_channels: int, inner: int, out_channels: int) -> nn.Sequential:
    """Build two 3x3 convolutions with stride 2, each with BN, a ReLU between."""
    return nn.Sequential(
        *conv_bn(in_channels, inner, 3, stride=2), nn.ReLU(), *conv_bn(inner, out_channels, 3, stride=2)
    )


class DualResolution(nn.Module):
    """What segmentation and classification share: both branches up to the last exchange.

    Args:
        plan: Widths and depths.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        c = plan.planes
        self.conv1 = stem(c, bias=plan.stem_bias)
        self.layer1 = residual_layer(BasicBlock, c, c, plan.blocks[0])
        self.layer2 = residual_layer(BasicBlock, c, 2 * c, plan.blocks[1], stride=2)
        self.names: list[str] = []
        for k, (low, high) in enumerate(zip(plan.sixteenth, plan.high, strict=True)):
            name = "3" if len(plan.sixteenth) == 1 else f"3_{k + 1}"
            first = residual_layer(BasicBlock, (4 if k else 2) * c, 4 * c, low, stride=1 if k else 2)
            self._add_exchange(name, first, high, c, conv_bn(2 * c, 4 * c, 3, stride=2))
        last = residual_layer(BasicBlock, 4 * c, 8 * c, plan.last[0], stride=2)
        self._add_exchange("4", last, plan.last[1], c, strided_pair(2 * c, 4 * c, 8 * c))
        self.feature_info = tuple(FeatureInfo(c << k, 4 << k) for k in range(4))

    def _add_exchange(self, name: str, low: nn.Sequential, high: int, c: int, down: nn.Sequential) -> None:
        """Add a layer of each branch and what carries their maps across."""
        self.add_module(f"layer{name}", low)
        self.add_module(f"layer{name}_", residual_layer(BasicBlock, 2 * c, 2 * c, high))
        self.add_module(f"compression{name}", conv_bn((8 if name == "4" else 4) * c, 2 * c, 1))
        self.add_module(f"down{name}", down)
        self.names.append(name)

    def exchange(self, name: str, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """One layer of each branch, then each adds the other's map; nothing is activated at the end."""
        low = self.get_submodule(f"layer{name}")(torch.relu(low))
        high = self.get_submodule(f"layer{name}_")(torch.relu(high))
        down = self.get_submodule(f"down{name}")(torch.relu(high))
        up = self.get_submodule(f"compression{name}")(torch.relu(low))
        return low + down, high + resize_like(up, high)

    def trunk(self, image: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Compute layer 1, and the context and detail map before the first exchange and after each."""
        first = torch.relu(self.layer1(self.conv1(image)))
        x = self.layer2(first)
        pairs: list[tuple[Tensor, Tensor]] = [(x, x)]
        for name in self.names:
            pairs.append(self.exchange(name, *pairs[-1]))
        return first, pairs

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute four activated maps of an image (N, 3, H, W): layer 1, the last detail map, two context maps."""
        first, pairs = self.trunk(image)
        return [first, *(torch.relu(x) for x in (pairs[-1][1], pairs[-2][0], pairs[-1][0]))]


class DDRNetTrunk(DualResolution):
    """Both branches to their ends, and the pyramid pooling of the context.

    Args:
        plan: Widths and depths.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        c = plan.planes
        self.layer5_ = residual_layer(Bottleneck, 2 * c, 2 * c, 1)
        self.layer5 = residual_layer(Bottleneck, 8 * c, 8 * c, 1, stride=2)
        self.spp = DAPPM(16 * c, 128, 4 * c)

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the detail branch before the last exchange, and the sum of both branches at the end: stride 8."""
        _, pairs = self.trunk(image)
        low, high = pairs[-1]
        high = self.layer5_(torch.relu(high))
        context = self.spp(self.layer5(torch.relu(low)))
        return pairs[-2][1], high + resize_like(context, high)


class DDRNet(DDRNetTrunk):
    """The segmentation network.

    Args:
        num_classes: Output channels.
        plan: Widths and depths.
        aux: Build the training head.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes, H / 8, W / 8); H and W are multiples of 8. `features`: strides 4,
        8, 16 and 32.
    """

    def __init__(self, num_classes: int = 19, *, plan: Plan = NORMAL, aux: bool = False) -> None:
        super().__init__(plan)
        c = plan.planes
        self.seghead_extra = SegmentHead(2 * c, plan.head, num_classes) if aux else None
        self.final_layer = SegmentHead(4 * c, plan.head, num_classes)
        self.checkpoint_ignores = () if aux else (r"^seghead_extra\.",)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits at stride 8; see the class."""
        logits: Tensor = self.final_layer(self.maps(image)[1])
        return logits

    def forward_train(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute logits, and with `aux` those of the training head, both at stride 8."""
        early, last = self.maps(image)
        logits = self.final_layer(last)
        return (logits,) if self.seghead_extra is None else (logits, self.seghead_extra(early))


class DDRNetClassifier(DualResolution):
    """The ImageNet classifier.

    Args:
        num_classes: Output channels.
        plan: Widths and depths.

    Shape:
        image (N, 3, H, W) -> logits (N, num_classes); H and W are multiples of 32. `features` as in `DDRNet`.
    """

    def __init__(self, num_classes: int = 1000, *, plan: Plan = NORMAL) -> None:
        super().__init__(plan)
        c = plan.planes
        self.layer5_ = nn.Sequential(Bottleneck(2 * c, 2 * c, relu=True))
        self.layer5 = nn.Sequential(Bottleneck(8 * c, 8 * c, relu=True))
        self.down5 = strided_pair(4 * c, 8 * c, 16 * c)
        last = nn.Conv2d(16 * c, plan.classifier, 1, bias=False)
        self.last_layer = nn.Sequential(last, nn.BatchNorm2d(plan.classifier), nn.ReLU())
        self.linear = nn.Linear(plan.classifier, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, num_classes); see the class."""
        low, high = self.trunk(image)[1][-1]
        x = self.layer5(torch.relu(low)) + self.down5(torch.relu(self.layer5_(torch.relu(high))))
        logits: Tensor = self.linear(self.last_layer(torch.relu(x)).mean((2, 3)))
        return logits


_SPEC = ModelSpec(
    system="DDRNet",
    year=2021,
    paper="Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road Scenes (2021, "
    "arXiv 2101.06085)",
    source="ydhongHIT/DDRNet, official",
    num_classes=19,
    labels="cityscapes",
    input_size=(1024, 2048),
    divisor=8,
    input=InputSpec.imagenet(),
    classes_key="final_layer.conv2.weight",
    params=20_148_947,
    accuracy="Cityscapes val mIoU 79.5, test 79.4 at 1024x2048",
    weights_licence="MIT",
    notes="The authors state no input normalisation; ImageNet's, that of their code base, is assumed.",
)


@register(_SPEC.but(params=5_695_987, accuracy="Cityscapes val mIoU 77.8, test 77.4 at 1024x2048"))
def ddrnet_23_slim(*, num_classes: int = 19, aux: bool = False) -> DDRNet:
    """Build DDRNet-23-slim."""
    return DDRNet(num_classes, plan=SLIM, aux=aux)


@register(_SPEC)
def ddrnet_23(*, num_classes: int = 19, aux: bool = False) -> DDRNet:
    """Build DDRNet-23."""
    return DDRNet(num_classes, aux=aux)


@register(_SPEC.but(params=32_360_275, accuracy="Cityscapes test mIoU 80.4 at 1024x2048"))
def ddrnet_39(*, num_classes: int = 19, aux: bool = False) -> DDRNet:
    """Build DDRNet-39."""
    return DDRNet(num_classes, plan=DEEP, aux=aux)


_CLASSIFIER = _SPEC.but(
    num_classes=1000,
    labels="generic",
    input_size=(224, 224),
    divisor=32,
    classes_key="linear.weight",
    params=28_216_616,
    accuracy="ImageNet val top-1 error 24.1 at 224x224",
    notes="Classifier: one label per image. The authors state no input normalisation; ImageNet's is assumed.",
)


@register(_CLASSIFIER.but(params=7_574_664, accuracy="ImageNet val top-1 error 29.8 at 224x224"))
def ddrnet_23_slim_cls(*, num_classes: int = 1000) -> DDRNetClassifier:
    """Build DDRNet-23-slim on ImageNet."""
    return DDRNetClassifier(num_classes, plan=SLIM)


@register(_CLASSIFIER)
def ddrnet_23_cls(*, num_classes: int = 1000) -> DDRNetClassifier:
    """Build DDRNet-23 on ImageNet."""
    return DDRNetClassifier(num_classes)


@register(_CLASSIFIER.but(params=40_130_344, accuracy="ImageNet val top-1 error 22.7 at 224x224"))
def ddrnet_39_cls(*, num_classes: int = 1000) -> DDRNetClassifier:
    """Build DDRNet-39 on ImageNet."""
    return DDRNetClassifier(num_classes, plan=DEEP)
