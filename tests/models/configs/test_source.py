"""Whole configs: what is read of them, and their checkpoints by mmsegmentation's keys."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.errors import CheckpointError, UsageError
from edgeseg.models.configs.files import read_config_file
from edgeseg.models.configs.networks import PUBLISHED
from edgeseg.models.configs.recognise import heads_of
from edgeseg.models.configs.source import _described, read_config, resolve_config
from edgeseg.models.registry import build_network, model_spec
from edgeseg.specs import InputSpec, PostprocessSpec
from tests.models.configs.trees import FAST_SCNN_OLD, OLD, write, write_tree

SMALL = (
    "mmseg_fastscnn", "mmseg_cgnet", "mmseg_bisenetv2", "mmseg_ddrnet_23_slim", "mmseg_pidnet_s", "mmseg_stdc1",
    "mmseg_segformer_b0", "mmseg_lraspp_mbv3_small", "mmseg_setr_pup_tiny", "mmseg_setr_mla_tiny", "mmseg_dpt_tiny",
    "mmseg_ocrnet_hr18s", "mmseg_segmenter_vit_t", "topformer_tiny", "seaformer_tiny",
)  # fmt: skip


def _model_file(folder: Path, name: str, **data_preprocessor: Any) -> Path:
    """Write the published options of a network as a config."""
    model = {
        **copy.deepcopy(PUBLISHED[name]),
        "data_preprocessor": {"type": "SegDataPreProcessor", **data_preprocessor},
    }
    for head in model["decode_head"] if isinstance(model["decode_head"], list) else [model["decode_head"]]:
        head["num_classes"] = 4
    return write(folder / "config.py", f"model = {model!r}")


def test_a_config_of_1x(tmp_path: Path) -> None:
    found = read_config(
        write_tree(tmp_path, "crop_size = (512, 1024)\nmodel = dict(data_preprocessor=dict(size=crop_size))")
    )
    assert (found.name, found.num_classes, found.labels.name) == ("mmseg_fastscnn", 19, "cityscapes")
    assert found.spec.input == InputSpec("rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    assert (found.spec.input_size, found.spec.resize.mode) == ((1024, 2048), "letterbox")
    assert found.spec.postprocess == PostprocessSpec(align_corners=False)
    assert found.notes[0].startswith(
        "own.py: network 'mmseg_fastscnn', 19 output channels (road, sidewalk, building, …)"
    )
    assert "1024x2048 (height x width, letterbox), rgb, mean 123.675, 116.28, 103.53" in found.notes[0]


def test_a_config_of_0x_says_the_same(tmp_path: Path) -> None:
    new = read_config(write_tree(tmp_path / "new"))
    assert read_config(write_tree(tmp_path / "old", model=FAST_SCNN_OLD, data=OLD)) == new


def test_a_dump_says_the_same(tmp_path: Path) -> None:
    file = write_tree(tmp_path)
    dump = write(tmp_path / "own.json", json.dumps(read_config_file(file)))
    python = write(tmp_path / "own.py", "\n".join(f"{k} = {v!r}" for k, v in read_config_file(file).items()))
    first = read_config(file)
    for other in (dump, python):
        found = read_config(other)
        assert (found.name, found.spec, found.labels) == (first.name, first.spec, first.labels)


def test_changes_of_a_config(tmp_path: Path) -> None:
    own = (
        "model = dict(decode_head=dict(num_classes=3, align_corners=True))\n"
        "test_dataloader = dict(dataset=dict(metainfo=dict(classes=('a', 'b', 'c'), palette=[[1, 1, 1]] * 3)))"
    )
    found = read_config(write_tree(tmp_path, own))
    assert (found.num_classes, found.labels.names, found.labels.palette[2]) == (3, ("a", "b", "c"), (1, 1, 1))
    assert found.spec.postprocess.align_corners


def test_a_single_channel_has_a_threshold_on_the_logit(tmp_path: Path) -> None:
    found = read_config(write_tree(tmp_path, "model = dict(decode_head=dict(num_classes=2, out_channels=1))"))
    assert (found.num_classes, len(found.labels.names)) == (1, 2)
    assert found.spec.postprocess.threshold == pytest.approx(math.log(0.3 / 0.7))
    assert "1 output channel, threshold -0.8473 on the logit" in found.notes[0]


KNET = """\
norm_cfg = dict(type='SyncBN', requires_grad=True)
num_stages = 3
conv_kernel_size = 1
model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(
        type='ResNetV1c', depth=18, num_stages=4, out_indices=(0, 1, 2, 3), dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1), norm_cfg=norm_cfg, norm_eval=False, style='pytorch', contract_dilation=True),
    decode_head=dict(
        type='IterativeDecodeHead',
        num_stages=num_stages,
        kernel_update_head=[
            dict(
                type='KernelUpdateHead', num_classes=150, num_ffn_fcs=2, num_heads=8, num_mask_fcs=1,
                feedforward_channels=2048, in_channels=512, out_channels=512, dropout=0.0,
                conv_kernel_size=conv_kernel_size, ffn_act_cfg=dict(type='ReLU', inplace=True), with_ffn=True,
                feat_transform_cfg=dict(conv_cfg=dict(type='Conv2d'), act_cfg=None),
                kernel_updator_cfg=dict(
                    type='KernelUpdator', in_channels=256, feat_channels=256, out_channels=256,
                    act_cfg=dict(type='ReLU', inplace=True), norm_cfg=dict(type='LN')))
            for _ in range(num_stages)
        ],
        kernel_generate_head=dict(
            type='FCNHead', in_channels=512, in_index=3, channels=512, num_convs=2, concat_input=True,
            dropout_ratio=0.1, num_classes=150, norm_cfg=norm_cfg, align_corners=False)),
    test_cfg=dict(mode='whole'))
