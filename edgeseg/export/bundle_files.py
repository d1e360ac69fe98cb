"""Write the files of a bundle: graphs, engines, the self test, and the manifest that describes them."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg import bundle as layout
from edgeseg.bundle import Manifest
from edgeseg.export.compile import save_onnx, write_standalone, write_target
from edgeseg.export.job import ExportJob
from edgeseg.export.reference import self_test_pair
from edgeseg.export.steps import step
from edgeseg.export.target_graphs import TargetGraphs
from edgeseg.files import sha256_of, storage_errors
from edgeseg.graph.run import run_graph
from edgeseg.images import fit_image, input_digest
from edgeseg.runtimes import engine, engines
from edgeseg.specs import Size

__all__ = ["hashed", "write_files", "write_graphs"]


def write_files(folder: Path, job: ExportJob, graphs: TargetGraphs, precisions: Mapping[str, str]) -> Manifest:
    """Write everything but the manifest into an empty or earlier written folder.

    Args:
        folder: The bundle's.
        job: The export.
        graphs: Of every target.
        precisions: Target -> precision.

    Returns:
        The manifest, with the hashes of the files, still without what is proven.

    Raises:
        ExportError: An engine refuses a graph, or the graph cannot end in labels.
        StorageError: Writing failed.
    """
    _empty(folder)
    manifest = _manifest(job, graphs, precisions)
    write_graphs(folder, job, graphs, manifest)
    if job.config.output == "labels":
        with step("ending graphs in labels"):
            _write_label_graphs(folder, job, graphs, manifest)
    sample_input = _write_sample(folder, job, manifest.logit_size)
    return replace(manifest, sample_input=sample_input, files=hashed(folder))


def hashed(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _empty(folder: Path) -> None:
    with storage_errors(folder):
        for entry in list(folder.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def write_graphs(folder: Path, job: ExportJob, graphs: TargetGraphs, manifest: Manifest) -> None:
    """Write the graphs of a manifest's targets, and what each target compiles from its own."""
    plain = graphs.plain(manifest.precision)
    save_onnx(_described(plain, manifest), folder / layout.MODEL)
    for record in map(engine, manifest.targets):
        graph = _described(graphs.of(record.name, manifest.precision_of(record.name)), manifest)
        if record.graph and graph is not plain:
            save_onnx(graph, folder / record.graph)
        if record.build is not None:
            with step(f"compiling for {record.name}"):
                write_target(record.name, folder, graph, manifest, job.source.module, graphs.folded)


def _write_label_graphs(folder: Path, job: ExportJob, graphs: TargetGraphs, manifest: Manifest) -> None:
    def graph(target: str) -> onnx.ModelProto:
        return _described(graphs.of(target, manifest.precision_of(target)), manifest)

    write_standalone(
        folder,
        manifest.targets,
        job.label_size,
        manifest.postprocess,
        graph=graph,
    )


def _described(model: onnx.ModelProto, manifest: Manifest) -> onnx.ModelProto:
    """A graph with the manifest's contract in it: it describes itself, and belongs to no other manifest."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {layout.METADATA_KEY: manifest.contract()})
    model.producer_name = "edgeseg"
    model.producer_version = manifest.versions.get("edgeseg", "")
    return model


def _write_sample(folder: Path, job: ExportJob, logit_size: Size) -> str:
    """Write the self test: a picture, and the labels that fp32 PyTorch gives it at its own size.

    Returns:
        What the picture becomes as the network's input, by `input_digest`.
    """
    spec, file = job.spec, job.pictures[0]
    picture, labels = self_test_pair(
        job.reference, job.size, spec.resize, spec.postprocess, file, logit_size=logit_size
    )
    with storage_errors(folder):
        (folder / layout.sample_name(picture.shape[2])).write_bytes(_encoded(picture))
        (folder / layout.SAMPLE_LABELS).write_bytes(cv2.imencode(".png", labels)[1].tobytes())
    return input_digest(fit_image(picture, job.size, spec.resize)[0])


def _encoded(picture: NDArray[np.uint8]) -> bytes:
    """PNG of a picture; TIFF, a page per channel, of one of other than 3 channels."""
    if picture.shape[2] == 3:
        return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
    pages = [np.ascontiguousarray(picture[..., channel]) for channel in range(picture.shape[2])]
    return cv2.imencodemulti(".tiff", pages)[1].tobytes()


def _manifest(job: ExportJob, graphs: TargetGraphs, precisions: Mapping[str, str]) -> Manifest:
    spec, config = job.spec, job.config
    plain = graphs.plain(config.precision)
    return Manifest(
        name=job.name,
        network=job.source.origin,
        num_classes=job.channels,
        labels=job.labels.names,
        palette=job.labels.palette,
        input_size=job.size,
        logit_size=_logit_size(plain, job),
        divisor=spec.divisor,
        input=spec.input,
        resize=spec.resize,
        postprocess=spec.postprocess,
        targets=config.all_targets,
        batch=job.batch,
        dynamic=config.dynamic,
        precision=config.precision,
        precisions={target: kind for target, kind in precisions.items() if kind != config.precision},
        versions=_versions(job),
        facts={
            "system": spec.system,
            "paper": spec.paper,
            "source": spec.source,
            "weights": job.source.weights,
            "weights_licence": spec.weights_licence if "random" not in job.source.weights else "",
            "parameters": job.parameters,
            "macs": job.macs,
            "nodes": len(plain.graph.node),
            **({"take": job.take} if job.take else {}),
            "machine_profile": config.machine_profile.to_json(),
        },
    )


def _logit_size(model: onnx.ModelProto, job: ExportJob) -> Size:
    dims = model.graph.output[0].type.tensor_type.shape.dim
    if dims[2].dim_value and dims[3].dim_value:
        return int(dims[2].dim_value), int(dims[3].dim_value)
    shape = run_graph(model, {"image": np.zeros((job.batch, *job.size, job.spec.input.image_channels), np.uint8)})[
        0
    ].shape
    return int(shape[2]), int(shape[3])


def _versions(job: ExportJob) -> dict[str, str]:
    """Versions of the tools that made the bundle."""
    packages = ["edgeseg", "torch", "onnx", "onnxsim", "onnxruntime", "opencv-python", "numpy"]
    packages += [package for record in engines() if record.name in job.config.targets for package in record.packages]
    packages += ["nncf"] if job.config.precision == "int8" else []
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
