"""Which network a config's model is: the published ones, what makes no difference, and what is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.errors import UsageError
from edgeseg.models.configs.networks import PUBLISHED
from edgeseg.models.configs.options import BACKBONES, HEADS, NECKS
from edgeseg.models.configs.recognise import heads_of, recognise_network
from edgeseg.models.families import seaformer, topformer
from edgeseg.models.heads.registry import build_from_config, list_heads
from edgeseg.models.registry import build_on_meta, list_models
from tests.goldens.runner import FOLDER, load_record

RECORDS = sorted(file.stem for file in FOLDER.glob("mmseg_*.json") if "@" not in file.stem)

Model = dict[str, Any]


def _stdc(model: Model, kind: str) -> None:
    model["backbone"]["backbone_cfg"]["stdc_type"] = kind


def _model(name: str, change: Callable[[Model], object] = lambda model: None) -> Model:
    model = copy.deepcopy(PUBLISHED[name])
    change(model)
    return model


def _refused(name: str, change: Callable[[Model], object]) -> str:
    with pytest.raises(UsageError) as caught:
        recognise_network(_model(name, change))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_network_in_mmsegmentations_form_is_known() -> None:
    assert PUBLISHED.keys() == {
        name for kind in ("mmseg", "topformer", "seaformer") for name in list_models(f"{kind}_*")
    }


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_topformers_options_are_those_of_the_registered_network(size: str) -> None:
    ours, theirs = PUBLISHED[f"topformer_{size}"], getattr(topformer, f"_{size.upper()}")
    backbone, head = ours["backbone"], ours["decode_head"]
    assert (backbone["cfgs"], backbone["embed_out_indice"]) == (theirs.rows, theirs.taps)
    assert (backbone["num_heads"], head["channels"]) == (theirs.heads, theirs.channels)
    assert head.get("is_dw", False) == theirs.depthwise


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_seaformers_options_are_those_of_the_registered_network(size: str) -> None:
    ours, theirs = PUBLISHED[f"seaformer_{size}"], getattr(seaformer, f"_{size.upper()}")
    backbone, head = ours["backbone"], ours["decode_head"]
    assert (backbone["cfgs"], backbone["num_heads"], backbone["channels"][0]) == (
        theirs.stages,
        theirs.heads,
        theirs.stem,
    )
    assert (backbone["key_dims"], backbone["depths"], head["embed_dims"]) == (theirs.keys, theirs.depths, theirs.head)
    assert backbone.get("mlp_ratios", (2, 4)) == theirs.ratios


def test_a_published_variant_of_other_width_is_not_the_registered_one() -> None:
    """TopFormer-Base for Cityscapes has a head half as wide as ADE20K's."""

    def narrower(model: Model) -> None:
        model["backbone"]["out_channels"] = [None, 128, 128, 128]
        model["decode_head"].update(in_channels=[128] * 3, channels=128)

    assert "model.decode_head.channels=128 (there 256)" in _refused("topformer_base", narrower)


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_are_told_apart(name: str) -> None:
    assert recognise_network(PUBLISHED[name]) == name


@pytest.mark.parametrize("name", RECORDS)
def test_published_configs(name: str) -> None:
    assert recognise_network(load_record(FOLDER / f"{name}.json")["source"]["kwargs"]) == name


@pytest.mark.parametrize(
    "name", [name for name in PUBLISHED if len(heads_of(PUBLISHED[name])) == 1 and "mmseg" in name]
)
def test_the_options_are_those_of_the_registered_network(name: str) -> None:
    """A head built by the options has the tensors of the registered network's."""
    model = PUBLISHED[name]
    options = {**model["decode_head"], "num_classes": 19}
    if options["type"] == "IterativeDecodeHead":
        options = {**options["kernel_generate_head"], "num_classes": 19}
    with torch.device("meta"):
        built = build_from_config({key: value for key, value in options.items() if key != "norm_cfg"})
    whole = build_on_meta(name).state_dict()
    place = "decode_head.kernel_generate_head." if "kernel_generate_head" in model["decode_head"] else "decode_head."
    theirs = {key.removeprefix(place): value.shape for key, value in whole.items() if key.startswith(place)}
    assert {key: value.shape for key, value in built.state_dict().items()} == theirs


