"""What mmsegmentation's configs say of each network that is registered here in its form, as golden records hold it."""

from __future__ import annotations

from typing import Any

__all__ = ["PUBLISHED"]

_Part = dict[str, Any]

_BN: _Part = {"type": "BN"}
_BN3: _Part = {"type": "BN", "eps": 1e-3}
_LN6: _Part = {"type": "LN", "eps": 1e-6}
_LEVELS = (0, 1, 2, 3)
_WIDTHS = (64, 128, 256, 512)

_D8: _Part = {
    "type": "ResNetV1c", "depth": 18, "strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4), "contract_dilation": True,
}  # fmt: skip
_D32: _Part = {"type": "ResNetV1c", "depth": 18}
_FPN: _Part = {"type": "FPN", "in_channels": _WIDTHS, "out_channels": 256, "num_outs": 4}


def _network(backbone: _Part, *heads: _Part, neck: _Part | None = None, test_cfg: _Part | None = None) -> _Part:
    """Put the parts of a network together; several heads are a cascade."""
    cascade = len(heads) > 1
    model: _Part = {
        "type": "CascadeEncoderDecoder" if cascade else "EncoderDecoder",
        "backbone": backbone,
        "decode_head": list(heads) if cascade else next(iter(heads)),
        "test_cfg": test_cfg or {},
    }
    return {**model, **({"num_stages": len(heads)} if cascade else {}), **({"neck": neck} if neck else {})}


def _head(name: str, **options: Any) -> _Part:
    """Describe a head whose convolutions have batch norm."""
    return {"type": name, "norm_cfg": _BN, **options}


def _last(name: str, **options: Any) -> _Part:
    """Describe a head on the last map of a ResNet-18."""
    return _head(name, **{"in_channels": 512, "in_index": 3, "channels": 128, **options})


def _one_conv(**options: Any) -> _Part:
    return _head("FCNHead", num_convs=1, concat_input=False, **options)


def _stdc(kind: str) -> _Part:
    net: _Part = {
        "type": "STDCNet", "stdc_type": kind, "channels": (32, 64, 256, 512, 1024), "bottleneck_type": "cat",
        "norm_cfg": _BN, "act_cfg": {"type": "ReLU"},
    }  # fmt: skip
    ffm = {"in_channels": 384, "out_channels": 256, "scale_factor": 4}
    return _network(
        {"type": "STDCContextPathNet", "backbone_cfg": net, "ffm_cfg": ffm},
        _one_conv(in_channels=256, in_index=3, channels=256),
    )


def _ddrnet(channels: int) -> _Part:
    head = _head("DDRHead", in_channels=4 * channels, channels=2 * channels)
    return _network({"type": "DDRNet", "channels": channels}, head)


def _pidnet(channels: int, head: int, **options: int) -> _Part:
    return _network(
        {"type": "PIDNet", "channels": channels, **options}, _head("PIDHead", in_channels=4 * channels, channels=head)
    )


def _lraspp(arch: str, taps: tuple[int, ...], widths: tuple[int, ...]) -> _Part:
    return _network(
        {"type": "MobileNetV3", "arch": arch, "out_indices": taps, "norm_cfg": _BN3},
        {
            "type": "LRASPPHead", "in_channels": widths, "in_index": (0, 1, 2), "channels": 128,
            "input_transform": "multiple_select", "norm_cfg": _BN3,
        },
    )  # fmt: skip


def _segformer(width: int, layers: tuple[int, ...]) -> _Part:
    heads = (1, 2, 5, 8)
    return _network(
        {"type": "MixVisionTransformer", "embed_dims": width, "num_layers": layers, "num_heads": heads},
        _head("SegformerHead", in_channels=tuple(width * each for each in heads), in_index=_LEVELS, channels=256),
    )


def _knet(backbone: _Part, first: _Part) -> _Part:
    relu = {"type": "ReLU"}
    updator: _Part = {
        "type": "KernelUpdator", "in_channels": 256, "feat_channels": 256, "out_channels": 256, "act_cfg": relu,
        "norm_cfg": {"type": "LN"},
    }  # fmt: skip
    update: _Part = {
        "type": "KernelUpdateHead", "num_ffn_fcs": 2, "num_heads": 8, "num_mask_fcs": 1, "feedforward_channels": 2048,
        "in_channels": 512, "out_channels": 512, "conv_kernel_size": 1, "ffn_act_cfg": relu, "with_ffn": True,
        "feat_transform_cfg": {"conv_cfg": {"type": "Conv2d"}, "act_cfg": None}, "kernel_updator_cfg": updator,
    }  # fmt: skip
    head: _Part = {
        "type": "IterativeDecodeHead", "num_stages": 3, "kernel_update_head": [update] * 3,
        "kernel_generate_head": first,
    }  # fmt: skip
    return _network(backbone, head)


