"""The export, end to end: module -> inference form -> ONNX -> engines -> proof -> bundle."""

from __future__ import annotations

import copy
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from edgeseg import bundle as layout
from edgeseg.bundle import Bundle, Manifest, Parity, open_bundle, write_manifest
from edgeseg.errors import EdgesegError, ExportError, ParityError, UsageError
from edgeseg.export.compile import require_packages, save_onnx, write_labels_graph, write_standalone, write_target
from edgeseg.export.config import ExportConfig
from edgeseg.export.deploy import DeployNetwork, check_normalisation, first_logits
from edgeseg.export.fusion import FusionReport, fuse
from edgeseg.export.graph.run import run_graph
from edgeseg.export.passes import ROUNDS, PassReport, default_passes, ort_passes, run_passes
from edgeseg.export.passes._base import Exact
from edgeseg.export.passes.peel import peel_trailing_resize
from edgeseg.export.precision import PrecisionReport
from edgeseg.export.precision.acceptance import hold
from edgeseg.export.precision.calibration import Calibration, load_calibration
from edgeseg.export.precision.int8 import require_nncf
from edgeseg.export.precision.lowering import Fp32, Lowered, Setup, figures, gpu_graph, lower
from edgeseg.export.reference import ParitySet, compare_outputs, parity_set, self_test_pair, shipped_sample
from edgeseg.export.to_onnx import check_limits, export_onnx, first_reason, simplify
from edgeseg.export.verify import verify_standalone, verify_target
from edgeseg.files import atomic_folder, sha256_of, storage_errors
from edgeseg.images import read_image
from edgeseg.labels import LabelSet, label_set
from edgeseg.models.count import count_macs, count_parameters
from edgeseg.models.source import NetworkSource
from edgeseg.runtimes.ort.passes import for_onnxruntime
from edgeseg.specs import PostprocessSpec, Size, check_divisor
from edgeseg.text import one_line