dataset_type = 'ADE20KDataset'
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(2048, 512), keep_ratio=True)]
"""

OCRNET = """\
norm_cfg = dict(type='SyncBN', requires_grad=True)
widths = [18, 36, 72, 144]
joined = dict(in_channels=widths, in_index=(0, 1, 2, 3), input_transform='resize_concat', dropout_ratio=-1,
              num_classes=19, norm_cfg=norm_cfg, align_corners=False)
extra = dict(
    stage1=dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(2, ), num_channels=(64, )),
    stage2=dict(num_modules=1, num_branches=2, block='BASIC', num_blocks=(2, 2), num_channels=(18, 36)),
    stage3=dict(num_modules=3, num_branches=3, block='BASIC', num_blocks=(2, ) * 3, num_channels=tuple(widths[:3])),
    stage4=dict(num_modules=2, num_branches=4, block='BASIC', num_blocks=(2, ) * 4, num_channels=widths))
model = dict(
    type='CascadeEncoderDecoder',
    num_stages=2,
    backbone=dict(type='HRNet', norm_cfg=norm_cfg, norm_eval=False, extra=extra),
    decode_head=[
        dict(type='FCNHead', channels=sum([18, 36, 72, 144]), kernel_size=1, num_convs=1, concat_input=False, **joined),
        dict(type='OCRHead', channels=512, ocr_channels=256, **joined),
    ])
