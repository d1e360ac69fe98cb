"""The graph that leaves torch: what it is, what is refused, and that refusals are one sentence."""

from __future__ import annotations

import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from edgeseg.errors import ExportError
from edgeseg.export import to_onnx
from edgeseg.export.deploy import DeployNetwork
from edgeseg.export.to_onnx import IR_VERSION, OPSET, check_limits, export_onnx, first_reason, simplify
from edgeseg.specs import InputSpec
from tests.export.graphs import parse
from tests.export.networks import Tiny


class _Branches(nn.Module):
    """Chooses by its input's values: no graph can."""

    def forward(self, image: Tensor) -> Tensor:
        return image if image.sum() > 0 else image * 2.0


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return export_onnx(DeployNetwork(Tiny().eval(), InputSpec.imagenet()).eval(), (32, 48), batch=2)


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_graph_takes_bytes_and_gives_logits(exported: onnx.ModelProto) -> None:
    (image,), (logits,) = exported.graph.input, exported.graph.output
    assert (image.name, _shape(image)) == ("image", [2, 32, 48, 3])
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (logits.name, _shape(logits)) == ("logits", [2, 5, 8, 12])
    first = next(node for node in exported.graph.node if "image" in node.input)
    assert first.op_type == "Cast"


def test_simplify_keeps_the_ends(exported: onnx.ModelProto) -> None:
    simple = simplify(exported)
    check_limits(simple)
    assert [value.name for value in (*simple.graph.input, *simple.graph.output)] == ["image", "logits"]
    assert len(simple.graph.node) <= len(exported.graph.node)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_module_torch_cannot_export(dynamic: bool) -> None:
    with pytest.raises(ExportError, match=r"^torch\.onnx\.export failed") as caught:
        export_onnx(DeployNetwork(_Branches(), InputSpec()), (8, 8), dynamic=dynamic)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert ("fixed --size" in str(caught.value)) is dynamic


class _Chooses(nn.Module):
    """Branches in its graph."""

    def forward(self, image: Tensor) -> Tensor:
        chosen: Tensor = torch.cond(image.amax((0, 1, 2, 3)) > 0, lambda x: x * 2, lambda x: x * 1, (image,))
        return chosen


class _Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits: Tensor = self.conv(image)
        return logits.float()


@pytest.mark.parametrize(
    ("module", "told"),
    [(_Chooses(), r"branches in its graph \(torch\.cond\)"), (_Autocast(), r"computes in bfloat16 \(torch\.autocast")],
)
def test_what_no_engine_takes(module: nn.Module, told: str) -> None:
    with pytest.raises(ExportError, match=told):
        export_onnx(DeployNetwork(module.eval(), InputSpec()).eval(), (8, 8))


def test_limits() -> None:
    body = "g (float[1,3,4,6] x) => (float[1,3,4,6] logits) { logits = Relu(x) }"
    model = parse(body)
    model.ir_version = IR_VERSION + 1
    check_limits(model)
    assert model.ir_version == IR_VERSION
    with pytest.raises(ExportError, match=f"opset {OPSET + 1}; the devices read up to {OPSET}"):
        check_limits(parse(body, opset=OPSET + 1))
    foreign = parse(body)
    foreign.graph.node[0].domain = "com.microsoft"
    foreign.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ExportError, match=r"domains com\.microsoft"):
        check_limits(foreign)
    dangling = parse(body)
    dangling.graph.node[0].input[0] = "nothing"
    with pytest.raises(ExportError, match="not valid ONNX") as caught:
        check_limits(dangling)
    assert "\n" not in str(caught.value)


def test_onnxsim_that_fails_or_changes_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxsim

    model = parse("g (float[1,3,4,6] x) => (float[1,3,4,6] logits) { logits = Relu(x) }")
    monkeypatch.setattr(onnxsim, "simplify", lambda given: (given, False))
    with pytest.raises(ExportError, match="changed the numbers"):
        simplify(model)

    def fail(given: onnx.ModelProto) -> None:
        raise RuntimeError

    monkeypatch.setattr(onnxsim, "simplify", fail)
    with pytest.raises(ExportError, match="onnxsim failed: RuntimeError"):
        simplify(model)
    monkeypatch.setattr(to_onnx, "_LIMIT", 10)
    with pytest.raises(ExportError, match="at most 2 GB"):
        simplify(model)


def test_first_reason_is_the_root_cause_in_one_line() -> None:
    inner = ValueError("  \nthe cause\nmore")
    outer = RuntimeError("a long story")
    outer.__cause__ = inner
    assert first_reason(outer) == "the cause"
    assert first_reason(AssertionError()) == "AssertionError"
    assert len(first_reason(ValueError("x" * 999))) == 200
