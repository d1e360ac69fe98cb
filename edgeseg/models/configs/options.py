"""Published options of backbones, necks and heads, with their defaults, in one form in which two networks compare.

Names and defaults are mmsegmentation 1.2.2's; those of TopFormer and SeaFormer are their authors', on its 0.x. What
serves training alone is left out (`_TRAINING`); synchronised batch norm is batch norm; a level counted from the last is
counted from the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeseg.text import one_line

__all__ = ["BACKBONES", "HEADS", "NECKS", "Options", "flat_options", "short_type", "shown"]

Options = dict[str, Any]
"""Option's place, such as ``decode_head.channels`` -> its value."""

_TRAINING = frozenset({
    "init_cfg", "pretrained", "norm_eval", "with_cp", "frozen_stages", "frozen_exclude", "zero_init_residual",
    "loss_decode", "loss_se_decode", "sampler", "ignore_index", "dropout_ratio", "dropout", "drop_rate",
    "attn_drop_rate", "drop_path_rate", "momentum", "init_std", "requires_grad", "inplace",
})  # fmt: skip
_OF_CLASSES = frozenset({"num_classes", "out_channels", "threshold"})
"""Options of the last head that a network takes in any value; `edgeseg.models.configs.classes` reads them."""

_BN, _LN, _RELU = {"type": "BN"}, {"type": "LN"}, {"type": "ReLU"}
_NORMS = {
    "BN2d": "BN", "SyncBN": "BN", "MMSyncBN": "BN", "BatchNorm2d": "BN", "SyncBatchNorm": "BN", "LayerNorm": "LN",
}  # fmt: skip
_CONVOLUTIONS = ("Conv", "Conv2d")
_HEAD: Options = {
    "conv_cfg": None, "norm_cfg": None, "act_cfg": _RELU, "in_index": -1, "input_transform": None,
    "align_corners": False,
}  # fmt: skip
_FCN: Options = {**_HEAD, "num_convs": 2, "kernel_size": 3, "concat_input": True, "dilation": 1}
_RESNET: Options = {
    "in_channels": 3, "stem_channels": 64, "base_channels": 64, "num_stages": 4, "strides": (1, 2, 2, 2),
    "dilations": (1, 1, 1, 1), "out_indices": (0, 1, 2, 3), "style": "pytorch", "deep_stem": False, "avg_down": False,
    "conv_cfg": None, "norm_cfg": _BN, "dcn": None, "stage_with_dcn": (False, False, False, False), "plugins": None,
    "multi_grid": None, "contract_dilation": False,
}  # fmt: skip
_PLAIN: Options = {"in_channels": 3, "conv_cfg": None, "norm_cfg": _BN, "act_cfg": _RELU}
_SELF_ATTENTION: Options = {"reduction": 2, "use_scale": True, "mode": "embedded_gaussian"}

