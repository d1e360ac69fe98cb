"""``edgeseg export``: a network to a bundle, verified on every target."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli._shared import (
    console,
    errors,
    optional_size,
    percent,
    print_json,
    results_alone_on_stdout,
    size_text,
    table,
    target_names,
)
from edgeseg.export.config import ExportConfig, option_help
from edgeseg.export.graph.profile import DEFAULT_PROFILE
from edgeseg.runtimes import engine
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.export.precision import PrecisionReport
    from edgeseg.export.report import ExportReport

__all__ = ["export"]

_Numbers = Annotated[
    tuple[float, float, float] | None, typer.Option(help="Three numbers in the network's channel order.")
]


def _help(name: str, ending: str = "") -> str:
    """The help of an option: what `ExportConfig` says of it."""
    return option_help(name) + ending


def _list_passes(wanted: bool) -> None:
    """Print every pass on the graph: how it proves itself, the target whose graph it is for, and what it does."""
    if not wanted:
        return
    from edgeseg._optional import require

    require("onnx_ir", extra="export", why="export --passes")
    from edgeseg.export.passes.registry import list_passes

    listed = table("pass", "kind", "target", "what it does")
    for entry in list_passes():
        listed.add_row(entry.name, entry.kind, entry.engine or "all", entry.summary)
    console().print(listed)
    raise typer.Exit


def export(
    network: Annotated[str, typer.Argument(help="Registry name, or package.module:factory of your own.")],
    weights: Annotated[
        Path | None, typer.Option(help="Published or own checkpoint; without it the weights are random.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help=_help("targets", f" Built in are {target_names()}.")),
    ] = None,
    size: Annotated[str | None, typer.Option(help=_help("size"))] = None,
    out: Annotated[Path, typer.Option(help="Folder the bundle is written into.")] = Path(),
    name: Annotated[str | None, typer.Option(help="Name of the bundle; default the network's.")] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Output channels; default what the checkpoint holds.")
    ] = None,
    fixed_batch: Annotated[int, typer.Option(min=1, help=_help("batch"))] = 1,
    dynamic: Annotated[bool, typer.Option("--dynamic", help=_help("dynamic"))] = False,
    label_size: Annotated[str | None, typer.Option(help=_help("label_size"))] = None,
    output: Annotated[str, typer.Option(help=_help("output"))] = "logits",
    mean: _Numbers = None,
    std: _Numbers = None,
    scale: Annotated[
        float | None, typer.Option(help="Factor after mean and std; they are on the 0..255 scale.")
    ] = None,
    channel_order: Annotated[str | None, typer.Option(help="rgb or bgr: the order the network was trained in.")] = None,
    resize: Annotated[str | None, typer.Option(help="stretch, letterbox or none.")] = None,
    resize_filter: Annotated[str | None, typer.Option(help="linear, area, cubic, nearest or pillow_bilinear.")] = None,
    align_corners: Annotated[bool | None, typer.Option(help="Of the trailing resize.")] = None,
    labels: Annotated[str | None, typer.Option(help="Label set: cityscapes, camvid, person, voc, generic.")] = None,
    parity_images: Annotated[Path | None, typer.Option(help=_help("parity_images", " A file or a folder."))] = None,
    sample: Annotated[Path | None, typer.Option(help=_help("sample"))] = None,
    min_agreement: Annotated[float | None, typer.Option(min=0.0, max=1.0, help=_help("min_agreement"))] = None,
    max_logit_error: Annotated[float | None, typer.Option(min=0.0, help=_help("max_logit_error"))] = None,
    precision: Annotated[str, typer.Option(help=_help("precision"))] = "fp32",
    calib: Annotated[Path | None, typer.Option(help=_help("calib"))] = None,
    calib_labels: Annotated[Path | None, typer.Option(help=_help("calib_labels"))] = None,
    calib_ignore: Annotated[int | None, typer.Option(min=0, max=65535, help=_help("calib_ignore"))] = None,
    calib_positive_label: Annotated[
        int | None, typer.Option(min=0, max=65535, help=_help("calib_positive_label"))
    ] = None,
    max_miou_drop: Annotated[float | None, typer.Option(min=0.0, max=1.0, help=_help("max_miou_drop"))] = None,
    force: Annotated[bool, typer.Option("--force", help=_help("force"))] = False,
    no_fuse: Annotated[bool, typer.Option("--no-fuse", help="Leave batch norms and branches to the exporter.")] = False,
    no_rewrites: Annotated[
        bool, typer.Option("--no-rewrites", help="Leave what the graph computes as it was exported.")
    ] = False,
    machine_profile: Annotated[str, typer.Option(help=_help("machine"))] = DEFAULT_PROFILE,
    skip_pass: Annotated[list[str] | None, typer.Option(help=_help("skip_passes", " May be given again."))] = None,
    passes: Annotated[
        bool, typer.Option("--passes", callback=_list_passes, is_eager=True, help="List the passes on the graph.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell what each pass on the graph did.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Export a network to a bundle, verified against fp32 PyTorch on every target."""
    from edgeseg._optional import require

    require("torch", extra="export", why="export")
    config = ExportConfig(
        targets=tuple(target or ["ort"]),
        size=optional_size(size),
        batch=fixed_batch,
        dynamic=dynamic,
        label_size=optional_size(label_size),
        output=output,
        fuse=not no_fuse,
        rewrites=not no_rewrites,
        skip_passes=tuple(skip_pass or ()),
        machine=machine_profile,
        parity_images=_pictures(parity_images),
        sample=sample,
        min_agreement=min_agreement,
        max_logit_error=max_logit_error,
        precision=precision,
        calib=calib,
        calib_labels=calib_labels,
        calib_ignore=calib_ignore,
        calib_positive_label=calib_positive_label,
        max_miou_drop=max_miou_drop,
        force=force,
    )
    conventions = {
        "input": _given(mean=mean, std=std, scale=scale, channel_order=channel_order),
        "resize": _given(mode=resize, filter=resize_filter),
        "postprocess": _given(align_corners=align_corners),
    }
    report = _run(network, weights, classes, config, conventions, labels, out, name)
    if as_json:
        _print_json(report)
    else:
        _print_report(report, network if weights is None and ":" not in network else "", verbose=verbose)