def test_heads_are_those_of_the_head_registry() -> None:
    inside = {"KernelUpdateHead", "KernelUpdator", "SimpleHead", "LightHead"}
    classes = {short for short in HEADS if short not in inside}
    assert len(classes) == len({*list_heads()} - {"stdc"})  # STDC's detail head serves training alone


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["backbone"].update(norm_eval=True, frozen_stages=1, with_cp=True, init_cfg={"type": "Pretrained"}),
        lambda m: m["backbone"].update(norm_cfg={"type": "SyncBN", "requires_grad": True, "momentum": 0.03}),
        lambda m: m["decode_head"].update(dropout_ratio=0.5, ignore_index=0, sampler={"type": "OHEMPixelSampler"}),
        lambda m: m["decode_head"].update(loss_decode=[{"type": "DiceLoss"}], num_classes=150),
        lambda m: m["decode_head"].update(in_index=-1),
        lambda m: m["decode_head"].update(type="mmseg.PSPHead", pool_scales=[1, 2, 3, 6]),
        lambda m: m["backbone"].update(type="ResNet", deep_stem=True, conv_cfg={"type": "Conv2d"}),
        lambda m: m["decode_head"].update(act_cfg={"type": "ReLU", "inplace": True}),
        lambda m: m.update(auxiliary_head={"type": "Anything"}, pretrained="x.pth", train_cfg={}, neck=None),
        lambda m: m.update(test_cfg={"mode": "slide", "crop_size": (512, 512), "stride": (341, 341)}),
        lambda m: m.update(test_cfg=None, init_cfg=None, data_preprocessor={}),
    ],
)
def test_what_makes_no_difference(change: Callable[[Model], object]) -> None:
    assert recognise_network(_model("mmseg_pspnet_r18_d8", change)) == "mmseg_pspnet_r18_d8"


