"""mmsegmentation's real-time networks: keys under published names, backbones by name, heads that train with more."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError
from edgeseg.models import create_model
from edgeseg.models.backbones.registry import create_backbone
from edgeseg.models.checkpoints import load_state
from edgeseg.models.features import Features
from edgeseg.models.heads.dual_resolution import DDRHead, PIDHead
from edgeseg.models.heads.fcn import FCNHead
from edgeseg.models.layers.keys import publish_keys
from edgeseg.models.registry import build_on_meta
from edgeseg.models.segmentor import Segmentor, create_segmentor

BACKBONES = (
    "bisenetv1_mmseg", "bisenetv2_mmseg", "cgnet_mmseg", "ddrnet_23_mmseg", "ddrnet_23_slim_mmseg", "pidnet_l_mmseg",
    "pidnet_m_mmseg", "pidnet_s_mmseg", "stdc1_mmseg", "stdc2_mmseg",
)  # fmt: skip
PUBLISHED = {
    "mmseg_bisenetv1_r18": ("bisenetv1_mmseg", "fcn"),
    "mmseg_ddrnet_23_slim": ("ddrnet_23_slim_mmseg", "ddr"),
    "mmseg_pidnet_s": ("pidnet_s_mmseg", "pid"),
    "mmseg_stdc1": ("stdc1_mmseg", "fcn"),
}


class Pair(nn.Module):
    """Two convolutions whose published names are each other's."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 2, 1)
        self.b = nn.Conv2d(1, 3, 1)
        publish_keys(self, ((r"^a\.", "B."), (r"^b\.", "a."), (r"^B\.", "b.")))


def test_published_keys_may_be_other_attributes() -> None:
    shapes = {key: tuple(value.shape) for key, value in Pair().state_dict().items()}
    assert shapes == {"b.weight": (2, 1, 1, 1), "b.bias": (2,), "a.weight": (3, 1, 1, 1), "a.bias": (3,)}


@pytest.mark.parametrize("copied", [False, True])
def test_published_keys_are_loaded_wherever_the_module_lies(copied: bool) -> None:
    pairs = [Pair(), Pair()]
    owner, other = (nn.Sequential(pair, nn.Conv2d(1, 1, 1)) for pair in pairs)
    loaded = copy.deepcopy(other) if copied else other
    loaded.load_state_dict(owner.state_dict())
    assert loaded.state_dict().keys() == owner.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in owner.state_dict().items())
    assert torch.equal(loaded.get_parameter("0.a.weight"), pairs[0].a.weight)


def test_own_names_are_not_published() -> None:
    network = build_on_meta("mmseg_pidnet_s")
    assert "backbone.pag_1.f_p.conv.weight" in network.state_dict()
    assert not any(".pag3." in key for key in network.state_dict())
    with pytest.raises(RuntimeError, match="Unexpected"):
        network.load_state_dict({**network.state_dict(), "backbone.nothing.weight": torch.zeros(1)})


@pytest.mark.parametrize("name", BACKBONES)
def test_maps_of_the_backbones(name: str) -> None:
    with torch.device("meta"):
        backbone = Features(create_backbone(name)).eval()
        maps = backbone(torch.empty(1, 3, 64, 128))
    declared = [(1, info.channels, 64 // info.reduction, 128 // info.reduction) for info in backbone.feature_info]
    assert [tuple(x.shape) for x in maps] == declared


@pytest.mark.parametrize("name", BACKBONES)
def test_heads_read_the_main_map(name: str) -> None:
    with torch.device("meta"):
        network = create_segmentor(backbone=name, head="fcn", num_classes=3)
    head = network.decode_head
    assert isinstance(head, FCNHead)
    with torch.no_grad():
        assert network(torch.empty(1, 3, 64, 128, device="meta")).shape == (1, 3, 8, 16)
    assert head.in_channels == max(info.channels for info in create_backbone(name).feature_info)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", PUBLISHED)
def test_composition_has_the_keys_of_the_published_network(name: str) -> None:
    backbone, head = PUBLISHED[name]
    want = build_on_meta(name).state_dict()
    options = {"channels": want["decode_head.conv_seg.weight"].shape[1]}
    if head == "fcn":
        options |= {"num_convs": 1, "concat_input": False}
    with torch.device("meta"):
        composed = create_segmentor(backbone=backbone, head=head, num_classes=19, **options)
    assert {key: x.shape for key, x in composed.state_dict().items()} == {key: x.shape for key, x in want.items()}


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("mmseg_bisenetv1_r18", [(19, 8), (19, 8), (19, 16)]),
        ("mmseg_bisenetv2", [(19, 8), (19, 4), (19, 8), (19, 16), (19, 32)]),
        ("mmseg_stdc1", [(19, 8), (19, 8), (19, 16), (2, 8)]),
        ("mmseg_ddrnet_23_slim", [(19, 8), (19, 8)]),
        ("mmseg_pidnet_s", [(19, 8), (19, 8), (1, 8)]),
    ],
)
def test_training_outputs(name: str, outputs: list[tuple[int, int]]) -> None:
    network = build_on_meta(name, aux=True).eval()
    assert isinstance(network, Segmentor)
    with torch.no_grad():
        got = network.forward_train(torch.empty(1, 3, 64, 128, device="meta"))
    assert [(x.shape[1], 64 // x.shape[2]) for x in got] == outputs


@pytest.mark.parametrize("name", ["mmseg_ddrnet_23_slim", "mmseg_pidnet_s", "mmseg_stdc1"])
def test_training_parts_of_a_checkpoint_are_ignored_unless_asked_for(name: str) -> None:
    full, plain = create_model(name, aux=True), create_model(name)
    load_state(plain, full.state_dict(), what="a checkpoint with its training parts")
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(plain(image), full(image))
    with pytest.raises(CheckpointError, match="missing"):
        load_state(full, plain.state_dict(), what="a checkpoint without")


def _maps() -> list[Tensor]:
    return [torch.ones(1, width, 4, 6) for width in (4, 4, 8)]


@pytest.mark.parametrize(("head", "extra"), [(DDRHead, [3]), (PIDHead, [3, 1])])
def test_heads_train_with_the_maps_before_theirs(head: type[DDRHead] | type[PIDHead], extra: list[int]) -> None:
    plain = head(in_channels=8, channels=4, num_classes=3)
    assert plain.training_logits(_maps()) == []
    trained = head(in_channels=8, channels=4, num_classes=3, aux=True)
    assert [x.shape[1] for x in trained.training_logits(_maps())] == extra


def test_detail_head_holds_the_published_constants() -> None:
    network = build_on_meta("mmseg_stdc1", aux=True)
    keys = {key for key in network.state_dict() if "kernel" in key}
    assert keys == {"auxiliary_head.2.laplacian_kernel", "auxiliary_head.2.fusion_kernel"}
