"""Configs as people have them: base files for model, data set, schedule and run, and a file that is based on them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FAST_SCNN", "FAST_SCNN_OLD", "NEW", "OLD", "write", "write_tree"]

FAST_SCNN = """\
# a model in mmsegmentation's words
norm_cfg = dict(type='SyncBN', requires_grad=True, momentum=0.01)
data_preprocessor = dict(
    type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
    pad_val=0, seg_pad_val=255)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    pretrained=None,
    backbone=dict(type='FastSCNN', out_indices=(0, 1, 2), norm_cfg=norm_cfg, align_corners=False),
    decode_head=dict(
        type='DepthwiseSeparableFCNHead', in_channels=128, channels=128, concat_input=False, num_classes=19,
        in_index=-1, norm_cfg=norm_cfg, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1)),
    auxiliary_head=[
        dict(type='FCNHead', in_channels=64, channels=32, num_convs=1, num_classes=19, in_index=-3,
             norm_cfg=norm_cfg, concat_input=False, loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4))],
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
"""

FAST_SCNN_OLD = FAST_SCNN.replace("    data_preprocessor=data_preprocessor,\n", "").replace(
    "data_preprocessor", "unused"
)
"""As 0.x has it, whose test pipeline normalises."""

NEW = """\
dataset_type = 'CityscapesDataset'
data_root = 'data/cityscapes/'
crop_size = (512, 1024)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
img_ratios = [0.5, 1.0, 1.75]
tta_pipeline = [
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in img_ratios],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        ]),
]
train_dataloader = dict(batch_size=2, dataset=dict(type=dataset_type, data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(type=dataset_type, data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
"""

OLD = """\
dataset_type = 'CityscapesDataset'
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
crop_size = (512, 1024)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug',
        img_scale=(2048, 1024),
        flip=False,
        transforms=[
            dict(type='Resize', keep_ratio=True),
            dict(type='RandomFlip'),
            dict(type='Normalize', **img_norm_cfg),
            dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img']),
        ]),
]
data = dict(
    samples_per_gpu=2,
    train=dict(type=dataset_type, img_dir='leftImg8bit/train', pipeline=[dict(type='RandomCrop', crop_size=crop_size)]),
    val=dict(type=dataset_type, img_dir='leftImg8bit/val', pipeline=test_pipeline),
    test=dict(type=dataset_type, img_dir='leftImg8bit/val', pipeline=test_pipeline))
"""

_SCHEDULE = """\
optimizer = dict(type='SGD', lr=1e-2, momentum=0.9)
optim_wrapper = dict(type='OptimWrapper', optimizer=optimizer, clip_grad=None)
param_scheduler = [dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=4 * 20000, by_epoch=False)]
default_hooks = dict(timer=dict(type='IterTimerHook'))
"""


def write(file: Path, text: str) -> Path:
    """Write a file, and the folders it lies in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def write_tree(folder: Path, own: str = "", *, model: str = FAST_SCNN, data: str = NEW) -> Path:
    """Write the base files and the config that is based on them; return the config.

    Args:
        folder: Where.
        own: What the config says itself.
        model: Base file of the model.
        data: Base file of the data set.
    """
    bases = {"models/net.py": model, "datasets/data.py": data, "schedules/schedule.py": _SCHEDULE}
    for name, text in bases.items():
        write(folder / "configs/_base_" / name, text)
    named = ", ".join(f"'../_base_/{name}'" for name in bases)
    return write(folder / "configs/net/own.py", f"_base_ = [{named}]\n{own}")