HEADS: dict[str, Options] = {
    "FCNHead": _FCN,
    "DepthwiseSeparableFCNHead": {**_FCN, "dw_act_cfg": None},
    "PSPHead": {**_HEAD, "pool_scales": (1, 2, 3, 6)},
    "ASPPHead": {**_HEAD, "dilations": (1, 6, 12, 18)},
    "DepthwiseSeparableASPPHead": {**_HEAD, "dilations": (1, 6, 12, 18)},
    "UPerHead": {**_HEAD, "pool_scales": (1, 2, 3, 6), "input_transform": "multiple_select"},
    "FPNHead": {**_HEAD, "input_transform": "multiple_select"},
    "PointHead": {
        **_HEAD, "num_fcs": 3, "coarse_pred_each_layer": True, "conv_cfg": {"type": "Conv1d"},
        "input_transform": "multiple_select",
    },
    "SegformerHead": {**_HEAD, "interpolate_mode": "bilinear", "input_transform": "multiple_select"},
    "LRASPPHead": {**_HEAD, "branch_channels": (32, 64)},
    "DDRHead": {**_HEAD, "norm_cfg": _BN},
    "PIDHead": {**_HEAD, "norm_cfg": _BN},
    "OCRHead": {**_HEAD, "scale": 1},
    "SETRUPHead": {**_HEAD, "norm_layer": {**_LN, "eps": 1e-6}, "num_convs": 1, "up_scale": 4, "kernel_size": 3},
    "SETRMLAHead": {**_HEAD, "mla_channels": 128, "up_scale": 4, "input_transform": "multiple_select"},
    "DPTHead": {
        **_HEAD, "norm_cfg": _BN, "embed_dims": 768, "post_process_channels": (96, 192, 384, 768),
        "readout_type": "ignore", "patch_size": 16, "expand_channels": False,
    },
    "SegmenterMaskTransformerHead": {
        **_HEAD, "mlp_ratio": 4, "num_fcs": 2, "qkv_bias": True, "act_cfg": {"type": "GELU"}, "norm_cfg": _LN,
    },
    "IterativeDecodeHead": {},
    "KernelUpdateHead": {
        "act_cfg": _RELU, "feat_gather_stride": 1, "mask_transform_stride": 1, "kernel_init": False,
    },
    "KernelUpdator": {"gate_sigmoid": True, "gate_norm_act": False, "activate_out": False},
    "NLHead": {**_FCN, **_SELF_ATTENTION},
    "DNLHead": {**_FCN, **_SELF_ATTENTION, "temperature": 0.05},
    "CCHead": {**_FCN, "recurrence": 2},
    "GCHead": {**_FCN, "ratio": 0.25, "pooling_type": "att", "fusion_types": ("channel_add",)},
    "PSAHead": {
        **_HEAD, "psa_type": "bi-direction", "compact": False, "shrink_factor": 2, "normalization_factor": 1.0,
        "psa_softmax": True,
    },
    "DAHead": _HEAD,
    "EncHead": {**_HEAD, "num_codes": 32, "use_se_loss": True, "add_lateral": False,
                "input_transform": "multiple_select"},
    "EMAHead": {**_HEAD, "concat_input": True},
    "ANNHead": {**_HEAD, "query_scales": (1,), "key_pool_scales": (1, 3, 6, 8), "input_transform": "multiple_select"},
    "APCHead": {**_HEAD, "pool_scales": (1, 2, 3, 6), "fusion": True},
    "DMHead": {**_HEAD, "filter_sizes": (1, 3, 5, 7), "fusion": False},
    "ISAHead": {**_HEAD, "down_factor": (8, 8)},
    "SimpleHead": {**_HEAD, "is_dw": False, "input_transform": "multiple_select"},
    "LightHead": {**_HEAD, "is_dw": False, "input_transform": "multiple_select"},
}  # fmt: skip
"""Class of a head -> its options that have a default."""

