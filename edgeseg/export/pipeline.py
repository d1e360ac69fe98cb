"""The export, end to end: module -> inference form -> ONNX -> engines -> proof -> bundle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg import bundle as layout
from edgeseg.bundle import Bundle, Manifest, Parity, write_manifest
from edgeseg.errors import ParityError, UsageError
from edgeseg.export.bundle_files import write_files
from edgeseg.export.compile import require_packages
from edgeseg.export.job import ExportJob
from edgeseg.export.network_graph import network_graph
from edgeseg.export.precision.acceptance import next_precisions
from edgeseg.export.precision.figures import measure_targets
from edgeseg.export.precision.lowering import Lowered, lower
from edgeseg.export.precision.report import PrecisionReport
from edgeseg.export.ranges import range_notes, settle_activation
from edgeseg.export.reference import ParitySet, compare_outputs
from edgeseg.export.report import ExportReport
from edgeseg.export.steps import Progress, recorded, step
from edgeseg.export.target_graphs import TargetGraphs
from edgeseg.export.verify import verify_standalone, verify_target
from edgeseg.files import atomic_folder, storage_errors
from edgeseg.graph.ending import last_activation
from edgeseg.graph.profile import using_profile
from edgeseg.graph.run import run_graph
from edgeseg.runtimes import engine
from edgeseg.specs import Size
from edgeseg.text import one_line

__all__ = ["run_export"]


def run_export(job: ExportJob, *, out: Path, progress: Progress | None = None) -> ExportReport:
    """Export a network into ``out / NAME.edgeseg``.

    Args:
        job: What to export, checked (`edgeseg.export.job.prepare_job`).
        out: Folder the bundle is written into.
        progress: Called with a few words before each step.

    Raises:
        ExportError: The network could not be turned into a graph or engine.
        ParityError: The masks differ from fp32 PyTorch's by more than the budget.
        TargetUnavailableError: A target's package is not installed.
        InputError: A parity picture cannot be read.
        StorageError: Writing failed. In every case nothing is left behind.
    """
    require_packages(job.config.all_targets)
    path = out / f"{job.name}{layout.SUFFIX}"
    if os.path.lexists(path):
        _refuse_foreign(path)  # before the work; looked at again before it is replaced
    placed = atomic_folder(path, replaces=_refuse_foreign, settles=True)
    with recorded(progress) as seconds, using_profile(job.config.machine_profile), placed as folder:
        report = _export_into(folder, job)
    return replace(report, path=path, seconds=seconds)


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


def _export_into(folder: Path, job: ExportJob) -> ExportReport:
    """Write a bundle into a folder, and report all but where it lies and how long it took."""
    graph = network_graph(job)
    with step("running fp32 PyTorch"):
        expected = graph.job.expected()
    settled = settle_activation(graph.job, expected, last_activation(graph.model))
    job, expected = settled.job, settled.expected
    lowered = None
    if job.config.lowers:
        _require_parity(_graph_parity(graph.model, expected, job), job)
        lowered = lower(graph.model, job)
    low, score = (lowered.model, lowered.scorer.agreement) if lowered else (graph.model, None)
    graphs = TargetGraphs(job, graph.model, low, score, folded=graph.folded)
    proof = _proven(folder, job, graphs, expected, lowered)
    with storage_errors(folder):
        write_manifest(folder, proof.manifest)
    return ExportReport(
        path=folder,
        parity=proof.manifest.parity,
        fusion=graph.fusion,
        passes=graph.passes + graphs.reports(proof.manifest),
        nodes=len(graphs.plain(job.config.precision).graph.node),
        macs=job.macs,
        parameters=job.parameters,
        precision=proof.precision,
        notes=(
            job.source.notes
            + job.notes
            + job.config.kept_fp32
            + settled.notes
            + range_notes(job, expected)
            + graph.notes
            + proof.notes
        ),
    )


@dataclass(frozen=True)
class _Proof:
    """What was written and proven.

    Attributes:
        manifest: Whole, but not yet written.
        precision: What a low precision costs and gains; None for fp32.
        notes: Sentences the user must see.
    """

    manifest: Manifest
    precision: PrecisionReport | None = None
    notes: tuple[str, ...] = ()


def _proven(folder: Path, job: ExportJob, graphs: TargetGraphs, expected: ParitySet, lowered: Lowered | None) -> _Proof:
    """Write a bundle and prove it, until every target has a precision that pays and holds its budget."""
    precisions = _asked_precisions(job)
    found: PrecisionReport | None = None
    changes: tuple[str, ...] = ()
    while True:
        manifest = write_files(folder, job, graphs, precisions)
        held_out = lowered.expected if lowered else expected
        labels = job.config.output == "labels"
        notes = _check_label_graphs(folder, job, held_out, manifest.logit_size) if labels else ()
        manifest = replace(manifest, parity=_verified(Bundle(folder, manifest), job, expected, held_out))
        if lowered is None:
            return _Proof(manifest, None, notes)
        known = {row.target: row for row in found.targets} if found else {}
        with step("measuring against fp32"):
            found = measure_targets(lowered, job, graphs, Bundle(folder, manifest), manifest.parity, known)
        chosen, reasons = next_precisions(job.config, found, precisions)
        changes += reasons
        if chosen == precisions:
            found = replace(found, notes=found.notes + changes)
            facts = {**manifest.facts, "precision": found.to_json()}
            return _Proof(replace(manifest, facts=facts), found, notes)
        precisions = chosen


def _asked_precisions(job: ExportJob) -> dict[str, str]:
    """Target -> the precision that was asked for; fp32 for one that is never lowered, such as plain PyTorch."""
    precision = job.config.precision
    return {target: precision if engine(target).lowers_to else "fp32" for target in job.config.all_targets}


def _verified(bundle: Bundle, job: ExportJob, expected: ParitySet, held_out: ParitySet) -> tuple[Parity, ...]:
    """Compare every target with fp32 PyTorch; a low precision on the held-out pictures, to be accepted later."""
    network = job.source.origin if ":" in job.source.origin else None
    parity = []
    for target in bundle.manifest.targets:
        exact = bundle.manifest.precision_of(target) == "fp32"
        with step(f"verifying {target}"):
            parity.append(verify_target(target, bundle, expected if exact else held_out, network=network))
        if exact:
            _require_parity(parity[-1], job)
    return tuple(parity)


def _check_label_graphs(folder: Path, job: ExportJob, expected: ParitySet, logit_size: Size) -> tuple[str, ...]:
    """Hold graphs that end in labels alone to the agreement that the targets are held to; return what they reach.

    Raises:
        ParityError: One is below it.
    """
    height, width = job.label_size
    config = job.config
    budget = config.fp32_budget if not config.lowers else 0.0 if config.force else config.budget(config.precision)
    notes = []
    postprocess = job.spec.postprocess
    found = verify_standalone(folder, expected, job.label_size, postprocess, job.batch, logit_size)
    for file, share in found.items():
        if share < budget:
            raise ParityError(
                f"{file}: {share:.4%} of the labels agree, at least {budget:.2%} must; the bundle was not written"
            )
        notes.append(f"{file}: picture to labels {height}x{width}, {share:.4%} of the labels agree")
    return tuple(notes)


def _graph_parity(model: onnx.ModelProto, expected: ParitySet, job: ExportJob) -> Parity:
    """Compare the fp32 graph with fp32 PyTorch: what a low precision starts from must be right."""

    def run(image: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        return {"logits": run_graph(model, {"image": image})[0]}

    return compare_outputs("the fp32 graph", run, "onnxruntime", expected, job.spec.postprocess, batch=job.batch)


def _require_parity(parity: Parity, job: ExportJob) -> None:
    """Refuse what differs from fp32 PyTorch by more than the fp32 budgets.

    Raises:
        ParityError: Says by how much.
    """
    if not parity.pixels:
        return
    budget, given = job.config.fp32_budget, job.config.max_logit_error
    if parity.agreement < budget:
        raise ParityError(
            f"{parity.target}: {parity.differing} of {parity.pixels} labels differ from fp32 PyTorch's "
            f"({parity.agreement:.4%} agree, at least {budget:.2%} must); the bundle was not written"
        )
    relative = job.spec.logit_tolerance if given is None else given
    allowed = relative * parity.logit_range
    if parity.max_logit_error > max(allowed, 1e-12):
        raise ParityError(
            f"{parity.target}: logits differ from fp32 PyTorch's by up to {parity.max_logit_error:.2e}, at most "
            f"{allowed:.2e} ({relative:g} of their range) is allowed; the bundle was not written"
        )
