"""What each target needs besides ``model.onnx``, written into the bundle at export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
from torch import nn

from edgeseg import bundle as layout
from edgeseg.errors import ExportError
from edgeseg.files import scratch_folder, storage_errors
from edgeseg.graph.passes import AppendLabels
from edgeseg.manifest import Manifest
from edgeseg.runtimes import BuildRequest, engine, engines
from edgeseg.specs import PostprocessSpec, Size

__all__ = ["require_packages", "save_onnx", "write_standalone", "write_target"]


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph; the folder is made."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())


def write_standalone(
    folder: Path,
    targets: Sequence[str],
    size: Size,
    postprocess: PostprocessSpec,
    *,
    graph: Callable[[str], onnx.ModelProto],
) -> None:
    """Write graphs from a uint8 picture to labels of `size` (height x width) alone: what each target runs fastest.

    Args:
        folder: The bundle's.
        targets: Canonical names.
        size: Of the labels.
        postprocess: How logits become labels.
        graph: Gives the network as a target is given it.

    Raises:
        ExportError: The graph cannot end in labels.
    """
    chosen = [engine(target) for target in targets]
    end = AppendLabels(size, postprocess, form="bands")
    cpu = end(graph("ort"))
    if not cpu.modified:
        raise ExportError(f"the graph cannot end in labels: {cpu.report.reason}")
    for record in chosen:
        if record.standalone is not None:
            save_onnx(end(graph(record.name)).model, folder / layout.LABELS_CPU)
            with storage_errors(folder):
                record.standalone.convert(folder / layout.LABELS_CPU, folder / record.standalone.file)
    save_onnx(cpu.model, folder / layout.LABELS_CPU)
    for record in chosen:
        if record.needs_gpu:  # they share one graph
            end = AppendLabels(size, postprocess)
            save_onnx(end(graph(record.name)).model, folder / layout.LABELS_GPU)


def require_packages(targets: Sequence[str]) -> None:
    """Refuse targets whose compiler is not installed, before any work is done for them.

    Raises:
        TargetUnavailableError: Says which package, and how to install it.
    """
    for record in engines():
        if record.name in targets and record.requires is not None:
            record.requires()


def write_target(
    target: str, folder: Path, graph: onnx.ModelProto, manifest: Manifest, network: nn.Module, folded: nn.Module
) -> None:
    """Write one target's files beside ``model.onnx``; a target without files of its own needs nothing.

    Args:
        target: Canonical name.
        folder: The bundle's.
        graph: The network as the target is given it.
        manifest: Of the bundle.
        network: The fp32 module.
        folded: The same as the graph was made of it, as `BuildRequest` says.

    Raises:
        TargetUnavailableError: The package that compiles for the target is not installed.
        ExportError: It refused the graph; quotes its words.
    """
    record = engine(target)
    if record.build is None:
        return
    with scratch_folder("edgeseg-build") as scratch:
        file = scratch / "model.onnx"
        save_onnx(graph, file)
        record.build(BuildRequest(folder=folder, graph=file, manifest=manifest, network=network, folded=folded))