def _vit(width: int, heads: int) -> _Part:
    return {
        "type": "VisionTransformer", "img_size": (512, 512), "embed_dims": width, "num_heads": heads,
        "norm_cfg": _LN6, "final_norm": True,
    }  # fmt: skip


def _segmenter(width: int, heads: int) -> _Part:
    return _network(
        _vit(width, heads),
        {
            "type": "SegmenterMaskTransformerHead", "in_channels": width, "channels": width, "num_layers": 2,
            "num_heads": heads, "embed_dims": width,
        },
    )  # fmt: skip


def _tiny_vit(**options: Any) -> _Part:
    return {
        "type": "VisionTransformer", "img_size": (128, 128), "embed_dims": 48, "num_layers": 4, "num_heads": 3,
        "out_indices": _LEVELS, **options,
    }  # fmt: skip


def _setr_up(**options: Any) -> _Part:
    vit = _tiny_vit(norm_cfg=_LN6, interpolate_mode="bilinear")
    return _network(vit, _head("SETRUPHead", in_channels=48, channels=32, in_index=3, **options))


def _hr_stage(modules: int, branches: int, block: str, width: int) -> _Part:
    return {
        "num_modules": modules, "num_branches": branches, "block": block, "num_blocks": (2,) * branches,
        "num_channels": tuple(width * 2**k for k in range(branches)),
    }  # fmt: skip


def _ocrnet() -> _Part:
    stages = ((1, 1, "BOTTLENECK", 64), (1, 2, "BASIC", 18), (3, 3, "BASIC", 18), (2, 4, "BASIC", 18))
    extra = {f"stage{k}": _hr_stage(*stage) for k, stage in enumerate(stages, 1)}
    joined: _Part = {"in_channels": (18, 36, 72, 144), "in_index": _LEVELS, "input_transform": "resize_concat"}
    return _network(
        {"type": "HRNet", "extra": extra},
        _one_conv(**joined, channels=270, kernel_size=1),
        _head("OCRHead", **joined, channels=512, ocr_channels=256),
    )


def _fpn_head() -> _Part:
    return _head(
        "FPNHead", in_channels=(256,) * 4, in_index=_LEVELS, feature_strides=(4, 8, 16, 32), channels=128
    )  # fmt: skip


_Rows = tuple[tuple[int, int, int, int], ...]
"""Kernel size, expansion, channels and stride of inverted residuals."""


def _topformer(rows: _Rows, taps: tuple[int, ...], heads: int, channels: int, *, is_dw: bool = False) -> _Part:
    backbone: _Part = {
        "type": "Topformer", "cfgs": rows, "channels": tuple(rows[tap][2] for tap in taps),
        "out_channels": (None, channels, channels, channels), "embed_out_indice": taps,
        "decode_out_indices": (1, 2, 3), "depths": 4, "num_heads": heads, "c2t_stride": 2,
    }  # fmt: skip
    head = _head("SimpleHead", in_channels=(channels,) * 3, in_index=(0, 1, 2), channels=channels, is_dw=is_dw)
    return _network(backbone, head)


def _topformer_rows(a: int, b: int, c: int, d: int, *, last: int = 3) -> _Rows:
    rows = (
        (3, 1, 16, 1), (3, 4, a, 2), (3, 3, a, 1), (5, 3, b, 2), (5, 3, b, 1), (3, 3, c, 2), (3, 3, c, 1),
        (5, 6, d, 2), (5, 6, d, 1), (3, 6, d, 1),
    )  # fmt: skip
    return rows[: 7 + last]


def _seaformer(stages: tuple[_Rows, ...], heads: int, widths: tuple[int, ...], **options: Any) -> _Part:
    channels = tuple(rows[-1][2] for rows in stages)
    count = len(widths)
    backbone: _Part = {
        "type": "SeaFormer", "cfgs": stages, "channels": (stages[0][0][2], *channels), "emb_dims": channels[-count:],
        "num_heads": heads, **options,
    }  # fmt: skip
    inputs = (channels[1], *channels[-count:])
    head = _head(
        "LightHead", in_channels=inputs, in_index=tuple(range(len(inputs))), channels=widths[-1], embed_dims=widths,
        is_dw=True,
    )  # fmt: skip
    return _network(backbone, head)


