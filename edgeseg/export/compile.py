"""What each target needs besides ``model.onnx``, written into the bundle at export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from torch import nn

from edgeseg import bundle as layout
from edgeseg._optional import require
from edgeseg.errors import ExportError
from edgeseg.export.passes import AppendLabels
from edgeseg.files import scratch_folder, storage_errors
from edgeseg.runtimes.tensorrt.rtx import build_engine, rtx_module
from edgeseg.specs import PostprocessSpec, Size
from edgeseg.targets import GRAPH_LABEL_TARGETS

__all__ = ["require_packages", "save_onnx", "write_labels_graph", "write_standalone", "write_target"]


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph; the folder is made."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())


def write_labels_graph(
    model: onnx.ModelProto, folder: Path, size: Size, postprocess: PostprocessSpec
) -> onnx.ModelProto:
    """Write ``model_labels.onnx``: the same graph, ending in labels of `size` (height x width) as well.

    Raises:
        ExportError: The graph cannot end in labels.
    """
    result = AppendLabels(size, postprocess)(model)
    if not result.modified:
        raise ExportError(f"the graph cannot end in labels: {result.report.reason}")
    save_onnx(result.model, folder / layout.MODEL_LABELS)
    return result.model


def write_standalone(
    folder: Path,
    targets: Sequence[str],
    size: Size,
    postprocess: PostprocessSpec,
    *,
    model: onnx.ModelProto,
    ort: onnx.ModelProto,
    gpu: onnx.ModelProto,
) -> None:
    """Write graphs from a uint8 picture to labels of `size` (height x width) alone: what each target runs fastest.

    Args:
        folder: The bundle's.
        targets: Canonical names.
        size: Of the labels.
        postprocess: How logits become labels.
        model: The network as OpenVINO is given it.
        ort: As ONNX Runtime is, on the CPU.
        gpu: As TensorRT is.

    Raises:
        ExportError: The graph cannot end in labels.
    """
    from edgeseg.runtimes.openvino import session as openvino

    end = AppendLabels(size, postprocess, form="bands", keep_logits=False)
    cpu = end(ort)
    if not cpu.modified:
        raise ExportError(f"the graph cannot end in labels: {cpu.report.reason}")
    if "openvino" in targets:
        save_onnx(end(model).model, folder / layout.LABELS_CPU)
        with storage_errors(folder):
            openvino.convert(folder / layout.LABELS_CPU, folder / layout.LABELS_OPENVINO)
    save_onnx(cpu.model, folder / layout.LABELS_CPU)
    if GRAPH_LABEL_TARGETS & set(targets):
        save_onnx(AppendLabels(size, postprocess, keep_logits=False)(gpu).model, folder / layout.LABELS_GPU)


def require_packages(targets: Sequence[str]) -> None:
    """Refuse targets whose compiler is not installed, before any work is done for them.

    Raises:
        TargetUnavailableError: Says which package, and how to install it.
    """
    if "openvino" in targets:
        require("openvino", extra="openvino", why="the openvino target")
    if "trt-rtx" in targets:
        rtx_module()
    if "torch" in targets:
        require("safetensors", extra="export", why="the torch target")


def write_target(target: str, folder: Path, network: nn.Module, graph: onnx.ModelProto) -> None:
    """Write one target's files beside ``model.onnx``; a target without files of its own needs nothing.

    Args:
        target: Canonical name.
        folder: The bundle's.
        network: fp32 PyTorch.
        graph: As the target is given it.

    Raises:
        TargetUnavailableError: The package that compiles for the target is not installed.
        ExportError: It refused the graph; quotes its words.
    """
    if target == "openvino":
        _write_openvino(folder, graph)
    elif target == "trt-rtx":
        _write_rtx(folder)
    elif target == "torch":
        _write_torch(folder, network)


def _write_openvino(folder: Path, graph: onnx.ModelProto) -> None:
    from edgeseg.runtimes.openvino import session as openvino

    xml = folder / layout.OPENVINO_MODEL
    with storage_errors(xml):
        xml.parent.mkdir(exist_ok=True)
        with scratch_folder("edgeseg-openvino") as scratch:
            save_onnx(graph, scratch / "model.onnx")
            openvino.convert(scratch / "model.onnx", xml)


def _write_rtx(folder: Path) -> None:
    with storage_errors(folder):
        (folder / "tensorrt").mkdir(exist_ok=True)
    build_engine(folder / layout.MODEL_LABELS, folder / "tensorrt")


def _write_torch(folder: Path, network: nn.Module) -> None:
    from safetensors.torch import save

    file = folder / layout.TORCH_WEIGHTS
    data = save({key: value.contiguous().clone() for key, value in network.state_dict().items()})
    with storage_errors(file):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
