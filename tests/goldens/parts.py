"""Builders for the records of blocks and heads, by the class that a record's ``source`` names; `runner` reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from edgeseg.models.heads.point import PointHead
from edgeseg.models.heads.registry import build_from_config, head_class, list_heads, list_necks, neck_class
from edgeseg.models.layers.deform import DeformConv

BUILDERS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {}
"""Each receives the record."""


def _deform_block(record: Mapping[str, Any]) -> nn.Module:
    options = dict(record["source"]["kwargs"])
    in_channels, out_channels, kernel = options.pop("in_channels"), options.pop("out_channels"), options.pop("kernel")
    return DeformConv(in_channels, out_channels, kernel, **options)


BUILDERS["offset conv + deform conv (mmcv/torchvision naming and layout)"] = _deform_block


def _head_or_neck(record: Mapping[str, Any]) -> nn.Module:
    """A head or neck from the options that mmsegmentation published it with."""
    return build_from_config({**record["source"]["kwargs"], "type": record["source"]["class"]})


class _PointsAlone(PointHead):
    """The network of the points, without the search for them: inputs (1, C, 1, K), logits (1, num_classes, K)."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        fine, coarse = (x[:, :, 0] for x in features)
        return self.point_logits(fine, coarse)


def _point_head(record: Mapping[str, Any]) -> nn.Module:
    """The number of points is in the record's note alone."""
    options = record["source"]["kwargs"]
    points = re.search(r"subdivision_num_points\s*=\s*(\d+)", record["note"])
    if points is None and len(record["outputs"][0]["shape"]) == 3:
        return _PointsAlone(**options)
    return PointHead(**options) if points is None else PointHead(**options, subdivision_num_points=int(points[1]))


for _cls in (*map(head_class, list_heads()), *map(neck_class, list_necks())):
    BUILDERS[_cls.__name__] = _head_or_neck
BUILDERS["PointHead"] = _point_head
