"""``edgeseg export``: a network to a bundle, verified on every target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.cli import export_options as option
from edgeseg.cli._shared import errors, optional_size, results_alone_on_stdout
from edgeseg.cli.export_numbers import numbers_in
from edgeseg.cli.export_report import print_json_report, print_report
from edgeseg.errors import UsageError
from edgeseg.export.config import ExportConfig
from edgeseg.graph.profile import DEFAULT_PROFILE
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.export.report import ExportReport
    from edgeseg.models.source import NetworkSource
    from edgeseg.specs import InputSpec

__all__ = ["export"]

_CONVENTIONS = {
    "resize": {"mode": "resize", "filter": "resize_filter"},
    "postprocess": {"align_corners": "align_corners"},
}
"""Field of `ModelSpec` -> its field -> the option that changes it."""


def export(
    network: option.NetworkName,
    weights: option.Weights = None,
    weights_key: option.WeightsKey = None,
    targets: option.Targets = None,
    size: option.GraphSize = None,
    channels: option.Channels = None,
    out: option.Out = Path(),
    name: option.Name = None,
    classes: option.Classes = None,
    batch: option.Batch = 1,
    dynamic: option.Dynamic = False,
    label_size: option.LabelSize = None,
    output: option.Output = "logits",
    take: option.Take = None,
    threshold: option.Threshold = None,
    mean: option.Numbers = None,
    std: option.Numbers = None,
    scale: option.Scale = None,
    channel_order: option.ChannelOrder = None,
    resize: option.Resize = None,
    resize_filter: option.ResizeFilter = None,
    align_corners: option.AlignCorners = None,
    labels: option.Labels = None,
    parity_images: option.ParityImages = None,
    sample: option.Sample = None,
    min_agreement: option.MinAgreement = None,
    max_logit_error: option.MaxLogitError = None,
    precision: option.Precision = "fp32",
    calib: option.Calib = None,
    calib_labels: option.CalibLabels = None,
    calib_ignore: option.CalibIgnore = None,
    calib_positive_label: option.CalibPositiveLabel = None,
    calib_reduce_zero_label: option.CalibReduceZeroLabel = False,
    max_miou_drop: option.MaxMiouDrop = None,
    force: option.Force = False,
    no_fuse: option.NoFuse = False,
    no_rewrites: option.NoRewrites = False,
    machine: option.Machine = DEFAULT_PROFILE,
    skip_passes: option.SkipPasses = None,
    passes: option.ListPasses = False,
    verbose: option.Verbose = False,
    as_json: option.Json = False,
) -> None:
    """Export a network to a bundle, verified against fp32 PyTorch on every target."""
    _export(dict(locals()))


def _export(options: Mapping[str, Any]) -> None:
    _print(_exported(options), options)


def _exported(options: Mapping[str, Any]) -> ExportReport:
    """Export, telling the steps on the terminal."""
    from edgeseg._optional import require

    require("torch", extra="export", why="export")
    config = _config(options)
    with errors().status("starting torch") as status, results_alone_on_stdout():
        from edgeseg.export import export_model

        source, out, name = _source(options), options["out"], options["name"]
        return export_model(source, config, out=out, name=name, progress=lambda step: _tell(status, step))


def _config(options: Mapping[str, Any]) -> ExportConfig:
    """The config of the options: those whose names are its fields', and those that are written otherwise."""
    given = {entry.name: options[entry.name] for entry in fields(ExportConfig) if options.get(entry.name) is not None}
    for size in ("size", "label_size"):
        given[size] = optional_size(options[size])
    given["fuse"], given["rewrites"] = not options["no_fuse"], not options["no_rewrites"]
    return ExportConfig(**given)


def _source(options: Mapping[str, Any]) -> NetworkSource:
    """The network, with the conventions that options change."""
    from edgeseg.models.source import resolve_network

    source = resolve_network(
        options["network"],
        weights=options["weights"],
        weights_key=options["weights_key"],
        num_classes=options["classes"],
    )
    changed: dict[str, Any] = {}
    given = {name: options[name] for name in ("mean", "std", "scale", "channel_order") if options[name] is not None}
    if given:
        changed["input"] = _input(source, given, options["channels"])
    for part, names in _CONVENTIONS.items():
        flags = {field: options[flag] for field, flag in names.items() if options[flag] is not None}
        if flags:
            changed[part] = replace(getattr(source.spec, part), **flags)
    if options["labels"] is not None:
        changed["labels"] = options["labels"]
    return source.but(**changed)


def _input(source: NetworkSource, given: dict[str, Any], channels: int | None) -> InputSpec:
    """The input of the options, of as many channels as they say; one number of a mean or std counts for all of them.

    Raises:
        UsageError: They say different numbers of channels, or only one of mean and std for another number than before.
    """
    base = source.spec.input
    numbers = {name: numbers_in(f"--{name}", given[name]) for name in ("mean", "std") if name in given}
    counts = {len(values) for values in numbers.values()} - {1}
    if len(counts | ({channels} if channels else set())) > 1:
        said = [f"--{name} has {len(values)}" for name, values in numbers.items()]
        said += [f"--channels is {channels}"] if channels else []
        raise UsageError(f"{', '.join(said)}; give one number per channel, or one for all")
    free = len(numbers) == 2 and not source.registered and given.get("channel_order", base.channel_order) == "rgb"
    count = channels or next(iter(counts), 1 if free else base.channels)  # free: the network says how many
    if count != base.channels and len(numbers) < 2:
        raise UsageError(
            f"mean and std of {base.channels} channels are known, and {count} asked for; give both --mean and --std"
        )
    changes: dict[str, Any] = {name: values * (count // len(values)) for name, values in numbers.items()}
    return replace(base, **(given | changes))


def _print(report: ExportReport, options: Mapping[str, Any]) -> None:
    if options["as_json"]:
        print_json_report(report)
        return
    network = options["network"]
    random = network if options["weights"] is None and ":" not in network else ""
    print_report(report, random, verbose=options["verbose"])


def _tell(status: Any, step: str) -> None:
    from rich.markup import escape

    status.update(escape(one_line(step)))
    if not errors().is_terminal:
        errors().print(one_line(step))