def _seaformer_stages(a: int, b: int, c: int, d: tuple[int, int], e: int) -> tuple[_Rows, ...]:
    first: _Rows = ((3, 1, 16, 1), (3, 4, a, 2), (3, 3, a, 1))
    return first, ((5, 3, b, 2), (5, 3, b, 1)), ((3, 3, c, 2), (3, 3, c, 1)), ((5, *d, 2),), ((3, 6, e, 2),)


_SEAFORMER_LARGE: tuple[_Rows, ...] = (
    ((3, 3, 32, 1), (3, 4, 64, 2), (3, 4, 64, 1)), ((5, 4, 128, 2), (5, 4, 128, 1)), ((3, 4, 192, 2), (3, 4, 192, 1)),
    ((5, 4, 256, 2),), ((3, 6, 320, 2),),
)  # fmt: skip
_KEYS: tuple[int, ...] = (16, 24)
_DILATIONS = (1, 12, 24, 36)
_UPER = _head("UPerHead", in_channels=_WIDTHS, in_index=_LEVELS, channels=512)

PUBLISHED: dict[str, _Part] = {
    "mmseg_bisenetv1_r18": _network(
        {"type": "BiSeNetV1", "backbone_cfg": {"type": "ResNet", "depth": 18}},
        _one_conv(in_channels=256, in_index=0, channels=256),
    ),
    "mmseg_bisenetv2": _network({"type": "BiSeNetV2"}, _one_conv(in_channels=128, in_index=0, channels=1024)),
    "mmseg_stdc1": _stdc("STDCNet1"),
    "mmseg_stdc2": _stdc("STDCNet2"),
    "mmseg_cgnet": _network(
        {"type": "CGNet", "norm_cfg": _BN3},
        _head("FCNHead", in_channels=256, in_index=2, channels=256, num_convs=0, concat_input=False),
    ),
    "mmseg_ddrnet_23_slim": _ddrnet(32),
    "mmseg_ddrnet_23": _ddrnet(64),
    "mmseg_pidnet_s": _pidnet(32, 128),
    "mmseg_pidnet_m": _pidnet(64, 128),
    "mmseg_pidnet_l": _pidnet(64, 256, ppm_channels=112, num_stem_blocks=3, num_branch_blocks=4),
    "mmseg_fastscnn": _network(
        {"type": "FastSCNN"},
        _head("DepthwiseSeparableFCNHead", in_channels=128, in_index=-1, channels=128, concat_input=False),
    ),
    "mmseg_lraspp_mbv3_large": _lraspp("large", (1, 3, 16), (16, 24, 960)),
    "mmseg_lraspp_mbv3_small": _lraspp("small", (0, 1, 12), (16, 16, 576)),
    "mmseg_segformer_b0": _segformer(32, (2, 2, 2, 2)),
    "mmseg_segformer_b1": _segformer(64, (2, 2, 2, 2)),
    "mmseg_segformer_b2": _segformer(64, (3, 4, 6, 3)),
    "mmseg_segformer_b3": _segformer(64, (3, 4, 18, 3)),
    "mmseg_segformer_b4": _segformer(64, (3, 8, 27, 3)),
    "mmseg_segformer_b5": _segformer(64, (3, 6, 40, 3)),
    "mmseg_fcn_r18_d8": _network(_D8, _last("FCNHead")),
    "mmseg_pspnet_r18_d8": _network(_D8, _last("PSPHead")),
    "mmseg_deeplabv3_r18_d8": _network(_D8, _last("ASPPHead", dilations=_DILATIONS)),
    "mmseg_deeplabv3plus_r18_d8": _network(
        _D8, _last("DepthwiseSeparableASPPHead", dilations=_DILATIONS, c1_in_channels=64, c1_channels=12)
    ),
    "mmseg_nonlocal_r18_d8": _network(_D8, _last("NLHead")),
    "mmseg_dnlnet_r18_d8": _network(_D8, _last("DNLHead")),
    "mmseg_psanet_r18_d8": _network(_D8, _last("PSAHead", mask_size=(97, 97))),
    "mmseg_ccnet_r18_d8": _network(_D8, _last("CCHead")),
    "mmseg_danet_r18_d8": _network(_D8, _last("DAHead", pam_channels=16)),
    "mmseg_encnet_r18_d8": _network(_D8, _last("EncHead", in_channels=_WIDTHS[1:], in_index=(1, 2, 3))),
    "mmseg_emanet_r18_d8": _network(
        _D8, _last("EMAHead", channels=64, ema_channels=128, num_bases=64, num_stages=3)
    ),
    "mmseg_ann_r18_d8": _network(
        _D8, _last("ANNHead", in_channels=_WIDTHS[2:], in_index=(2, 3), project_channels=64)
    ),
    "mmseg_gcnet_r18_d8": _network(_D8, _last("GCHead")),
    "mmseg_apcnet_r18_d8": _network(_D8, _last("APCHead")),
    "mmseg_dmnet_r18_d8": _network(_D8, _last("DMHead")),
    "mmseg_isanet_r18_d8": _network(_D8, _last("ISAHead", isa_channels=64)),
    "mmseg_upernet_r18": _network(_D32, _UPER),
    "mmseg_semfpn_r18": _network(_D32, _fpn_head(), neck=_FPN),
    "mmseg_pointrend_r18": _network(
        _D32, _fpn_head(), {"type": "PointHead", "in_channels": (256,), "in_index": (0,), "channels": 256}, neck=_FPN,
        test_cfg={"subdivision_steps": 2, "subdivision_num_points": 8196, "scale_factor": 2},
    ),
    "mmseg_ocrnet_hr18s": _ocrnet(),
    "mmseg_knet_fcn_r18": _knet(_D8, _last("FCNHead", channels=512)),
    "mmseg_knet_upernet_r18": _knet(_D32, _UPER),
    "mmseg_setr_naive_tiny": _setr_up(num_convs=1, up_scale=4, kernel_size=1),
    "mmseg_setr_pup_tiny": _setr_up(num_convs=4, up_scale=2, kernel_size=3),
    "mmseg_setr_mla_tiny": _network(
        _tiny_vit(norm_cfg=_LN6, interpolate_mode="bilinear", with_cls_token=False),
        _head("SETRMLAHead", in_channels=(32,) * 4, in_index=_LEVELS, channels=64, mla_channels=16),
        neck={**_head("MLANeck", in_channels=(48,) * 4, out_channels=32), "act_cfg": {"type": "ReLU"}},
    ),
    "mmseg_dpt_tiny": _network(
        _tiny_vit(output_cls_token=True),
        _head(
            "DPTHead", in_channels=(48,) * 4, in_index=_LEVELS, channels=32, embed_dims=48, readout_type="project",
            post_process_channels=(12, 16, 24, 32), input_transform="multiple_select",
        ),
    ),
    "mmseg_segmenter_vit_t": _segmenter(192, 3),
    "mmseg_segmenter_vit_s": _segmenter(384, 6),
    "mmseg_segmenter_vit_s_linear": _network(
        _vit(384, 6), {"type": "FCNHead", "in_channels": 384, "channels": 384, "num_convs": 0, "concat_input": False}
    ),
    "topformer_tiny": _topformer(_topformer_rows(16, 32, 64, 96, last=2), (2, 4, 6, 8), 4, 128, is_dw=True),
    "topformer_small": _topformer(_topformer_rows(24, 48, 96, 128), (2, 4, 6, 9), 6, 192),
    "topformer_base": _topformer(_topformer_rows(32, 64, 128, 160), (2, 4, 6, 9), 8, 256),
    "seaformer_tiny": _seaformer(
        _seaformer_stages(16, 32, 64, (3, 128), 160), 4, (64, 96), key_dims=_KEYS, depths=(2, 2)
    ),
    "seaformer_small": _seaformer(
        _seaformer_stages(24, 48, 96, (4, 160), 192), 6, (96, 128), key_dims=_KEYS, depths=(3, 3)
    ),
    "seaformer_base": _seaformer(
        _seaformer_stages(32, 64, 128, (4, 192), 256), 8, (128, 160), key_dims=_KEYS, depths=(4, 4)
    ),
    "seaformer_large": _seaformer(
        _SEAFORMER_LARGE, 8, (128, 160, 192), key_dims=(16, 20, 24), depths=(3, 3, 3), mlp_ratios=(2, 4, 6)
    ),
}  # fmt: skip
"""Registry name -> the ``model`` that the published config resolves to; what has its default is left out."""
