"""Registered networks in ncnn: exact, or refused with the operator's name."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

from benchmarks import matrix, ncnn_matrix
from tests.goldens.runner import fitting_size

GAPS = {
    "mmseg_isanet_r18_d8": r"ncnn has no layer for .*Tensor\.reshape",
    "mmseg_pointrend_r18": r"ncnn has no layer for aten::scatter",
}
"""What cannot be converted -> why."""

FAST = ("enet", "espnet_c_p2_q3", "pphumanseg_lite", "topformer_tiny")
"""Max unpooling, a pyramid of convolutions, a portrait network, a transformer whose graph has a dangling output."""

SYSTEMS = [name for name in matrix.smallest_of_each_system() if name not in FAST]


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SYSTEMS)])
def test_one_network_of_each_system(name: str) -> None:
    row = ncnn_matrix.check(name, fitting_size(name, (64, 96)))
    if name in GAPS:
        assert re.search(GAPS[name], row["cells"]["ncnn"]["words"]), row
    else:
        assert matrix.holds(row), row
