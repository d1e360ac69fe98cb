"""Exports in low precision, end to end: what the bundle says, what is refused, and what the command line prints."""

from __future__ import annotations

from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import edgeseg
from edgeseg.bundle import ORT_MODEL, Bundle, open_bundle
from edgeseg.errors import InputError, ParityError, UsageError
from edgeseg.export import pipeline
from edgeseg.export.precision import Latency, figures, lowering
from edgeseg.export.precision.report import TargetFigures
from edgeseg.export.report import ExportReport
from edgeseg.graph.half import kept_in_fp32
from edgeseg.graph.qdq import check_symmetric
from edgeseg.labelled import LabelledPictures
from edgeseg.runtimes import RuntimeOptions, Session
from tests.export.precision.pictures import SIZE, smooth, write_pictures

TINY = "tests.export.networks:tiny"
HAS_RTX = any(util.find_spec(name) for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"))
FASTER = Latency(2.0, 1.0, 0, 5)


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network this small is no faster in int8; what acceptance measures is not what these tests are about."""
    monkeypatch.setattr(figures, "measure_pair", lambda *arguments, **options: FASTER)


@pytest.fixture(scope="module")
def calib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("export") / "calib", 6)


def _export(out: Path, precision: str, **options: Any) -> ExportReport:
    targets = options.pop("targets", ["ort", "openvino"])
    return edgeseg.export_model(TINY, size=SIZE, targets=targets, precision=precision, out=out, **options)


def test_int8(calib: Path, tmp_path: Path) -> None:
    targets = ["ort", "openvino", "trt", "torch"] + (["trt-rtx"] if HAS_RTX else [])
    report = _export(tmp_path, "int8", calib=calib, targets=targets, min_agreement=0.9)
    found = report.precision
    assert found is not None
    assert (found.precision, found.calibration, found.held_out, found.lowered) == ("int8", 5, 1, 2)
    assert [row.target for row in found.targets] == [t for t in report.bundle.manifest.targets if t != "torch"]
    manifest = open_bundle(report.path).manifest
    assert manifest.precision == "int8"
    assert manifest.facts["precision"]["targets"][0]["latency"]["low"] == 1.0
    assert "nncf" in manifest.versions
    assert all(entry.agreement >= 0.9 for entry in manifest.parity)
    exact = next(entry for entry in manifest.parity if entry.target == "torch")
    assert exact.max_logit_error <= 1e-5 * exact.logit_range
    for file in ("model.onnx", "tensorrt/model.onnx"):
        check_symmetric(onnx.load(report.path / file))
    signed = onnx.load(report.path / "tensorrt" / "model.onnx")
    assert onnx.TensorProto.UINT8 not in {tensor.data_type for tensor in signed.graph.initializer}
    assert [output.name for output in signed.graph.output] == ["logits"]
    assert signed.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert signed.opset_import[0].version == 19  # scales in half
    assert any("cannot weigh them" in note for note in found.notes)
    assert any("unproven for trt-rtx" in note for note in found.notes) == HAS_RTX


def test_int8_runs_and_says_so(calib: Path, tmp_path: Path) -> None:
    bundle = open_bundle(_export(tmp_path, "int8", calib=calib, min_agreement=0.9).path)
    assert bundle.has(ORT_MODEL)
    found = []
    for target in ("ort", "openvino"):
        with edgeseg.Predictor(bundle, target, output="network") as predictor:
            assert predictor.info.precision == "int8, the rest fp32"
            assert predictor.self_test().agreement >= bundle.manifest.facts["precision"]["self_test"]
            found.append(predictor(smooth(9)).labels)
    assert np.mean(found[0] == found[1]) >= 0.99


@pytest.mark.parametrize("options", [{"batch": 2}, {"dynamic": True}], ids=["batch", "dynamic"])
def test_int8_of_a_batch_and_of_free_sizes(calib: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    low = _export(tmp_path / "low", "int8", calib=calib, min_agreement=0.9, **options)
    exact = _export(tmp_path / "exact", "fp32", **options)
    size = (SIZE[0] + 16, SIZE[1] + 32) if "dynamic" in options else SIZE
    pictures = [smooth(seed, size) for seed in (7, 8, 9)]
    for target in ("ort", "openvino"):
        found = []
        for report in (low, exact):
            with edgeseg.Predictor(report.path, target, output="network", input_size=size) as predictor:
                found.append([result.labels for result in predictor.predict_batch(pictures)])
        assert [labels.shape for labels in found[0]] == [size] * 3
        assert np.mean([np.mean(a == b) for a, b in zip(*found, strict=True)]) >= 0.9


def test_int8_is_weighed_against_the_graph_that_fp32_would_ship(
    calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(16), nn.Conv2d(16, 3, 1))
    made: dict[str, bool] = {}
    whole = figures.fp32_bundle

    def bundle(folder: Path, target: str, *arguments: Any) -> Bundle:
        found = whole(folder, target, *arguments)
        made[target] = found.has(ORT_MODEL)
        return found

    monkeypatch.setattr(figures, "fp32_bundle", bundle)
    options: dict[str, Any] = {"name": "own", "size": SIZE, "out": tmp_path}
    edgeseg.export_model(network, targets=["ort"], precision="int8", calib=calib, force=True, **options)
    assert made == {"ort": True}


def test_int8_graphs_that_end_in_labels(calib: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"calib": calib, "targets": ["openvino", "trt"], "output": "labels"}
    report = _export(tmp_path, "int8", min_agreement=0.9, **options)
    assert sum("of the labels agree" in note for note in report.notes) == 3
    kinds = {file: {t.data_type for t in onnx.load(report.path / file).graph.initializer} for file in _LABEL_GRAPHS}
    assert onnx.TensorProto.UINT8 in kinds["labels/cpu.onnx"]  # as ONNX Runtime's kernels want it
    assert onnx.TensorProto.UINT8 not in kinds["labels/gpu.onnx"]


def test_int8_labels_below_the_budget_are_refused_unless_forced(
    calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "verify_standalone", lambda *arguments: {"labels/cpu.onnx": 0.85})
    options: dict[str, Any] = {"calib": calib, "output": "labels", "min_agreement": 0.9}
    with pytest.raises(ParityError, match=r"labels/cpu\.onnx: 85\.0000% of the labels agree, at least 90\.00% must"):
        _export(tmp_path / "refused", "int8", **options)
    report = _export(tmp_path / "forced", "int8", force=True, **options)
    assert any("85.0000% of the labels agree" in note for note in report.notes)


_LABEL_GRAPHS = ("labels/cpu.onnx", "labels/gpu.onnx")


def test_the_worst_operators_stay_float_until_the_budget_holds(calib: Path, tmp_path: Path) -> None:
    report = _export(tmp_path, "int8", calib=calib, min_agreement=0.9999)
    found = report.precision
    assert found is not None
    assert len(found.kept) >= 1
    assert all(row.agreement >= 0.9999 for row in found.targets)
    assert all("of the error" in entry.why for entry in found.kept)


def test_miou_is_the_budget_where_there_are_labels(calib: Path, tmp_path: Path) -> None:
    import cv2

    labels = tmp_path / "labels"
    labels.mkdir()
    exact = edgeseg.export_model(TINY, size=SIZE, out=tmp_path / "fp32")
    with edgeseg.Predictor(exact.path) as predictor:
        for file in calib.iterdir():
            cv2.imwrite(str(labels / file.name), predictor(file).labels)
    report = _export(tmp_path, "int8", calib=LabelledPictures(calib, labels), max_miou_drop=0.2)
    found = report.precision
    assert found is not None
    assert found.miou_fp32 == pytest.approx(1.0, abs=1e-6)
    assert all(row.miou is not None and 0.8 <= row.miou <= 1.0 for row in found.targets)


def test_fp16(tmp_path: Path) -> None:
    report = _export(tmp_path, "fp16", min_agreement=0.99)
    assert report.precision is not None
    assert report.precision.held_out == 1  # the sample
    graph = onnx.load(report.path / "model.onnx").graph
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in graph.initializer}
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_fp16_for_gpus_is_half_from_the_picture_to_the_logits(tmp_path: Path) -> None:
    report = _export(tmp_path, "fp16", min_agreement=0.99, targets=["ort", "trt"])
    graph = onnx.load(report.path / "tensorrt" / "model.onnx").graph
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert [(node.input[0], node.attribute[0].i) for node in casts] == [("image", onnx.TensorProto.FLOAT16)]
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert {tensor.data_type for tensor in graph.initializer} <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    assert {"HalfPixels", "HalfLogits"} <= {entry.name for entry in report.passes if entry.modified}
    skipped = _export(tmp_path / "s", "fp16", min_agreement=0.99, targets=["trt"], skip_passes=("HalfLogits",))
    kept = onnx.load(skipped.path / "tensorrt" / "model.onnx").graph.output[0]
    assert kept.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


class _Large(nn.Module):
    """A network with numbers that half does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.conv(image)
        return torch.sqrt((3000 * made) ** 2 + 1) / 3000


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_half_does_not_hold_is_marked_in_the_graph(precision: str, calib: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = edgeseg.export_model(
        _Large(), name="large", size=SIZE, targets=["trt"], precision=precision, calib=calib, out=tmp_path, force=True
    )
    assert report.precision is not None
    gpu = onnx.load(report.path / "tensorrt" / "model.onnx")
    marks = kept_in_fp32(gpu)
    assert any("near the end of half's range" in reason for reason in marks.values())
    inferred = onnx.shape_inference.infer_shapes(gpu).graph.value_info
    types = {tensor.name: tensor.type.tensor_type.elem_type for tensor in inferred}
    given = {node.name: node.output[0] for node in gpu.graph.node}
    assert {types.get(given[name], onnx.TensorProto.FLOAT) for name in marks} == {onnx.TensorProto.FLOAT}
    if precision == "fp16":
        assert {entry.node: entry.why for entry in report.precision.kept} == marks
    else:
        assert any(f"on GPUs {len(marks)} operators stay fp32" in note for note in report.precision.notes)


def test_bf16_is_openvinos_arithmetic(tmp_path: Path) -> None:
    report = _export(tmp_path, "bf16", min_agreement=0.9)
    bundle = report.bundle
    assert bundle.manifest.precision == "bf16"
    assert _arithmetic(bundle, "ort") == "fp32"
    assert _arithmetic(bundle, "openvino", precision="f32") == "fp32"
    assert _arithmetic(bundle, "openvino") in ("bf16", "fp32")  # fp32 on a processor without it, and then it says so


def _arithmetic(bundle: Bundle, target: str, **options: Any) -> str:
    with edgeseg.Predictor(bundle, target, options=RuntimeOptions(**options)) as predictor:
        precision: str = predictor.info.precision
        return precision


def test_slower_is_refused_and_leaves_nothing(calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "measure_pair", lambda *arguments, **options: Latency(1.0, 2.0, 5, 5))
    with pytest.raises(edgeseg.EdgesegError, match=r"int8 is slower than fp32 on ort here: 2\.00 against 1\.00 ms"):
        _export(tmp_path, "int8", calib=calib, min_agreement=0.5)
    assert not list(tmp_path.iterdir())
    report = _export(tmp_path, "int8", calib=calib, min_agreement=0.5, force=True)
    assert report.precision is not None
    assert len(report.precision.notes) == 2


def test_a_target_on_which_int8_is_slower_has_fp32_beside_one_that_has_int8(
    calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure(fp32: Session, low: Session, image: Any) -> Latency:
        measured.append(low.info.target)
        return Latency(1.0, 2.0, 5, 5) if low.info.target == "ort" else FASTER

    monkeypatch.setattr(figures, "measure_pair", measure)
    targets = ["ort", "openvino", "trt", "torch"]
    report = _export(tmp_path, "int8", calib=calib, min_agreement=0.9, targets=targets, output="labels")
    bundle = open_bundle(report.path)
    manifest = bundle.manifest
    assert (manifest.precision, manifest.precisions) == ("int8", {"ort": "fp32", "torch": "fp32"})
    assert [manifest.precision_of(target) for target in manifest.targets] == ["fp32", "int8", "int8", "fp32"]
    assert measured == ["ort", "openvino", "ort"], "what did not change is not measured again"
    assert [_arithmetic(bundle, target) for target in ("ort", "openvino")] == ["fp32", "int8, the rest fp32"]
    assert report.precision is not None
    assert [row.precision for row in report.precision.targets] == ["fp32", "int8", "int8"]
    assert any(note.startswith("ort has fp32 in this bundle: int8 is slower") for note in report.precision.notes)
    exact = next(entry for entry in manifest.parity if entry.target == "ort")
    assert exact.max_logit_error <= 1e-4 * exact.logit_range
    kinds = {file: _kinds(bundle, file) for file in ("model.onnx", ORT_MODEL, "labels/cpu.onnx", "labels/gpu.onnx")}
    assert ["QuantizeLinear" in kinds[file] for file in kinds] == [True, False, False, True]
    with edgeseg.Predictor(bundle, "ort") as predictor:
        assert predictor.self_test().agreement >= 0.999


def test_openvino_below_its_budget_has_bf16_or_fp32_beside_int8(
    calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = figures._measured

    def measured(row: TargetFigures, fp32: Session, low: Session, lowered: Any) -> TargetFigures:
        found = measure(row, fp32, low, lowered)
        return replace(found, agreement=0.5) if (row.target, row.precision) == ("openvino", "int8") else found

    monkeypatch.setattr(figures, "_measured", measured)
    report = _export(tmp_path, "int8", calib=calib, min_agreement=0.9)
    bundle = open_bundle(report.path)
    chosen = bundle.manifest.precision_of("openvino")
    assert chosen in ("bf16", "fp32")  # fp32 on a processor without bf16
    assert _arithmetic(bundle, "openvino") == chosen
    assert "FakeQuantize" not in (bundle.path / "openvino" / "model.xml").read_text()
    assert bundle.manifest.precision_of("ort") == "int8"


def _kinds(bundle: Bundle, file: str) -> set[str]:
    return {node.op_type for node in onnx.load(bundle.path / file).graph.node}


def test_all_of_every_fourth_picture_is_scored_on_with_an_interval(tmp_path: Path) -> None:
    report = _export(tmp_path, "int8", calib=write_pictures(tmp_path / "many", 72), min_agreement=0.5)
    found = report.precision
    assert found is not None
    assert (found.calibration, found.held_out) == (54, 18)
    for row in found.targets:
        assert row.agreement_95 is not None
        low, high = row.agreement_95
        assert 0.0 <= low <= row.agreement <= high <= 1.0
    assert " to " in found.rows()[0]["labels equal to fp32"]


def test_below_budget_is_refused(calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "without_quantisers", lambda made, model, names: made)
    with pytest.raises(ParityError, match=r"int8 cannot hold its budget .* 2 operators back in fp32"):
        _export(tmp_path, "int8", calib=calib, min_agreement=1.0)
    assert not list(tmp_path.iterdir())


def test_refused_before_the_work(calib: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int8 needs calibration pictures"):
        _export(tmp_path, "int8")
    with pytest.raises(InputError, match="no folder of calibration pictures"):
        _export(tmp_path, "int8", calib=tmp_path / "nothing")
    with pytest.raises(InputError, match="pictures have no label map in"):
        _export(tmp_path, "int8", calib=LabelledPictures(calib, tmp_path))
