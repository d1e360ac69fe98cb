"""What each target needs besides ``model.onnx``, written into the bundle at export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from torch import nn

from edgeseg import bundle as layout
from edgeseg.errors import ExportError
from edgeseg.export.passes import AppendLabels
from edgeseg.files import storage_errors
from edgeseg.manifest import Manifest
from edgeseg.runtimes import BuildRequest, engine, engines
from edgeseg.specs import PostprocessSpec, Size

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
        model: The network for engines with a format of their own.
        ort: As ONNX Runtime is given it, on the CPU.
        gpu: As TensorRT is given it.

    Raises:
        ExportError: The graph cannot end in labels.
    """
    chosen = [engine(target) for target in targets]
    end = AppendLabels(size, postprocess, form="bands", keep_logits=False)
    cpu = end(ort)
    if not cpu.modified:
        raise ExportError(f"the graph cannot end in labels: {cpu.report.reason}")
    for record in chosen:
        if record.standalone is not None:
            save_onnx(end(model).model, folder / layout.LABELS_CPU)
            with storage_errors(folder):
                record.standalone.convert(folder / layout.LABELS_CPU, folder / record.standalone.file)
    save_onnx(cpu.model, folder / layout.LABELS_CPU)
    if any(record.ends_in_labels for record in chosen):
        save_onnx(AppendLabels(size, postprocess, keep_logits=False)(gpu).model, folder / layout.LABELS_GPU)


def require_packages(targets: Sequence[str]) -> None:
    """Refuse targets whose compiler is not installed, before any work is done for them.

    Raises:
        TargetUnavailableError: Says which package, and how to install it.
    """
    for record in engines():
        if record.name in targets and record.requires is not None:
            record.requires()


def write_target(target: str, folder: Path, manifest: Manifest, network: nn.Module) -> None:
    """Write one target's files beside ``model.onnx``; a target without files of its own needs nothing.

    Args:
        target: Canonical name.
        folder: The bundle's.
        manifest: Of the bundle.
        network: The fp32 module.

    Raises:
        TargetUnavailableError: The package that compiles for the target is not installed.
        ExportError: It refused the graph; quotes its words.
    """
    build = engine(target).build
    if build is not None:
        build(BuildRequest(folder=folder, manifest=manifest, network=network))