__all__ = ["ExportReport", "run_export"]

Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass
class ExportReport:
    """What an export made and proved.

    Attributes:
        path: Of the bundle.
        parity: One entry per target.
        fusion: What was folded on the module; None with ``fuse=False``.
        passes: One report per pass on the ONNX graph.
        seconds: Time per step.
        nodes: Operators in ``model.onnx``.
        macs: Multiply-accumulates for one image, 0 where they could not be counted.
        parameters: Of the module.
        precision: What a low precision costs and gains; None for fp32.
        notes: Sentences the user must see.
    """

    path: Path
    parity: tuple[Parity, ...] = ()
    fusion: FusionReport | None = None
    passes: tuple[PassReport, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    nodes: int = 0
    macs: int = 0
    parameters: int = 0
    precision: PrecisionReport | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def bundle(self) -> Bundle:
        """The bundle, opened."""
        return open_bundle(self.path, check=False)


class _Steps:
    """Tells what is being done and keeps the time it took."""

    def __init__(self, tell: Progress | None, seconds: dict[str, float]) -> None:
        self._tell, self._seconds = tell, seconds

    def __call__(self, what: str, work: Callable[[], T]) -> T:
        if self._tell:
            self._tell(what)
        started = time.perf_counter()
        result = work()
        self._seconds[what] = time.perf_counter() - started
        return result


def run_export(
    source: NetworkSource, config: ExportConfig, *, out: Path, name: str, progress: Progress | None = None
) -> ExportReport:
    """Export a resolved network into ``out / NAME.edgeseg``.

    Raises:
        SizeError: The network does not take the size.
        ExportError: It could not be turned into a graph or engine.
        ParityError: The masks differ from fp32 PyTorch's by more than the budget.
        TargetUnavailableError: A target's package is not installed.
        InputError: A parity picture cannot be read.
        StorageError: Writing failed. In every case nothing is left behind.
    """
    size = config.size or source.spec.input_size
    check_divisor(source.spec.name or source.origin, size, source.spec.divisor)
    require_packages(config.targets)
    target = out / f"{name}{layout.SUFFIX}"
    if os.path.lexists(target):
        _refuse_foreign(target)  # told before the work, and looked at again before it is replaced
    pictures = (config.sample or shipped_sample(), *config.parity_images)
    for picture in pictures:
        read_image(picture)  # one that cannot be read is told before the work, not after it
    calibration = _calibration(source, config, size)
    report = ExportReport(target, parameters=count_parameters(source.module))
    steps = _Steps(progress, report.seconds)
    with atomic_folder(report.path, replaces=_refuse_foreign, settles=True) as folder:
        _export_into(folder, source, config, size, pictures, calibration, name, report, steps)
    return report


def _refuse_foreign(path: Path) -> None:
    """Replace a bundle only, never a folder or file that is something else.

    Raises:
        UsageError: There is no manifest in it.
    """
    if not (path / layout.MANIFEST).is_file():
        raise UsageError(
            f"'{one_line(path)}' is there and is no bundle (it holds no {layout.MANIFEST}), so it is not replaced; "
            "move it away, or choose another --out or --name"
        )


def _export_into(
    folder: Path,
    source: NetworkSource,
    config: ExportConfig,
    size: Size,
    pictures: Sequence[Path],
    calibration: Calibration | None,
    name: str,
    report: ExportReport,
    steps: _Steps,
) -> None:
    channels = _probe(source, size)
    check_normalisation(source.spec.input)
    classes = len(_label_set(source, config, channels).names)  # an unknown one is told before the work
    fused = _fused(source, size, config, report, steps)
    exact = cache(partial(_in_float64, source, _noise(size, config.batch)))
    model, postprocess = _graph(fused, source, config, size, exact, report, steps)
    report.macs = _macs(source.module, size)
    expected: ParitySet = steps(
        "running fp32 PyTorch",
        lambda: parity_set(
            DeployNetwork(source.module, source.spec.input), size, source.spec.resize, postprocess, pictures
        ),
    )
    lowered = None
    if config.precision.lowers:
        _hold_budget(_graph_parity(model, expected, postprocess, config.batch), config, source.spec.logit_tolerance)
        lowered = lower(model, _setup(source, config, size, postprocess, classes, pictures, calibration), steps)
    fp32, model = model, lowered.model if lowered else model
    own = _ort_graph(model, config, size, exact, report)
    graphs = _Graphs(model, own, gpu_graph(model, config.precision.precision))
    report.nodes = len(model.graph.node)
    manifest = _manifest(name, source, config, size, postprocess, channels, model, report)
    judged = lowered.expected if lowered else expected
    _write_graphs(folder, graphs, manifest, source, steps)
    if config.output == "labels":
        steps(
            "ending graphs in labels", partial(_standalone, folder, graphs, config, size, postprocess, judged, report)
        )
    _write_sample(folder, source, size, postprocess, pictures[0])
    manifest = replace(manifest, files=_hashes(folder))
    report.parity = _verified(folder, manifest, source, config, expected, judged, steps)
    if lowered:
        bf16 = config.precision.precision == "bf16"  # whose graphs are those of fp32
        as_shipped = own if bf16 else _for_ort_kernels(fp32, config, size, exact)[0]
        manifest = _weigh(lowered, Fp32(fp32, as_shipped), folder, manifest, source, config, report, steps)
    with storage_errors(folder):
        write_manifest(folder, replace(manifest, parity=report.parity))


@dataclass(frozen=True)
class _Graphs:
    """One network as the engines are given it.

    Attributes:
        model: For OpenVINO, and for every engine that is not named below.
        ort: As ONNX Runtime's CPU kernels want it written; `model` itself where that is no other.
        gpu: As TensorRT wants it written; likewise.
    """

    model: onnx.ModelProto
    ort: onnx.ModelProto
    gpu: onnx.ModelProto


def _setup(
    source: NetworkSource,
    config: ExportConfig,
    size: Size,
    postprocess: PostprocessSpec,
    classes: int,
    pictures: Sequence[Path],
    calibration: Calibration | None,
) -> Setup:
    return Setup(
        config=config.precision,
        network=DeployNetwork(source.module, source.spec.input),
        size=size,
        resize=source.spec.resize,
        postprocess=postprocess,
        classes=classes,
        batch=config.batch,
        pictures=pictures,
        calibration=calibration,
    )


def _write_graphs(folder: Path, graphs: _Graphs, manifest: Manifest, source: NetworkSource, steps: _Steps) -> None:
    """The graphs, and what every target compiles from them."""
    _embed(graphs.model, manifest)
    save_onnx(graphs.model, folder / layout.MODEL)
    if graphs.ort is not graphs.model:
        _embed(graphs.ort, manifest)
        save_onnx(graphs.ort, folder / layout.ORT_MODEL)
    if graphs.gpu is not graphs.model:
        _embed(graphs.gpu, manifest)
    if manifest.label_size is not None:
        write_labels_graph(graphs.gpu, folder, manifest.label_size, manifest.postprocess)
    for target in manifest.targets:
        if target != "ort":
            steps(f"compiling for {target}", partial(write_target, target, folder, source.module))


def _verified(
    folder: Path,
    manifest: Manifest,
    source: NetworkSource,
    config: ExportConfig,
    expected: ParitySet,
    judged: ParitySet,
    steps: _Steps,
) -> tuple[Parity, ...]:
    """Every target against fp32 PyTorch, a low precision on `judged`, accepted or refused later."""
    parity = []
    for target in manifest.targets:
        exact = target == "torch" or not config.precision.lowers
        wanted, network = expected if exact else judged, source.origin if ":" in source.origin else None
        check = partial(verify_target, target, Bundle(folder, manifest), wanted, network=network)
        parity.append(steps(f"verifying {target}", check))
        if exact:
            _hold_budget(parity[-1], config, source.spec.logit_tolerance)
    return tuple(parity)


def _ort_graph(
    model: onnx.ModelProto, config: ExportConfig, size: Size, exact: Exact, report: ExportReport
) -> onnx.ModelProto:
    """The network as ONNX Runtime's CPU kernels want it written; the graph itself where that is no other."""
    precision = config.precision.precision
    if precision == "int8":
        return for_onnxruntime(model)
    if precision == "fp16":
        return model
    own, reports = _for_ort_kernels(model, config, size, exact)
    report.passes += tuple(reports)
    return own


def _for_ort_kernels(
    model: onnx.ModelProto, config: ExportConfig, size: Size, exact: Exact
) -> tuple[onnx.ModelProto, list[PassReport]]:
    """A float graph after the passes for ONNX Runtime alone; itself where they change nothing."""
    passes = ort_passes(rewrites=config.rewrites, skip=config.skip_passes)
    own, reports = run_passes(model, passes, {"image": _noise(size, config.batch)}, exact=exact)
    return own if any(entry.modified for entry in reports) else model, reports


def _noise(size: Size, batch: int) -> NDArray[np.uint8]:
    """A picture that passes prove themselves on."""
    return np.random.default_rng(0).integers(0, 256, (batch, *size, 3), dtype=np.uint8)


def _standalone(
    folder: Path,
    graphs: _Graphs,
    config: ExportConfig,
    size: Size,
    postprocess: PostprocessSpec,
    judged: ParitySet,
    report: ExportReport,
) -> None:
    """Graphs that end in labels alone, held to the agreement the targets are held to."""
    labels = config.label_size or size
    write_standalone(folder, config.targets, labels, postprocess, model=graphs.model, ort=graphs.ort, gpu=graphs.gpu)
    lowered = config.precision
    budget = config.min_agreement if not lowered.lowers else 0.0 if lowered.force else lowered.agreement_budget
    for file, share in verify_standalone(folder, judged, labels, postprocess, config.batch).items():
        if share < budget:
            raise ParityError(
                f"{file}: {share:.4%} of the labels agree, at least {budget:.2%} must; the bundle was not written"
            )
        report.notes.append(f"{file}: picture to labels {labels[0]}x{labels[1]}, {share:.4%} of the labels agree")


def _calibration(source: NetworkSource, config: ExportConfig, size: Size) -> Calibration | None:
    """Calibration pictures: what cannot be read is told before the work."""
    wanted = config.precision
    if wanted.precision == "int8":
        require_nncf()
    if wanted.calib is None:
        return None
    return load_calibration(
        wanted.calib, size, source.spec.resize, labels=wanted.calib_labels, positive_label=wanted.calib_positive_label
    )


def _graph_parity(model: onnx.ModelProto, expected: ParitySet, postprocess: PostprocessSpec, batch: int) -> Parity:
    """The fp32 graph against fp32 PyTorch: what a low precision starts from must be right."""

    def run(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {"logits": run_graph(model, {"image": image})[0]}

    return compare_outputs("the fp32 graph", run, "onnxruntime", expected, postprocess, batch=batch)


def _weigh(
    lowered: Lowered,
    fp32: Fp32,
    folder: Path,
    manifest: Manifest,
    source: NetworkSource,
    config: ExportConfig,
    report: ExportReport,
    steps: _Steps,
) -> Manifest:
    """Measure the low precision against fp32, refuse it where it does not pay, and write the figures down."""
    work = partial(figures, lowered, fp32, folder, manifest, report.parity, source.module)
    report.precision = steps("measuring against fp32", work)
    hold(config.precision, report.precision, config.targets)
    return replace(manifest, facts={**manifest.facts, "precision": report.precision.to_json()})


def _probe(source: NetworkSource, size: Size) -> int:
    """Run the module once; returns the number of output channels, or says what it does not take."""
    try:
        with torch.inference_mode():
            logits = first_logits(source.module(torch.zeros(1, 3, *size)))
    except EdgesegError:
        raise
    except Exception as error:
        raise ExportError(
            f"{source.origin} fails on an image of {size[0]}x{size[1]}: {first_reason(error)}; choose a --size it takes"
        ) from error
    return int(logits.shape[1])


def _fused(source: NetworkSource, size: Size, config: ExportConfig, report: ExportReport, steps: _Steps) -> nn.Module:
    if not config.fuse:
        return source.module
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(1, 3, *_probe_size(source, size), generator=generator)
    fused, report.fusion = steps("folding batch norms", lambda: fuse(_FirstLogits(source.module), probe))
    return fused


def _label_set(source: NetworkSource, config: ExportConfig, channels: int) -> LabelSet:
    """Names and colours of the classes.

    Raises:
        UsageError: The set that was asked for has another number of classes.
    """
    found = label_set(source.spec.labels, channels)
    if config.labels not in (None, found.name):
        raise UsageError(
            f"the label set '{config.labels}' does not fit a network of {channels} output channels; leave --labels out "
            "for generic names, or check the checkpoint"
        )
    return found


def _probe_size(source: NetworkSource, size: Size) -> Size:
    """A small size the network takes: fusion does not depend on it, and float64 at full size takes long."""
    if ":" in source.origin or source.spec.divisor == 1:
        return size
    step = source.spec.divisor
    height, width = (min(side, max(step, limit // step * step)) for side, limit in zip(size, (128, 192), strict=True))
    return height, width


class _FirstLogits(nn.Module):
    """A module that returns logits only."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return first_logits(self.network(image))


def _graph(
    fused: nn.Module,
    source: NetworkSource,
    config: ExportConfig,
    size: Size,
    exact: Exact,
    report: ExportReport,
    steps: _Steps,
) -> tuple[onnx.ModelProto, PostprocessSpec]:
    deployed = DeployNetwork(fused, source.spec.input).eval()
    divisor = source.spec.divisor
    exported = steps(
        "exporting to ONNX",
        lambda: export_onnx(deployed, size, batch=config.batch, dynamic=config.dynamic, divisor=divisor),
    )
    model = steps("simplifying", lambda: simplify(exported))
    postprocess = source.spec.postprocess
    peeled = None if config.dynamic else peel_trailing_resize(model, size)
    if peeled is not None:
        model, align_corners = peeled
        postprocess = replace(postprocess, align_corners=align_corners)
        report.notes.append("the network's last resize was peeled off; the exact postprocessing does it")
    passes = default_passes(rewrites=config.rewrites, skip=config.skip_passes)
    feeds = {"image": _noise(size, config.batch)}
    model, reports = steps("rewriting", partial(run_passes, model, passes, feeds, rounds=ROUNDS, exact=exact))
    report.passes = tuple(reports)
    check_limits(model)
    if config.dynamic:
        steps("checking another size", lambda: _check_free(model, source, size, config.batch))
    return model, postprocess


def _in_float64(source: NetworkSource, image: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Logits of the module in float64; None where it does not run so."""
    network = copy.deepcopy(source.module).double()
    normalise = DeployNetwork(network, source.spec.input).normalise
    try:
        with torch.inference_mode():
            logits = first_logits(network(normalise(torch.from_numpy(image)).double()))
    except Exception:  # a module of the user's own may make float32 constants
        return None
    return np.asarray(logits, np.float64)


def _check_free(model: onnx.ModelProto, source: NetworkSource, size: Size, batch: int) -> None:
    """Compare the graph with PyTorch at another size: sizes that a module computes with in Python stay in the graph.

    Raises:
        ExportError: The graph works at its example's size only.
    """
    step = -(-32 // source.spec.divisor) * source.spec.divisor
    other = (size[0] + step, size[1] + 2 * step)
    image = np.random.default_rng(0).integers(0, 256, (batch, *other, 3), dtype=np.uint8)
    advice = f"export {source.origin} at a fixed --size instead"
    try:
        with torch.inference_mode():
            wanted = DeployNetwork(source.module, source.spec.input)(torch.from_numpy(image)).numpy()
        got = run_graph(model, {"image": image})[0]
    except Exception as error:
        raise ExportError(
            f"with free height and width the graph fails at {other[0]}x{other[1]} ({first_reason(error)}); {advice}"
        ) from error
    if got.shape != wanted.shape or not np.abs(got - wanted).max() <= 1e-3 * np.ptp(wanted):
        raise ExportError(f"with free height and width the graph is wrong at {other[0]}x{other[1]}; {advice}")


def _macs(module: nn.Module, size: Size) -> int:
    try:
        return count_macs(module, size)
    except Exception:  # a module of the user's own may not run without data
        return 0


def _logit_size(model: onnx.ModelProto, size: Size, batch: int) -> Size:
    dims = model.graph.output[0].type.tensor_type.shape.dim
    if dims[2].dim_value and dims[3].dim_value:
        return int(dims[2].dim_value), int(dims[3].dim_value)
    shape = run_graph(model, {"image": np.zeros((batch, *size, 3), np.uint8)})[0].shape
    return int(shape[2]), int(shape[3])


def _manifest(
    name: str,
    source: NetworkSource,
    config: ExportConfig,
    size: Size,
    postprocess: PostprocessSpec,
    channels: int,
    model: onnx.ModelProto,
    report: ExportReport,
) -> Manifest:
    spec = source.spec
    labels = _label_set(source, config, channels)
    return Manifest(
        name=name,
        network=source.origin,
        num_classes=channels,
        labels=labels.names,
        palette=labels.palette,
        input_size=size,
        logit_size=_logit_size(model, size, config.batch),
        divisor=spec.divisor,
        input=spec.input,
        resize=spec.resize,
        postprocess=postprocess,
        targets=config.targets,
        batch=config.batch,
        dynamic=config.dynamic,
        label_size=(config.label_size or size) if config.graph_postprocess else None,
        precision=config.precision.precision,
        versions=_versions(config),
        facts={
            "system": spec.system,
            "paper": spec.paper,
            "source": spec.source,
            "weights": source.weights,
            "weights_licence": spec.weights_licence if "random" not in source.weights else "",
            "parameters": report.parameters,
            "macs": report.macs,
            "nodes": report.nodes,
        },
    )


def _versions(config: ExportConfig) -> dict[str, str]:
    targets = config.targets
    packages = ["edgeseg", "torch", "onnx", "onnxsim", "onnxruntime", "opencv-python", "numpy"]
    packages += ["openvino"] if "openvino" in targets else []
    packages += ["nncf"] if config.precision.precision == "int8" else []
    packages += ["tensorrt-rtx-cu13-bindings"] if "trt-rtx" in targets else []
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _embed(model: onnx.ModelProto, manifest: Manifest) -> None:
    """Write the manifest's contract into the graph: it describes itself, and belongs to no other manifest."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {layout.METADATA_KEY: manifest.contract()})
    model.producer_name = "edgeseg"
    model.producer_version = manifest.versions.get("edgeseg", "")


def _write_sample(folder: Path, source: NetworkSource, size: Size, postprocess: PostprocessSpec, file: Path) -> None:
    """The self test: a picture, and the labels that fp32 PyTorch gives it at its own size."""
    network = DeployNetwork(source.module, source.spec.input)
    picture, labels = self_test_pair(network, size, source.spec.resize, postprocess, file)
    with storage_errors(folder):
        for file, data in (
            (Path(layout.SAMPLE), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)),
            (Path(layout.SAMPLE_LABELS), labels),
        ):
            (folder / file).write_bytes(cv2.imencode(".png", data)[1].tobytes())


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _hold_budget(parity: Parity, config: ExportConfig, tolerance: float) -> None:
    if not parity.pixels:
        return
    if parity.agreement < config.min_agreement:
        raise ParityError(
            f"{parity.target}: {parity.differing} of {parity.pixels} labels differ from fp32 PyTorch's "
            f"({parity.agreement:.4%} agree, at least {config.min_agreement:.2%} must); the bundle was not written"
        )
    relative = tolerance if config.max_logit_error is None else config.max_logit_error
    allowed = relative * parity.logit_range
    if parity.max_logit_error > max(allowed, 1e-12):
        raise ParityError(
            f"{parity.target}: logits differ from fp32 PyTorch's by up to {parity.max_logit_error:.2e}, at most "
            f"{allowed:.2e} ({relative:g} of their range) is allowed; the bundle was not written"
        )
