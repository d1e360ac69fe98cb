"""``edgeseg export``: a network to a bundle, verified on every target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.cli import export_options as option
from edgeseg.cli._shared import errors, no_warnings, optional_size, results_alone_on_stdout
from edgeseg.cli.export_network import check_network, named_network
from edgeseg.cli.export_numbers import numbers_in
from edgeseg.cli.export_report import print_json_report, print_report
from edgeseg.cli.label_options import labelled_pictures
from edgeseg.errors import UsageError
from edgeseg.export.config import ExportConfig
from edgeseg.graph.profile import DEFAULT_PROFILE
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.export.report import ExportReport
    from edgeseg.labelled import LabelledPictures
    from edgeseg.models.source import NetworkSource
    from edgeseg.specs import InputSpec

__all__ = ["export"]

_INPUT = ("mean", "std", "scale", "channel_order")
_CONVENTIONS = {
    "resize": {"mode": "resize", "filter": "resize_filter"},
    "postprocess": {"align_corners": "align_corners"},
}
"""Field of `ModelSpec` -> its field -> the option that changes it."""


def export(
    network: option.NetworkName = None,
    config: option.Config = None,
    trust_config: option.TrustConfig = False,
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
    activation: option.Activation = None,
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
    calib_recursive: option.CalibRecursive = False,
    calib_labels: option.CalibLabels = None,
    calib_dataset: option.CalibDataset = None,
    calib_ignore: option.CalibIgnore = None,
    calib_positive_label: option.CalibPositiveLabel = None,
    calib_reduce_zero_label: option.CalibReduceZeroLabel = False,
    calib_label_map: option.CalibLabelMap = None,
    calib_label_suffix: option.CalibLabelSuffix = ".png",
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
    _run(dict(locals()))


def _run(options: Mapping[str, Any]) -> None:
    """Export, and print what was made."""
    report = _exported(options)
    if options["as_json"]:
        print_json_report(report)
        return
    from edgeseg.models.programs import names_file

    network = report.bundle.manifest.network
    random = network if options["weights"] is None and ":" not in network and not names_file(network) else ""
    print_report(report, random, verbose=options["verbose"])


def _exported(options: Mapping[str, Any]) -> ExportReport:
    """Export, telling the steps on the terminal."""
    from edgeseg._optional import require

    check_network(options, "export")
    require("torch", extra="export", why="export")
    config = _config(options)
    with errors().status("starting torch") as status, results_alone_on_stdout(), no_warnings():
        from edgeseg.export import export_model

        source, out, name = _source(options), options["out"], options["name"]
        return export_model(source, config, out=out, name=name, progress=lambda step: _tell(status, step))


def _config(options: Mapping[str, Any]) -> ExportConfig:
    """The config of the options: those whose names are its fields', and those that are written otherwise."""
    given = {entry.name: options[entry.name] for entry in fields(ExportConfig) if options.get(entry.name) is not None}
    for size in ("size", "label_size"):
        given[size] = optional_size(options[size])
    given["fuse"], given["rewrites"] = not options["no_fuse"], not options["no_rewrites"]
    if (labelled := _labelled(options)) is not None:
        given |= {"calib": labelled, "calib_recursive": False}
    return ExportConfig(**given)


def _labelled(options: Mapping[str, Any]) -> LabelledPictures | None:
    """The calibration pictures, where they have label maps."""
    begin = "calib_"
    values = {name.removeprefix(begin): value for name, value in options.items() if name.startswith(begin)}
    return labelled_pictures(options["calib"], values["labels"], values["dataset"], values, flags=option.CALIB)


def _source(options: Mapping[str, Any]) -> NetworkSource:
    """The network, with the conventions that options change."""
    source = named_network(options)
    changed: dict[str, Any] = {}
    given = {name: options[name] for name in _INPUT if options[name] is not None}
    if given:
        changed["input"] = _input(source, given, options["channels"])
    for part, names in _CONVENTIONS.items():
        flags = {field: options[flag] for field, flag in names.items() if options[flag] is not None}
        if flags:
            changed[part] = replace(getattr(source.spec, part), **flags)
    if options["labels"] is not None:
        changed["labels"] = options["labels"]
    if options["config"] is not None:
        source = replace(source, notes=source.notes + _in_place_of_config(options))
    return source.but(**changed)


def _in_place_of_config(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Say which options of the command line go before what the config says."""
    conventions = (*_INPUT, *(flag for names in _CONVENTIONS.values() for flag in names.values()))
    names = ("size", "channels", "activation", "threshold", "labels", *conventions)
    given = [f"--{name.replace('_', '-')}" for name in names if options[name] is not None]
    return (f"in place of what the config says: {', '.join(given)}",) if given else ()


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


def _tell(status: Any, step: str) -> None:
    from rich.markup import escape

    status.update(escape(one_line(step)))
    if not errors().is_terminal:
        errors().print(one_line(step), soft_wrap=True)