BACKBONES: dict[str, Options] = {
    "ResNet": _RESNET,
    "ResNetV1c": {**_RESNET, "deep_stem": True},
    "ResNetV1d": {**_RESNET, "deep_stem": True, "avg_down": True},
    "BiSeNetV1": {
        **_PLAIN, "spatial_channels": (64, 64, 64, 128), "context_channels": (128, 256, 512), "out_indices": (0, 1, 2),
        "align_corners": False, "out_channels": 256,
    },
    "BiSeNetV2": {
        **_PLAIN, "detail_channels": (64, 64, 128), "semantic_channels": (16, 32, 64, 128),
        "semantic_expansion_ratio": 6, "bga_channels": 128, "out_indices": (0, 1, 2, 3, 4), "align_corners": False,
    },
    "STDCContextPathNet": {
        "last_in_channels": (1024, 512), "out_channels": 128, "upsample_mode": "nearest", "align_corners": None,
        "ffm_cfg": {"in_channels": 512, "out_channels": 256, "scale_factor": 4}, "norm_cfg": _BN,
    },
    "STDCNet": {"in_channels": 3, "num_convs": 4, "with_final_conv": False, "norm_cfg": None, "act_cfg": None},
    "CGNet": {
        **_PLAIN, "num_channels": (32, 64, 128), "num_blocks": (3, 21), "dilations": (2, 4), "reductions": (8, 16),
        "act_cfg": {"type": "PReLU"},
    },
    "DDRNet": {**_PLAIN, "channels": 32, "ppm_channels": 128, "align_corners": False},
    "PIDNet": {
        **_PLAIN, "channels": 64, "ppm_channels": 96, "num_stem_blocks": 2, "num_branch_blocks": 3,
        "align_corners": False,
    },
    "FastSCNN": {
        **_PLAIN, "downsample_dw_channels": (32, 48), "global_in_channels": 64, "global_block_channels": (64, 96, 128),
        "global_block_strides": (2, 2, 1), "global_out_channels": 128, "higher_in_channels": 64,
        "lower_in_channels": 128, "fusion_out_channels": 128, "out_indices": (0, 1, 2), "align_corners": False,
        "dw_act_cfg": None,
    },
    "MobileNetV3": {"arch": "small", "conv_cfg": None, "norm_cfg": _BN, "out_indices": (0, 1, 12),
                    "reduction_factor": 1},
    "HRNet": {"in_channels": 3, "conv_cfg": None, "norm_cfg": _BN, "multiscale_output": True},
    "MixVisionTransformer": {
        "in_channels": 3, "embed_dims": 64, "num_stages": 4, "num_layers": (3, 4, 6, 3), "num_heads": (1, 2, 4, 8),
        "patch_sizes": (7, 3, 3, 3), "strides": (4, 2, 2, 2), "sr_ratios": (8, 4, 2, 1), "out_indices": (0, 1, 2, 3),
        "mlp_ratio": 4, "qkv_bias": True, "act_cfg": {"type": "GELU"}, "norm_cfg": {**_LN, "eps": 1e-6},
    },
    "Topformer": {"norm_cfg": _BN},
    "SeaFormer": {"norm_cfg": _BN, "mlp_ratios": (2, 4)},
    "VisionTransformer": {
        "img_size": 224, "patch_size": 16, "patch_pad": "corner", "in_channels": 3, "embed_dims": 768,
        "num_layers": 12, "num_heads": 12, "mlp_ratio": 4, "out_origin": False, "out_indices": -1, "qkv_bias": True,
        "with_cls_token": True, "output_cls_token": False, "patch_bias": False, "norm_cfg": _LN,
        "act_cfg": {"type": "GELU"}, "patch_norm": False, "pre_norm": False, "final_norm": False,
        "interpolate_mode": "bicubic", "num_fcs": 2,
    },
}  # fmt: skip
"""Class of a backbone -> its options that have a default."""

NECKS: dict[str, Options] = {
    "FPN": {
        "start_level": 0, "end_level": -1, "add_extra_convs": False, "extra_convs_on_inputs": False,
        "relu_before_extra_convs": False, "no_norm_on_lateral": False, "conv_cfg": None, "norm_cfg": None,
        "act_cfg": None, "upsample_cfg": {"mode": "nearest"},
    },
    "MLANeck": {"norm_layer": {**_LN, "eps": 1e-6}, "norm_cfg": None, "act_cfg": None},
}  # fmt: skip
"""Class of a neck -> its options that have a default."""

_PARTS = {**HEADS, **BACKBONES, **NECKS}

_ONE_RESIZE = frozenset({
    "FCNHead", "DepthwiseSeparableFCNHead", "DDRHead", "PIDHead", "NLHead", "DNLHead", "CCHead", "GCHead", "DAHead",
    "EMAHead", "ISAHead", "ANNHead", "APCHead", "DMHead", "ASPPHead", "SegmenterMaskTransformerHead", "DPTHead",
})  # fmt: skip
"""Heads whose `align_corners` is that of the logits' resize alone, unless they join resized maps."""


def short_type(part: Any) -> str:
    """Return the class that a part names, without the package that it is looked for in.

    >>> short_type({"type": "mmseg.PSPHead"}), short_type({"type": "mmseg.models.decode_heads.psp_head.PSPHead"})
    ('PSPHead', 'PSPHead')
    >>> short_type({"type": "mmpretrain.ConvNeXt"})
    'mmpretrain.ConvNeXt'
    """
    name = part.get("type", "") if isinstance(part, Mapping) else part
    text = name if isinstance(name, str) else ""
    return text.rsplit(".", 1)[-1] if text.startswith(("mmseg.", "torch.nn.")) else text