@pytest.mark.parametrize("name", ["mmseg_fcn_r18_d8", "mmseg_bisenetv2", "mmseg_fastscnn", "mmseg_ddrnet_23_slim"])
def test_the_last_resize_alone_is_the_configs_own(name: str) -> None:
    for align_corners in (False, True):
        changed = _model(name, lambda m: m["decode_head"].update(align_corners=align_corners))  # noqa: B023
        assert recognise_network(changed) == name


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("mmseg_pspnet_r18_d8", lambda m: m["backbone"].update(depth=50), ("model.backbone.depth=50 (there 18)",)),
        ("mmseg_pspnet_r18_d8", lambda m: m["decode_head"].update(align_corners=True), ("align_corners=True",)),
        ("mmseg_pspnet_r18_d8", lambda m: m["decode_head"].update(own=1), ("own=1 (there no such option)",)),
        ("mmseg_pspnet_r18_d8", lambda m: m["decode_head"].pop("norm_cfg"), ("norm_cfg=None (there 'BN with eps",)),
        ("mmseg_pspnet_r18_d8", lambda m: m["decode_head"].pop("channels"), ("channels (not given, there 128)",)),
        ("mmseg_pspnet_r18_d8", lambda m: m["backbone"].update(norm_cfg={"type": "GN"}), ("'GN with eps 1e-05'",)),
        ("mmseg_pspnet_r18_d8", lambda m: m["backbone"].update(in_channels=4), ("in_channels=4 (there 3)",)),
        ("mmseg_pspnet_r18_d8", lambda m: m.update(own=1), ("model.own=1",)),
        ("mmseg_pspnet_r18_d8", lambda m: m.update(test_cfg={"mode": "whole", "own": 1}), ("test_cfg.own=1",)),
        ("mmseg_pspnet_r18_d8", lambda m: m.update(neck=PUBLISHED["mmseg_semfpn_r18"]["neck"]), ("neck.type='FPN'",)),
        ("mmseg_pspnet_r18_d8", lambda m: m["decode_head"].update(type="OCRHead"), ("decode_head.type='OCRHead'",)),
        ("mmseg_fcn_r18_d8", lambda m: m["decode_head"].update(concat_input=False), ("concat_input=False",)),
        ("mmseg_fcn_r18_d8", lambda m: m["decode_head"].update(num_convs=1), ("num_convs=1 (there 2)",)),
        ("mmseg_lraspp_mbv3_small", lambda m: m["backbone"].pop("norm_cfg"), ("'BN with eps 1e-05' (there",)),
        ("mmseg_ocrnet_hr18s", lambda m: m["decode_head"][0].update(align_corners=True), ("decode_head.0.align_corn",)),
        ("mmseg_ocrnet_hr18s", lambda m: m["backbone"]["extra"]["stage4"].update(num_modules=3), ("num_modules=3",)),
        ("mmseg_pointrend_r18", lambda m: m["test_cfg"].update(subdivision_steps=3), ("subdivision_steps=3",)),
        ("mmseg_stdc1", lambda m: _stdc(m, "STDCNet3"), ("stdc_type='STDCNet3'",)),
        ("mmseg_segformer_b0", lambda m: m["backbone"].update(embed_dims=48), ("embed_dims=48",)),
        ("mmseg_knet_fcn_r18", lambda m: m["decode_head"]["kernel_update_head"].pop(), ("kernel_update_head.2.type",)),
        ("mmseg_pidnet_s", lambda m: m["backbone"].update(ppm_channels=128), ("ppm_channels=128 (there 96)",)),
        ("mmseg_fastscnn", lambda m: m["backbone"].update(type="ERFNet"), ("type='ERFNet'", "'erfnet' is registered")),
        ("mmseg_fastscnn", lambda m: m["backbone"].update(type="mmpretrain.ConvNeXt"), ("type='mmpretrain.ConvNeXt'",)),
        ("mmseg_fastscnn", lambda m: m["decode_head"].update(type="SegFormerHead"), ("nearest is SegformerHead",)),
        ("mmseg_fastscnn", lambda m: m.update(backbone={"type": "ResNet", "deep_stem": True}), ("'ResNetV1c'",)),
        ("mmseg_upernet_r18", lambda m: m["backbone"].update(type="ResNetV1d"), ("'ResNetV1d' (there",)),
        ("mmseg_upernet_r18", lambda m: m["backbone"].update(avg_down=True), ("'ResNetV1d' (there",)),
        ("mmseg_fastscnn", lambda m: m.update(type="SegTTAModel"), ("unknown model.type 'SegTTAModel'",)),
        ("mmseg_fastscnn", lambda m: m.update(backbone="FastSCNN"), ("must be a dictionary with a 'type'",)),
        ("mmseg_fastscnn", lambda m: m.pop("decode_head"), ("has no decode_head",)),
        ("mmseg_pspnet_r18_d8", lambda m: m["backbone"].pop("type"), ("must be a dictionary with a 'type'",)),
        ("mmseg_fastscnn", lambda m: m["decode_head"].update(type=5), ("must be a dictionary with a 'type'",)),
    ],
)  # fmt: skip
def test_what_differs_is_named(name: str, change: Callable[[Model], object], words: tuple[str, ...]) -> None:
    sentence = _refused(name, change)
    assert all(word in sentence for word in words), sentence


def test_many_differences_are_cut() -> None:
    sentence = _refused("mmseg_bisenetv2", lambda m: m["backbone"].update({f"own{k}": k for k in range(20)}))
    assert "and 14 more" in sentence


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [each for key in value for each in _places(value[key], (*place, key))]
    return [place]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_another_value_of_any_option_is_no_longer_the_network(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(PUBLISHED)))
    model = _model(name)
    place = data.draw(st.sampled_from(_places(model)))
    owner = model
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = data.draw(st.sampled_from(["other", 7919, (7919,), None]))
    try:
        found = recognise_network(model)
    except UsageError:
        return
    silent = {"norm_cfg"} if any(head.get("num_convs") == 0 for head in heads_of(PUBLISHED[name])) else set()
    assert silent & set(map(str, place)) or place == ("test_cfg",) or found != name


def test_a_part_of_another_network_is_not_taken_for_it() -> None:
    for table in (HEADS, BACKBONES, NECKS):
        assert all(isinstance(options, dict) for options in table.values())
    found = recognise_network(_model("mmseg_stdc1", lambda m: _stdc(m, "STDCNet2")))
    assert found == "mmseg_stdc2"