def _given(**flags: Any) -> dict[str, Any]:
    """Those flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


def _run(
    network: str,
    weights: Path | None,
    classes: int | None,
    config: ExportConfig,
    conventions: dict[str, dict[str, Any]],
    labels: str | None,
    out: Path,
    name: str | None,
) -> ExportReport:
    """Export, telling the steps on the terminal.

    Args:
        network: As on the command line.
        weights: Likewise.
        classes: Likewise.
        config: The options.
        conventions: Field of `ModelSpec` -> what the flags change of it.
        labels: Label set that was asked for.
        out: Folder of the bundle.
        name: Of the bundle.
    """
    with errors().status("starting torch") as status, results_alone_on_stdout():
        from edgeseg.export import export_model, network_source

        source = network_source(network, weights=weights, num_classes=classes)
        changed = {part: replace(getattr(source.spec, part), **flags) for part, flags in conventions.items() if flags}
        source = source.but(**changed, **_given(labels=labels))
        return export_model(source, config, out=out, name=name, progress=lambda step: _tell(status, step))


def _tell(status: Any, step: str) -> None:
    from rich.markup import escape

    status.update(escape(one_line(step)))
    if not errors().is_terminal:
        errors().print(one_line(step))


def _pictures(path: Path | None) -> tuple[Path, ...]:
    from edgeseg.sources import pictures_at

    return () if path is None else tuple(pictures_at(path))


def _print_report(report: ExportReport, random: str, *, verbose: bool) -> None:
    manifest = report.bundle.manifest
    screen = console()
    screen.print(one_line(report.path, 1000), soft_wrap=True, style="bold")
    screen.print(
        f"{one_line(manifest.network)}, {size_text(manifest.input_size)} (height x width), "
        f"{manifest.num_classes} classes, "
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
    targets = [parity.target for parity in report.parity if parity.ran and engine(parity.target).lowers_to]
    path = shlex.quote(str(report.path))
    console().print(
        f"Next:\n  edgeseg predict {path} IMAGE --target {targets[-1]}\n  edgeseg verify {path}\n"
        f"  edgeseg benchmark {path} --target {' '.join(targets)}",
        soft_wrap=True,
    )


def _print_json(report: ExportReport) -> None:
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
        "precision": None if report.precision is None else report.precision.to_json(),
        "notes": report.notes,
    }
    print_json(data, indent=2)