def shown(value: Any) -> str:
    """Show the value of an option, as Python writes it."""
    return one_line(repr(value), 60)


def flat_options(part: Mapping[str, Any], place: str) -> Options:
    """Return all options of a part, defaults included, that matter for inference.

    Args:
        part: A backbone, neck or head, with its class as ``type``.
        place: Where it stands, such as ``decode_head``.

    Example:
        >>> options = flat_options({"type": "FCNHead", "channels": 64, "norm_cfg": {"type": "SyncBN"}}, "decode_head")
        >>> options["decode_head.norm_cfg"], options["decode_head.num_convs"], options["decode_head.channels"]
        ('BN with eps 1e-05', 2, 64)
    """
    return dict(_flat(_full(part), place))


def _full(part: Mapping[str, Any]) -> Options:
    """Return a part's options with the defaults of its class, less those that make no difference."""
    name = short_type(part)
    options: Options = {**_PARTS.get(name, {}), **part, "type": name}
    for key in [key for key in options if key in _TRAINING or (key in _OF_CLASSES and name in HEADS)]:
        if not (key == "out_channels" and name in ("KernelUpdateHead", "KernelUpdator")):
            del options[key]
    if name in _ONE_RESIZE and options.get("input_transform") != "resize_concat":
        options.pop("align_corners", None)
    if options.get("num_convs") == 0 and options.get("concat_input") is False:
        for key in ("norm_cfg", "act_cfg", "kernel_size", "dilation"):
            options.pop(key, None)
    if isinstance(options.get("img_size"), int):
        options["img_size"] = (options["img_size"],) * 2
    if name.startswith("ResNet"):
        _name_stem(options)
    return options


def _name_stem(options: Options) -> None:
    """Name a ResNet by its stem and shortcuts; leave out what dilated stages alone have."""
    for name in ("ResNet", "ResNetV1c", "ResNetV1d"):
        own = {key: BACKBONES[name][key] for key in ("deep_stem", "avg_down")}
        if own == {key: options.get(key) for key in own}:
            options["type"] = name
    if _plain(options["dilations"]) == (1, 1, 1, 1):
        options.pop("contract_dilation", None)


def _flat(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    key = place.rsplit(".", 1)[-1]
    if key in ("norm_cfg", "norm_layer"):
        yield place, _norm(value)
    elif key == "act_cfg" or key.endswith("_act_cfg"):
        yield place, _described(value)
    elif key == "conv_cfg":
        yield place, None if short_type(value) in _CONVOLUTIONS else _described(value)
    elif isinstance(value, Mapping):
        options = _full(value) if short_type(value) in _PARTS else value
        for name, each in options.items():
            yield from _flat(each, f"{place}.{name}")
    elif isinstance(value, (list, tuple)) and any(isinstance(each, Mapping) for each in value):
        for number, each in enumerate(value):
            yield from _flat(each, f"{place}.{number}")
    else:
        yield place, _plain(value)


def _plain(value: Any) -> Any:
    """Return lists as tuples."""
    return tuple(_plain(each) for each in value) if isinstance(value, (list, tuple)) else value


def _norm(value: Any) -> str | None:
    """Describe a norm; its eps is 1e-5 where none is given."""
    if not isinstance(value, Mapping):
        return None if value is None else shown(value)
    name = short_type(value)
    described = {**{k: v for k, v in value.items() if k not in _TRAINING}, "type": _NORMS.get(name, name)}
    return _described({"eps": 1e-5, **described})


def _described(value: Any) -> str | None:
    """Describe a small configuration in words, its training-only options left out."""
    if not isinstance(value, Mapping):
        return None if value is None else shown(value)
    rest = sorted((str(k), v) for k, v in value.items() if k != "type" and k not in _TRAINING)
    return short_type(value) + (f" with {', '.join(f'{k} {v}' for k, v in rest)}" if rest else "")
