"""``edgeseg benchmark BUNDLE``: latency per stage and target; ``edgeseg benchmark compare``: did it change?

``edgeseg benchmark profile FILE`` measures the machine itself, for `edgeseg export --machine-profile`.

`benchmark_app` is the command to mount. It is a group whose command ``run`` may be left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from edgeseg.cli._shared import console, errors, print_json, split_targets, table
from edgeseg.cli.engine_options import runtime_options
from edgeseg.cli.options import BundleFolder, Device, EngineOption, Network, Quiet, Threads
from edgeseg.errors import EdgesegError, PartialFailureError
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.bench.compare import Comparison, StageChange
    from edgeseg.bench.profile import Figure, MeasuredProfile
    from edgeseg.bench.report import BenchmarkReport
    from edgeseg.bench.stats import Summary

__all__ = ["benchmark", "benchmark_app", "compare", "profile"]

_VERDICT_STYLES = {"slower": "bold red", "faster": "bold green", "unclear": "yellow", "no difference": ""}
_LINE = 1000  # characters of a printed line at most


class DefaultRunGroup(TyperGroup):
    """A group that reads ``benchmark BUNDLE ...`` as ``benchmark run BUNDLE ...``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command in front where none is named."""
        named = bool(args) and args[0] in self.commands
        rest: list[str] = super().parse_args(ctx, args if named else ["run", *args])
        return rest


benchmark_app = typer.Typer(
    cls=DefaultRunGroup,
    help="Measure a bundle's latency, from picture file to labels; `benchmark compare` compares two measurements.",
    rich_markup_mode=None,
)


_Targets = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="Engines to measure, one after the other; commas work too. Default: ort."),
]
_Images = Annotated[Path | None, typer.Option(help="Picture or folder of pictures; default: the bundle's own.")]
_Precision = Annotated[str | None, typer.Option(help="OpenVINO inference precision: f32, bf16 or f16.")]
_MinSamples = Annotated[
    int | None, typer.Option(min=1, help="Frames measured at the least; default 50, or --max-samples if that is less.")
]
_MaxSamples = Annotated[
    int | None, typer.Option(min=1, help="Frames measured at the most; default 1000, at least --min-samples.")
]
_Seconds = Annotated[float, typer.Option(min=0.0, help="Seconds measured, if that gives enough frames.")]
_Save = Annotated[Path | None, typer.Option(help="File for the report, raw samples included.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON, raw samples included.")]
_InProcess = Annotated[bool, typer.Option("--in-process", help="No process of its own per target.")]


@benchmark_app.command("run")
def benchmark(
    bundle: BundleFolder,
    target: _Targets = None,
    images: _Images = None,
    threads: Threads = None,
    device: Device = None,
    precision: _Precision = None,
    network: Network = None,
    engine_option: EngineOption = None,
    min_samples: _MinSamples = None,
    max_samples: _MaxSamples = None,
    seconds: _Seconds = 10.0,
    save: _Save = None,
    as_json: _Json = False,
    in_process: _InProcess = False,
    quiet: Quiet = False,
) -> None:
    """Measure a bundle's latency, from picture file to labels at the picture's size.

    `edgeseg benchmark compare BEFORE.json AFTER.json` compares two measurements; `edgeseg benchmark profile FILE`
    measures the machine for `edgeseg export --machine-profile`.
    """
    from edgeseg.bench.report import save_reports, to_json
    from edgeseg.sources import pictures_at

    named = {"threads": threads, "device": device, "precision": precision, "network": network}
    options: dict[str, Any] = dict(vars(runtime_options(engine_option, **named)))
    options |= {"in_process": in_process, "seconds": seconds, **_sample_limits(min_samples, max_samples)}
    options["images"] = None if images is None else pictures_at(images)
    reports: list[BenchmarkReport] = []
    try:
        names = split_targets(target or ["ort"])
        failures = _measure_all(bundle, names, options, reports, quiet=quiet or as_json)
    finally:
        if save is not None and reports:
            save_reports(save, reports)
    if as_json and reports:
        print_json(to_json(reports), indent=1)
    if failures and not reports:
        raise next(iter(failures.values()))
    if failures:
        raise PartialFailureError(
            f"could not measure {', '.join(failures)} (see above); the other targets were measured"
        )


def _sample_limits(least: int | None, most: int | None) -> dict[str, int]:
    """Least and most frames to measure; each default gives way to the other option."""
    least = least or min(50, most or 50)
    return {"min_samples": least, "max_samples": most or max(1000, least)}


@benchmark_app.command("compare")
def compare(
    before: Annotated[Path, typer.Argument(help="Report of the earlier measurement.")],
    after: Annotated[Path, typer.Argument(help="Report of the later measurement.")],
    max_regression: Annotated[float, typer.Option(min=0.0, help="Per cent a total may become slower.")] = 5.0,
    any_machine: Annotated[bool, typer.Option("--any-machine", help="Compare though the machines differ.")] = False,
    save: Annotated[Path | None, typer.Option(help="File for the comparison.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare two reports of `edgeseg benchmark --save`; ends with code 10 where a total became slower."""
    from edgeseg.bench.compare import compare_reports
    from edgeseg.bench.report import load_reports
    from edgeseg.files import write_text

    comparison = compare_reports(
        load_reports(before), load_reports(after), threshold=max_regression / 100.0, any_machine=any_machine
    )
    if save is not None:
        write_text(save, json.dumps(comparison.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if as_json:
        print_json(comparison.to_json(), indent=1)
    elif not quiet:
        _print_comparison(comparison)
    comparison.check()


@benchmark_app.command("profile")
def profile(
    file: Annotated[Path, typer.Argument(help="File for the profile, which export --machine-profile takes.")],
    name: Annotated[str | None, typer.Option(help="Name of the profile; default the class of the processor.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default every core, beside one.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Seconds measured, if that gives enough repeats.")] = 10.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Measure what ONNX Runtime computes and moves per second on this machine's CPU, for exports meant for it."""
    from edgeseg.bench.profile import measure_profile, save_profile

    tell = None if quiet else lambda step: errors().print(f"{step} ...", soft_wrap=True)
    measured = measure_profile(name=name, threads=threads, seconds=seconds, progress=tell)
    save_profile(file, measured)
    if not quiet:
        _print_profile(measured, file)


def _measure_all(
    bundle: Path, targets: list[str], options: dict[str, Any], reports: list[BenchmarkReport], *, quiet: bool
) -> dict[str, EdgesegError]:
    """Measure one target after the other, adding to `reports`; return the error of each that failed."""
    from edgeseg.bench.harness import benchmark as measure

    failures: dict[str, EdgesegError] = {}
    for target in targets:
        if not quiet:  # one line and no spinner: a spinner would run on the cores that are being measured
            errors().print(f"measuring {one_line(bundle.name)} on {target} ...", soft_wrap=True)
        try:
            report = measure(bundle, target, **options)
        except EdgesegError as error:
            failures[target] = error
            if len(targets) > 1:
                errors().print(f"{target}: {error}", style="red", soft_wrap=True)
            continue
        reports.append(report)
        if not quiet:
            _print_report(report)
    if reports and not quiet:
        _print_line(f"machine: {reports[0].machine.line()}")
    return failures


def _print_report(report: BenchmarkReport) -> None:
    figures = ("p50 [95 % CI]", "p90", "p95", "p99", "mean", "min")
    listed = table("ms", *figures, right=figures)
    for stage, summary in report.stages.items():
        listed.add_row(stage, *_cells(summary), style="bold" if stage == "total" else "")
    _print_line(_title(report), "bold")
    console().print(listed)
    for line in _lines(report):
        _print_line(line)
    for warning in report.warnings:
        _print_line(f"warning: {warning}", "yellow")


def _print_line(text: str, style: str = "") -> None:
    """Print text in one line."""
    console().print(one_line(text, _LINE), style=style, soft_wrap=True)


def _title(report: BenchmarkReport) -> str:
    height, width = report.bundle.input_size
    return f"{report.bundle.name} on {report.target}, {height}x{width} {report.bundle.precision}"


def _cells(summary: Summary) -> tuple[str, ...]:
    middle = f"{summary.p50:.2f} [{summary.ci_low:.2f}, {summary.ci_high:.2f}]"
    return middle, *(f"{value:.2f}" for value in (summary.p90, summary.p95, summary.p99, summary.mean, summary.min))


def _lines(report: BenchmarkReport) -> tuple[str, ...]:
    session, memory, warmup = report.session, report.memory, report.warmup
    threads = "threads by the engine" if session.threads is None else f"{session.threads} thread(s)"
    sizes = ", ".join(f"{height}x{width}" for height, width in report.source_sizes[:3])
    more = " and others" if len(report.source_sizes) > 3 else ""
    frames = len(report.samples["total"])
    return (
        f"ran: {session.engine}, {session.device}, {session.precision}, {threads}",
        f"{frames} frames of {report.images} picture(s) at {sizes}{more}: {report.throughput:.1f} frames/s one by one; "
        f"warm-up {warmup.frames} frames, {'stable' if warmup.stable else 'not stable'}",
        f"load {report.load_ms:.0f} ms, first frame {report.first_ms:.1f} ms (infer {report.first_infer_ms:.1f} ms)",
        *(() if report.engine is None else (report.engine.line(),)),
        f"memory: {_mib(memory.before_mib)} before, {_mib(memory.loaded_mib)} loaded, {_mib(memory.peak_mib)} peak",
    )


def _print_profile(measured: MeasuredProfile, file: Path) -> None:
    columns = [f"{taken.threads} thread(s)" for taken in measured.measurements]
    listed = table("median, spread of the quartiles", *columns, right=tuple(columns))
    for figure in measured.measurements[0].figures:
        listed.add_row(figure, *(_rate(figure, taken.figures[figure]) for taken in measured.measurements))
    console().print(listed)
    for warning in measured.warnings:
        _print_line(f"warning: {warning}", "yellow")
    _print_line(f"machine: {measured.machine.line()}")
    _print_line(f"profile '{measured.profile.name}', for: edgeseg export NAME --machine-profile {quote(str(file))}")


def _rate(name: str, figure: Figure) -> str:
    shown = f"{figure.median * 1e6:.2f} us" if name == "node_seconds" else f"{figure.median / 1e9:.2f} G/s"
    return f"{shown}, {100 * figure.spread:.0f} %"


def _mib(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} MiB"


def _print_comparison(comparison: Comparison) -> None:
    figures = ("before ms", "after ms", "ratio [95 % CI]", "p value")
    for bundle, target in dict.fromkeys((change.bundle, change.target) for change in comparison.changes):
        listed = table("p50", *figures, "verdict", right=figures)
        for change in comparison.changes:
            if (change.bundle, change.target) == (bundle, target):
                listed.add_row(*_change_cells(change), style=_VERDICT_STYLES[change.verdict])
        _print_line(f"{bundle} on {target}", "bold")
        console().print(listed)
    for line in _comparison_lines(comparison):
        _print_line(line)


def _change_cells(change: StageChange) -> tuple[str, ...]:
    ratio = f"{change.ratio:.3f} [{change.ratio_low:.3f}, {change.ratio_high:.3f}]"
    return (
        change.stage,
        f"{change.before_ms:.2f}",
        f"{change.after_ms:.2f}",
        ratio,
        f"{change.p_value:.2g}",
        change.verdict,
    )


def _comparison_lines(comparison: Comparison) -> list[str]:
    lines = [f"other machine: {text}" for text in comparison.machine_differences]
    lines += [f"only in the first file: {text}" for text in comparison.only_before]
    lines += [f"only in the second file: {text}" for text in comparison.only_after]
    lines += [f"note: {text}" for text in comparison.notes]
    return lines
