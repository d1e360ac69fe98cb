"""What each target needs besides ``model.onnx``, written into the bundle at export."""

from __future__ import annotations

from pathlib import Path

import onnx
from torch import nn

from edgeseg import bundle as layout
from edgeseg.errors import ExportError
from edgeseg.export.passes import AppendLabels
from edgeseg.files import storage_errors
from edgeseg.specs import Size, TailSpec

__all__ = ["save_onnx", "write_target"]


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph; the folder is made."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())


def write_labels_graph(model: onnx.ModelProto, folder: Path, size: Size, tail: TailSpec) -> onnx.ModelProto:
    """Write ``model_labels.onnx``: the same graph, ending in labels of `size` (height x width) as well.

    Raises:
        ExportError: The graph cannot end in labels.
    """
    result = AppendLabels(size, tail)(model)
    if not result.modified:
        raise ExportError(f"the graph cannot end in labels: {result.report.reason}")
    save_onnx(result.model, folder / layout.MODEL_LABELS)
    return result.model


def write_target(target: str, folder: Path, network: nn.Module) -> None:
    """Write one target's files beside ``model.onnx``; a target without files of its own needs nothing.

    Raises:
        TargetUnavailableError: The package that compiles for the target is not installed.
        ExportError: It refused the graph; quotes its words.
    """
    if target == "openvino":
        _write_openvino(folder)
    elif target == "trt-rtx":
        _write_rtx(folder)
    elif target == "torch":
        _write_torch(folder, network)


def _write_openvino(folder: Path) -> None:
    from edgeseg.runtimes import openvino_

    xml = folder / layout.OPENVINO_MODEL
    with storage_errors(xml):
        xml.parent.mkdir(exist_ok=True)
        openvino_.convert(folder / layout.MODEL, xml)


def _write_rtx(folder: Path) -> None:
    from edgeseg.runtimes import trt_rtx

    with storage_errors(folder):
        (folder / "tensorrt").mkdir(exist_ok=True)
    trt_rtx.build_engine(folder / layout.MODEL_LABELS, folder / "tensorrt")


def _write_torch(folder: Path, network: nn.Module) -> None:
    from safetensors.torch import save_file

    file = folder / layout.TORCH_WEIGHTS
    with storage_errors(file):
        file.parent.mkdir(exist_ok=True)
        save_file({key: value.contiguous().clone() for key, value in network.state_dict().items()}, file)
