"""Measure what a low precision costs and gains on every target, against the same network in fp32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.bundle import Bundle, Manifest, Parity
from edgeseg.errors import TargetUnavailableError
from edgeseg.export.bundle_files import hashed, write_graphs
from edgeseg.export.job import ExportJob
from edgeseg.export.precision.acceptance import measure_pair
from edgeseg.export.precision.lowering import Lowered
from edgeseg.export.precision.report import PrecisionReport, TargetFigures
from edgeseg.export.target_graphs import TargetGraphs
from edgeseg.files import scratch_folder
from edgeseg.predictor import Predictor
from edgeseg.runtimes import Session, engine, open_session

__all__ = ["fp32_bundle", "measure_targets"]

_SELF_TEST_SLACK = 0.01
"""Labels of the sample that another processor's kernels may move, as a share."""


def measure_targets(
    lowered: Lowered,
    job: ExportJob,
    graphs: TargetGraphs,
    bundle: Bundle,
    parity: Sequence[Parity],
    known: Mapping[str, TargetFigures] | None = None,
) -> PrecisionReport:
    """Measure agreement, mIoU, latency against fp32, and size, of every target that can be lowered.

    Args:
        lowered: The graph in low precision, and what scores it.
        job: The export.
        graphs: Of every target.
        bundle: All targets written.
        parity: What was verified.
        known: Figures of an earlier measurement; those whose precision is the same still are taken over.
    """
    rows, self_tests = [], [1.0]
    for entry in parity:
        if not engine(entry.target).lowers_to:
            continue
        earlier = (known or {}).get(entry.target)
        if earlier is not None and earlier.precision == bundle.manifest.precision_of(entry.target):
            rows.append(earlier)
            continue
        rows.append(_figures(entry, bundle, lowered, job, graphs))
    self_tests += [_self_test(bundle, row.target) for row in rows if row.latency is not None]
    return replace(lowered.report, targets=tuple(rows), self_test=max(0.0, min(self_tests) - _SELF_TEST_SLACK))


def _figures(entry: Parity, bundle: Bundle, lowered: Lowered, job: ExportJob, graphs: TargetGraphs) -> TargetFigures:
    """One target's row; without latency and mIoU where the target does not run on this machine."""
    precision = bundle.manifest.precision_of(entry.target)
    row = TargetFigures(
        target=entry.target,
        precision=precision,
        engine=entry.engine,
        arithmetic=precision,
        agreement=entry.agreement,
        size=engine(entry.target).size_in(bundle),
        ran=entry.ran,
    )
    try:
        low = open_session(bundle, entry.target)
    except TargetUnavailableError:
        return row
    try:
        with scratch_folder("edgeseg-fp32") as folder:
            baseline = fp32_bundle(folder, entry.target, job, graphs, bundle.manifest)
            fp32 = open_session(baseline, entry.target)
            try:
                return replace(_measured(row, fp32, low, lowered), size_fp32=engine(entry.target).size_in(baseline))
            finally:
                fp32.close()
    finally:
        low.close()


def fp32_bundle(folder: Path, target: str, job: ExportJob, graphs: TargetGraphs, manifest: Manifest) -> Bundle:
    """Write the fp32 export that a target's low precision is measured against.

    Args:
        folder: An empty one.
        target: Canonical name.
        job: The export.
        graphs: Of every target.
        manifest: Of the bundle in low precision.
    """
    targets = tuple(dict.fromkeys(("ort", target)))
    plain = replace(manifest, precision="fp32", precisions={}, targets=targets)
    write_graphs(folder, job, graphs, plain)
    return Bundle(folder, replace(plain, files=hashed(folder)))


def _measured(row: TargetFigures, fp32: Session, low: Session, lowered: Lowered) -> TargetFigures:
    """The row with what two open sessions show."""
    scorer = lowered.scorer
    batch = low.inputs[0].shape[0] or 1

    def logits(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = low.run(np.stack([image] * batch), ("logits",))["logits"][0]
        return found

    score = scorer.logits(logits)
    latency = measure_pair(fp32, low, np.stack([scorer.pictures[0].image] * batch))
    return replace(
        row,
        arithmetic=low.info.precision,
        agreement=score.agreement,
        agreement_95=score.agreement_95,
        miou=score.miou,
        latency=latency,
    )


def _self_test(bundle: Bundle, target: str) -> float:
    """Share of the sample's labels that are fp32 PyTorch's."""
    with Predictor(bundle, target, keep_image=False) as predictor:
        return float(predictor.self_test().agreement)
