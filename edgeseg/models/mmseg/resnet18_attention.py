"""Attention heads of mmsegmentation on ResNet-18 at stride 8, for systems that it publishes on ResNet-50 and 101 only.

The heads equal mmsegmentation 1.2.2 number for number; all their widths are a quarter of those published on ResNet-50,
as mmsegmentation's own ResNet-18 networks have them. No published weights have these widths. Training-only: one
auxiliary FCN head, built on request (``aux=True``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeseg.models.heads.base import DecodeHead
from edgeseg.models.heads.registry import head_class
from edgeseg.models.mmseg.resnet18 import LAST, MMSEG, WIDTHS, on_resnet18_d8
from edgeseg.models.registry import register
from edgeseg.models.segmentor import Segmentor

__all__: list[str] = []

# Head, options besides those of every head on the last map, system, year, paper, parameters.
_NETWORKS: dict[str, tuple[str, dict[str, Any], str, int, str, int]] = {
    "mmseg_nonlocal_r18_d8": (
        "nl", {}, "NonLocal", 2018, "Non-local Neural Networks (CVPR 2018, arXiv 1711.07971)", 12_706_739,
    ),
    "mmseg_psanet_r18_d8": (
        "psa", {}, "PSANet", 2018,
        "PSANet: Point-wise Spatial Attention Network for Scene Parsing (ECCV 2018)", 15_083_763,
    ),
    "mmseg_ccnet_r18_d8": (
        "cc", {}, "CCNet", 2019,
        "CCNet: Criss-Cross Attention for Semantic Segmentation (ICCV 2019, arXiv 1811.11721)", 12_694_164,
    ),
    "mmseg_danet_r18_d8": (
        "da", {"pam_channels": 16}, "DANet", 2019,
        "Dual Attention Network for Scene Segmentation (CVPR 2019, arXiv 1809.02983)", 12_699_323,
    ),
    "mmseg_encnet_r18_d8": (
        "enc", {"in_channels": WIDTHS[1:], "in_index": (1, 2, 3)}, "EncNet", 2018,
        "Context Encoding for Semantic Segmentation (CVPR 2018, arXiv 1803.08904)", 11_828_070,
    ),
    "mmseg_emanet_r18_d8": (
        "ema", {"ema_channels": 128, "channels": 64}, "EMANet", 2019,
        "Expectation-Maximization Attention Networks for Semantic Segmentation (ICCV 2019, arXiv 1907.13426)",
        12_225_971,
    ),
    "mmseg_ann_r18_d8": (
        "ann", {"in_channels": WIDTHS[2:], "in_index": (2, 3), "project_channels": 64}, "ANN", 2019,
        "Asymmetric Non-local Neural Networks for Semantic Segmentation (ICCV 2019, arXiv 1908.07678)", 12_470_643,
    ),
    "mmseg_gcnet_r18_d8": (
        "gc", {}, "GCNet", 2019,
        "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond (ICCV workshops 2019, arXiv 1904.11492)",
        12_682_068,
    ),
    "mmseg_apcnet_r18_d8": (
        "apc", {}, "APCNet", 2019, "Adaptive Pyramid Context Network for Semantic Segmentation (CVPR 2019)", 13_110_565,
    ),
    "mmseg_dmnet_r18_d8": (
        "dm", {}, "DMNet", 2019, "Dynamic Multi-scale Filters for Semantic Segmentation (ICCV 2019)", 12_904_947,
    ),
    "mmseg_isanet_r18_d8": (
        "isa", {"isa_channels": 64}, "ISANet", 2019,
        "Interlaced Sparse Self-Attention for Semantic Segmentation (arXiv 1907.12273)", 11_937_779,
    ),
    "mmseg_dnlnet_r18_d8": (
        "dnl", {}, "DNLNet", 2020, "Disentangled Non-Local Neural Networks (ECCV 2020, arXiv 2006.06668)", 12_706_868,
    ),
}  # fmt: skip


def _builder(head: str, options: dict[str, Any]) -> Callable[..., Segmentor]:
    def build(*, num_classes: int = 19, aux: bool = False) -> Segmentor:
        module: DecodeHead = head_class(head)(**{**LAST, **options, "num_classes": num_classes})
        return on_resnet18_d8(module, aux=aux)

    return build


for _name, (_head, _options, _system, _year, _paper, _params) in _NETWORKS.items():
    register(
        MMSEG(
            system=_system,
            year=_year,
            paper=_paper,
            params=_params,
            notes="Widths are a quarter of those published on ResNet-50; no published weights.",
        ),
        name=_name,
    )(_builder(_head, _options))
