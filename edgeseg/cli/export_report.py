"""What ``edgeseg export`` prints of what it made and proved."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from edgeseg.cli._shared import console, percent, print_json, size_text, table
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.export.precision import PrecisionReport
    from edgeseg.export.report import ExportReport
    from edgeseg.manifest import Manifest

__all__ = ["print_json_report", "print_report"]


def print_report(report: ExportReport, random: str, *, verbose: bool) -> None:
    """Print the report for people.

    Args:
        report: Of the export.
        random: Name of the network whose weights are random; empty where they are not.
        verbose: Also what each pass on the graph did.
    """
    manifest = report.bundle.manifest
    screen = console()
    screen.print(one_line(report.path, 1000), soft_wrap=True, style="bold")
    screen.print(
        f"{one_line(manifest.network)}, {size_text(manifest.input_size)} (height x width), "
        f"{manifest.num_classes} classes{_activation(manifest)}, "
        f"{report.parameters / 1e6:.3f} M parameters, {report.macs / 1e9:.3f} GMACs, {report.nodes} operators"
    )
    proof = table("target", "labels equal to PyTorch's", "differing", "largest logit difference", "engine")
    for parity in report.parity:
        ratio = parity.max_logit_error / parity.logit_range if parity.logit_range else 0.0
        difference = f"{parity.max_logit_error:.1e} ({ratio:.1e} of the range)"
        share = percent(parity.agreement) if parity.ran else "engine not run"
        proof.add_row(parity.target, share, f"{parity.differing} of {parity.pixels}", difference, parity.engine)
    screen.print(proof)
    if verbose:
        _print_passes(report)
    if report.precision is not None:
        _print_precision(report.precision)
    for note in report.notes:
        screen.print(one_line(note, 1000))
    if random:
        screen.print(f"The weights are random: give --weights CHECKPOINT for masks that mean something ({random}).")
    _print_next(report)


def _activation(manifest: Manifest) -> str:
    """What the network has applied to its output itself, where that is anything."""
    return "" if manifest.postprocess.activation == "none" else f" ({manifest.postprocess.activation} in the network)"


def _print_passes(report: ExportReport) -> None:
    """One row per pass; what nothing was done about, and why, below."""
    listed = table("pass", "operators", "GMACs", "MB moved", "largest difference", "why not")
    for entry in report.passes:
        error = "" if entry.error is None else f"{entry.error:.1e}"
        if entry.rounding is not None:  # of a network that amplifies the last bit
            error += f" ({entry.rounding[1]:.1e} from float64, before {entry.rounding[0]:.1e})"
        if entry.score is not None:
            error += f" ({percent(entry.score[1])} of the labels, before {percent(entry.score[0])})"
        gmacs, megabytes = _before_after(entry.macs, 1e9, 3), _before_after(entry.bytes, 1e6, 1)
        listed.add_row(entry.name, _before_after(entry.nodes, 1, 0), gmacs, megabytes, error, entry.reason)
    console().print(listed)
    for entry in report.passes:
        for sentence in entry.declined:
            console().print(one_line(f"{entry.name} left {sentence}", 1000), soft_wrap=True)


def _before_after(pair: tuple[int, int] | None, unit: float, digits: int) -> str:
    if pair is None or pair[0] == pair[1]:
        return "" if pair is None else f"{pair[0] / unit:.{digits}f}"
    return f"{pair[0] / unit:.{digits}f} -> {pair[1] / unit:.{digits}f}"


def _print_precision(found: PrecisionReport) -> None:
    rows = found.rows()
    listed = table(*rows[0]) if rows else table("target")
    for row in rows:
        listed.add_row(*row.values())
    screen = console()
    pictures = f"{found.calibration} calibration pictures, scored on {found.held_out} others"
    screen.print(f"{found.precision}: {found.lowered} operators; {found.recipe}; {pictures}", soft_wrap=True)
    screen.print(listed)
    for entry in found.kept:
        screen.print(one_line(f"kept in fp32: {entry.op} {entry.node} ({entry.why})", 1000), soft_wrap=True)
    for note in found.notes:
        screen.print(one_line(note, 1000), soft_wrap=True)


def _print_next(report: ExportReport) -> None:
    targets = [parity.target for parity in report.parity if parity.ran and parity.target != "torch"]
    path = shlex.quote(str(report.path))
    console().print(
        f"Next:\n  edgeseg predict {path} IMAGE --target {targets[-1]}\n  edgeseg verify {path}\n"
        f"  edgeseg benchmark {path} --target {' '.join(targets)}",
        soft_wrap=True,
    )


def print_json_report(report: ExportReport) -> None:
    """Print the report as JSON."""
    from dataclasses import asdict

    data = {
        "path": str(report.path),
        "parity": [{**asdict(parity), "agreement": parity.agreement} for parity in report.parity],
        "fusion": None if report.fusion is None else asdict(report.fusion),
        "passes": [asdict(entry) for entry in report.passes],
        "seconds": report.seconds,
        "nodes": report.nodes,
        "macs": report.macs,
        "parameters": report.parameters,
        "postprocess": asdict(report.bundle.manifest.postprocess),
        "precision": None if report.precision is None else report.precision.to_json(),
        "notes": report.notes,
    }
    print_json(data, indent=2)