"""


def test_published_ways_of_writing(tmp_path: Path) -> None:
    """Entries repeated over a range, as K-Net's config has them, and OCRNet's sum of widths."""
    found = read_config(write(tmp_path / "knet.py", KNET))
    assert (found.name, found.num_classes, found.labels.names[-1]) == ("mmseg_knet_fcn_r18", 150, "flag")
    assert found.spec.input_size == (512, 512)
    assert read_config(write(tmp_path / "ocrnet.py", OCRNET)).name == "mmseg_ocrnet_hr18s"


@pytest.mark.parametrize("name", ["mmseg_knet_fcn_r18", "mmseg_pointrend_r18", "mmseg_pspnet_r18_d8"])
def test_the_last_resize_is_that_of_the_head_that_decides(tmp_path: Path, name: str) -> None:
    file = _model_file(tmp_path, name)
    assert read_config(file).spec.postprocess == model_spec(name).postprocess
    model = read_config_file(file)["model"]
    if name == "mmseg_knet_fcn_r18":
        model["decode_head"]["kernel_generate_head"]["align_corners"] = True
        assert read_config(write(file, f"model = {model!r}")).spec.postprocess.align_corners


def test_what_the_config_leaves_open_is_the_networks(tmp_path: Path) -> None:
    model = copy.deepcopy(PUBLISHED["mmseg_cgnet"])
    model["decode_head"]["num_classes"] = 19
    found = read_config(write(tmp_path / "c.py", f"model = {model!r}"))
    spec = model_spec("mmseg_cgnet")
    assert (found.spec.input, found.spec.input_size, found.spec.resize) == (spec.input, spec.input_size, spec.resize)
    assert [note for note in found.notes if "says nothing of" in note] == [
        "the config says nothing of mean, std and channel order: taken are those of 'mmseg_cgnet'",
        "the config says nothing of the size of pictures: taken are those of 'mmseg_cgnet'",
    ]


@pytest.mark.parametrize("name", SMALL)
def test_checkpoints_load_by_mmsegmentations_keys(tmp_path: Path, name: str) -> None:
    """What the published state holds besides (auxiliary heads, counters) is passed over; nothing may be missing."""
    torch.manual_seed(1)
    try:
        full = build_network(name, 4, aux=True)
    except UsageError:
        full = build_network(name, 4)
    state = full.state_dict()
    if name.startswith("mmseg_"):
        state["auxiliary_head.9.conv_seg.weight"] = torch.ones(4)
    torch.save({"meta": {"mmseg_version": "1.2.2"}, "state_dict": state}, tmp_path / "w.pth")
    source = resolve_config(_model_file(tmp_path, name), weights=tmp_path / "w.pth")
    assert (source.origin, source.weights, source.spec.num_classes) == (name, "w.pth", 4)
    loaded = source.module.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


def test_a_checkpoint_of_another_number_of_classes(tmp_path: Path) -> None:
    torch.save(build_network("mmseg_cgnet", 7).state_dict(), tmp_path / "w.pth")
    file = _model_file(tmp_path, "mmseg_cgnet")
    with pytest.raises(CheckpointError, match=r"has 7 classes, and config.py says 4; give the checkpoint"):
        resolve_config(file, weights=tmp_path / "w.pth")
    source = resolve_config(file, weights=tmp_path / "w.pth", num_classes=7)
    assert source.spec.num_classes == 7
    assert any("7 output channels were given in place of the config's 4" in note for note in source.notes)
    with pytest.raises(UsageError, match="at least 1"):
        resolve_config(file, num_classes=0)


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    torch.save(build_network("mmseg_pidnet_s", 4).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="it fits 'mmseg_pidnet_s'"):
        resolve_config(_model_file(tmp_path, "mmseg_cgnet"), weights=tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        resolve_config(_model_file(tmp_path, "mmseg_cgnet"), weights=tmp_path / "missing.pth")


def test_labels_of_the_config_stay_until_others_are_chosen(tmp_path: Path) -> None:
    source = resolve_config(_model_file(tmp_path, "mmseg_cgnet"))
    assert source.label_set is not None
    assert source.but(input=InputSpec()).label_set == source.label_set
    assert source.but(labels="person").label_set is None


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a config: of dictionaries and lists too."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([place] if place else []), *(each for key, part in inside for each in _places(part, (*place, key)))]


_ODD: tuple[Any, ...] = (
    None, True, 0, -1, 3, 0.5, 9e999, "", "x", [], {}, [1], ["x"], [[1, 2]], [{}], {"type": "X"}, {"type": 3}, {"": {}},
    {1: 2}, {"type": ["x"]}, {"type": "SyncBN"}, (), [None], "FCNHead",
)  # fmt: skip


def _whole(name: str | None) -> dict[str, Any]:
    """A config of 1.x with the model of a network; of 0.x where none is named."""
    with tempfile.TemporaryDirectory() as folder:
        if name is None:
            return read_config_file(write_tree(Path(folder), model=FAST_SCNN_OLD, data=OLD))
        config = read_config_file(
            write_tree(Path(folder), "metainfo = dict(classes=['a', 'b'], palette=[[1, 2, 3]] * 2)")
        )
    model = copy.deepcopy(PUBLISHED[name])
    found: list[Any] = heads_of(model)
    for head in found:
        head["num_classes"] = 2
    return {**config, "model": {**model, "data_preprocessor": config["model"]["data_preprocessor"]}}


_READ = ("model", "test_dataloader", "data", "metainfo", "crop_size", "test_pipeline")
_WHOLE = [
    {key: value for key, value in json.loads(json.dumps(_whole(name))).items() if key in _READ}
    for name in (None, "mmseg_fastscnn", "mmseg_knet_upernet_r18", "mmseg_pointrend_r18", "mmseg_stdc1")
]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_odd_values_are_one_sentence(data: st.DataObject) -> None:
    config = copy.deepcopy(data.draw(st.sampled_from(_WHOLE)))
    place = data.draw(st.sampled_from(_places(config)))
    owner: Any = config
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = data.draw(st.sampled_from(_ODD))
    try:
        found = _described(config, "c.py", None)
    except UsageError as error:
        sentence = str(error)
    else:
        assert len(found.labels.names) == max(2, found.num_classes)
        sentence = found.notes[0]
    assert "\n" not in sentence


@pytest.mark.parametrize("text", ["x = 1", "model = 5", "model = [dict(type='EncoderDecoder')]"])
def test_a_config_without_a_model(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"c.py: it has no dictionary 'model'"):
        read_config(write(tmp_path / "c.py", text))
