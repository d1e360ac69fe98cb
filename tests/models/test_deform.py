"""Deformable convolution against its operator record, a plain convolution, and an export."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from edgeseg.errors import UsageError
from edgeseg.export.fusion import fuse
from edgeseg.export.to_onnx import OPSET
from edgeseg.models.layers.deform import DeformConv, deform_conv2d
from tests.goldens.runner import FOLDER, golden, load_record

CASES = load_record(FOLDER / "deform_conv_operator.json")["cases"]


def _tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(values))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_operator_record(case: dict[str, Any]) -> None:
    n, doubled, h, w = case["offset_shape"]
    x = _tensor(golden.make_input((n, case["cin"], case["h"], case["w"]), 0))
    offset = 2.0 * _tensor(golden.make_input((n, doubled, h, w), 1))
    mask = torch.sigmoid(_tensor(golden.make_input((n, doubled // 2, h, w), 2))) if case["modulated"] else None
    weight = _tensor(golden.fill("weight", (case["cout"], case["cin"] // case["groups"], 3, 3)))
    bias = _tensor(golden.fill("bias", (case["cout"],))) if case["bias"] else None
    options = {key: case[key] for key in ("stride", "padding", "dilation", "groups", "deform_groups")}
    out = deform_conv2d(x, offset, weight, mask=mask, bias=bias, **options)
    want = case["output"]
    assert list(out.shape) == want["shape"]
    got = out.flatten().numpy()[want["index"]]
    assert np.abs(got - np.array(want["value"])).max() <= 1e-9 * want["absmax"]  # the record keeps ten digits


@pytest.mark.parametrize("size", [(7, 9), (1, 5), (4, 1)])
def test_without_offsets_it_is_half_a_convolution(size: tuple[int, int]) -> None:
    layer = DeformConv(4, 6, groups=2, deform_groups=2).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert layer.bias is not None
    wanted = nn.functional.conv2d(x, 0.5 * layer.weight, layer.bias, padding=1, groups=2)
    torch.testing.assert_close(layer(x), wanted, rtol=0, atol=1e-13)


def _random_block(modulated: bool) -> nn.Module:
    torch.manual_seed(1)
    layer = DeformConv(8, 12, stride=2, deform_groups=2, modulated=modulated)
    nn.init.normal_(layer.conv_offset.weight, std=0.3)
    bn = nn.BatchNorm2d(12)
    assert bn.running_mean is not None
    nn.init.normal_(bn.running_mean)
    return nn.Sequential(layer, bn).eval()


@pytest.mark.parametrize("modulated", [False, True])
def test_batch_norm_folds_into_it(modulated: bool) -> None:
    fused, report = fuse(_random_block(modulated), torch.randn(1, 8, 19, 27))
    assert report.batch_norms == (1, 0)
    assert isinstance(fused[0], DeformConv)  # type: ignore[index]


def test_graph_samples_once_per_deform_group(tmp_path: Any) -> None:
    block, x = _random_block(True), torch.randn(1, 8, 19, 27)
    with torch.no_grad():
        wanted = block(x).numpy()
        program = torch.onnx.export(block, (x,), dynamo=True, opset_version=OPSET, verbose=False)
    assert program is not None
    model = program.model_proto
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("GridSample") == 2
    assert "DeformConv" not in kinds
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got = np.asarray(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_deform_groups_must_divide_the_channels() -> None:
    with pytest.raises(UsageError, match="3 deform groups do not divide 8"):
        DeformConv(8, 8, deform_groups=3)
