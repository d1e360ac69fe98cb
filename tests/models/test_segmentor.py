"""Composing backbones, necks and heads, and the keys of what comes out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError, UnknownNameError, UsageError
from edgeseg.models import create_model
from edgeseg.models.backbones.registry import can_dilate, create_backbone, list_backbones, register_backbone
from edgeseg.models.backbones.resnet import resnet
from edgeseg.models.checkpoints import load_state
from edgeseg.models.features import FeatureInfo
from edgeseg.models.heads.registry import head_class
from edgeseg.models.registry import build_on_meta
from edgeseg.models.segmentor import Segmentor, create_segmentor

PLAIN = (
    "ann", "apc", "aspp", "cc", "da", "ddr", "dm", "dnl", "ema", "enc", "fcn", "gc", "isa", "knet", "nl", "pid", "psa",
    "psp", "sep_aspp", "sep_fcn", "stdc",
)  # fmt: skip
PYRAMIDS = ("uper", "fpn", "segformer")


class Small(nn.Module):
    """A backbone of four maps at strides 4, 8, 16 and 32."""

    feature_info = tuple(FeatureInfo(8 * 2**k, 4 * 2**k) for k in range(4))

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, info.channels, 1) for info in self.feature_info)

    def features(self, image: Tensor) -> list[Tensor]:
        return [
            conv(nn.functional.avg_pool2d(image, info.reduction))
            for conv, info in zip(self.convs, self.feature_info, strict=True)
        ]


def _shape(network: nn.Module, size: tuple[int, int] = (64, 128)) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(network(torch.empty(1, 3, *size, device="meta")).shape)


@pytest.mark.parametrize("head", PLAIN)
def test_any_head_on_a_dilated_resnet(head: str) -> None:
    with torch.device("meta"):
        network = create_segmentor(backbone="resnet18_v1c", head=head, num_classes=5)
    stride = 4 if head == "sep_aspp" else 8
    assert _shape(network) == (1, 5, 64 // stride, 128 // stride)


@pytest.mark.parametrize("head", [*PLAIN, *PYRAMIDS])
def test_any_head_on_a_backbone_of_ones_own(head: str) -> None:
    with torch.device("meta"):
        network = create_segmentor(backbone=Small(), head=head, num_classes=5)
    assert _shape(network)[:2] == (1, 5)


@pytest.mark.parametrize("head", PYRAMIDS)
def test_pyramid_heads_take_a_resnet_that_strides(head: str) -> None:
    with torch.device("meta"):
        network = create_segmentor(backbone="resnet18_v1c", head=head, num_classes=5)
    assert max(info.reduction for info in network.backbone.feature_info) == 32  # type: ignore[union-attr]
    assert _shape(network) == (1, 5, 16, 32)


def test_registered_network_as_backbone() -> None:
    with torch.device("meta"):
        network = create_segmentor(backbone="regseg", head="fcn", num_classes=3)
    assert _shape(network)[:2] == (1, 3)


def test_neck_and_cascade() -> None:
    network = create_segmentor(
        backbone=Small(), neck="fpn", neck_options={"out_channels": 16}, coarse_head="fpn", head="point",
        num_classes=3, subdivision_num_points=9, coarse_options={"channels": 12},
    )  # fmt: skip
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 64, 96)
    assert {"neck.fpn_convs.3.conv.bias", "decode_head.0.conv_seg.weight", "decode_head.1.fc_seg.bias"} <= set(
        network.state_dict()
    )


def test_composition_has_the_keys_of_the_published_network() -> None:
    with torch.device("meta"):
        composed = create_segmentor(backbone="resnet18_v1c", head="psp", num_classes=19)
    want = build_on_meta("mmseg_pspnet_r18_d8").state_dict()
    assert {key: x.shape for key, x in composed.state_dict().items()} == {key: x.shape for key, x in want.items()}


@pytest.mark.parametrize(
    ("head", "coarse_head", "words"), [("point", None, "coarse_head"), ("fcn", "fcn", "refines nothing")]
)
def test_cascades_that_do_not_fit(head: str, coarse_head: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create_segmentor(backbone=Small(), head=head, coarse_head=coarse_head, num_classes=2)


def test_backbone_without_features() -> None:
    with pytest.raises(UsageError, match="features"):
        create_segmentor(backbone=nn.Identity(), head="fcn", num_classes=2)
    with pytest.raises(UsageError, match="features"):
        Segmentor(nn.Identity(), nn.Identity())
    with pytest.raises(UsageError, match="declares no features"):
        create_backbone("sinet")


def test_empty_cascade() -> None:
    with pytest.raises(UsageError, match="at least one"):
        Segmentor(Small(), [])


def test_unknown_backbone_suggests_one() -> None:
    with pytest.raises(UnknownNameError, match="resnet18"):
        create_backbone("resnet18v1c")


def test_output_stride_of_backbones() -> None:
    with torch.device("meta"):
        assert create_backbone("resnet18", output_stride=16).feature_info[-1].reduction == 16  # type: ignore[union-attr,index]
    with pytest.raises(UsageError, match="8, 16 or 32"):
        resnet(18, output_stride=4)
    with pytest.raises(UsageError, match="leave out output_stride"), torch.device("meta"):
        create_backbone("regseg", output_stride=8)
    assert can_dilate("resnet50_v1c")
    assert not can_dilate("regseg")
    assert "resnet18_v1c" in list_backbones()


def test_backbone_names_are_given_once() -> None:
    from edgeseg.errors import EdgesegError

    with pytest.raises(EdgesegError, match="twice"):
        register_backbone("resnet18")(Small)


def _with_aux(**options: object) -> Segmentor:
    head = head_class("fcn")(in_channels=64, channels=8, num_classes=2)
    aux = head_class("fcn")(in_channels=32, in_index=2, channels=4, num_classes=2)
    return Segmentor(Small(), head, auxiliary_head=aux if options.get("aux") else None).eval()


def test_auxiliary_head_is_ignored_unless_asked_for() -> None:
    full = _with_aux(aux=True)
    load_state(_with_aux(), full.state_dict(), what="a checkpoint with an auxiliary head")
    with pytest.raises(CheckpointError, match="auxiliary_head"):
        load_state(full, _with_aux().state_dict(), what="a checkpoint without")
    image = torch.zeros(1, 3, 64, 64)
    main, aux = full.forward_train(image)
    assert torch.equal(main, full(image))
    assert aux.shape == (1, 2, 4, 4)


def test_published_auxiliary_head() -> None:
    keys = create_model("mmseg_fastscnn", aux=True).state_dict()
    assert {"auxiliary_head.0.conv_seg.weight", "auxiliary_head.1.convs.0.conv.weight"} <= set(keys)
