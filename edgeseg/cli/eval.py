"""``edgeseg eval``: accuracy of a bundle on labelled pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli._shared import console, errors, print_json, table
from edgeseg.cli.engine_options import runtime_options
from edgeseg.cli.label_options import label_option, labelled_pictures
from edgeseg.cli.options import BundleFolder, Device, EngineOption, Json, MaxPixels, Network, Strict, Threads
from edgeseg.decoding import MAX_PIXELS
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.evaluation import Evaluation
    from edgeseg.labelled import LabelledPictures

__all__ = ["evaluate"]


_Images = Annotated[Path | None, typer.Option(help="Folder of pictures.", show_default=False)]
_Labels = Annotated[Path | None, label_option("labels", show_default=False)]
_Dataset = Annotated[tuple[str, Path] | None, label_option("dataset", metavar="NAME ROOT", show_default=False)]
_ReduceZeroLabel = Annotated[bool, label_option("reduce_zero_label")]
_LabelMap = Annotated[Path | None, label_option("label_map")]
_LabelSuffix = Annotated[str, label_option("label_suffix")]
_Recursive = Annotated[bool, label_option("recursive")]
_Ignore = Annotated[int | None, label_option("ignore", min=0, max=65535)]
_PositiveLabel = Annotated[int | None, label_option("positive_label", min=0, max=65535)]
_Target = Annotated[str, typer.Option("--target", "-t", help="Where to run.")]
_Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N pictures.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def evaluate(
    bundle: BundleFolder,
    images: _Images = None,
    labels: _Labels = None,
    dataset: _Dataset = None,
    recursive: _Recursive = False,
    ignore: _Ignore = None,
    positive_label: _PositiveLabel = None,
    reduce_zero_label: _ReduceZeroLabel = False,
    label_map: _LabelMap = None,
    label_suffix: _LabelSuffix = ".png",
    target: _Target = "ort",
    threads: Threads = None,
    device: Device = None,
    network: Network = None,
    engine_option: EngineOption = None,
    limit: _Limit = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    strict: Strict = False,
    as_json: Json = False,
    quiet: _Quiet = False,
) -> None:
    """Score a bundle: IoU (mean, weighted, of boundaries) and accuracy, void ignored and counted as an error."""
    from edgeseg.errors import PartialFailureError

    result = _evaluated(dict(locals()))
    if as_json:
        print_json(result.to_json(), indent=2)
    else:
        _print_scores(result)
    _print_notes(result)
    if result.failures:
        count, total = len(result.failures), len(result.failures) + result.images
        raise PartialFailureError(f"{count} of {total} pictures failed (named above); the others were scored")


def _evaluated(options: Mapping[str, Any]) -> Evaluation:
    """Evaluate, telling the number of pictures on the terminal."""
    from edgeseg.evaluation import evaluate_bundle

    data = _labelled(options)
    named = {name: options[name] for name in ("threads", "device", "network")}
    runtime = runtime_options(options["engine_option"], **named)
    with errors().status("opening") as status:

        def show_progress(done: int, total: int) -> None:
            if not options["quiet"]:
                status.update(f"{done} of {total} pictures")

        target, bundle = options["target"], options["bundle"]
        return evaluate_bundle(bundle, data, target=target, options=runtime, progress=show_progress)


def _labelled(options: Mapping[str, Any]) -> LabelledPictures:
    from edgeseg.errors import UsageError

    data = labelled_pictures(options["images"], options["labels"], options["dataset"], options)
    if data is None:
        raise UsageError("give --images and --labels, or --dataset NAME ROOT (edgeseg eval --help)")
    return replace(data, **{name: options[name] for name in ("limit", "max_pixels", "strict")})


def _print_notes(result: Evaluation) -> None:
    """Name the damaged pictures, the failed ones, and how label values were read, on standard error."""
    for word, listed in (("damaged", result.damaged), ("failed", result.failures)):
        for picture, reason in listed:
            name, why = one_line(picture), one_line(reason, 1000)
            errors().print(f"{word}: {why if name in why else f'{name}: {why}'}", soft_wrap=True)
    for note in result.notes:
        errors().print(f"note: {one_line(note, 1000)}", soft_wrap=True)


def _print_scores(result: Evaluation) -> None:
    figures = ("IoU %", "boundary IoU %", "accuracy %", "pixels")
    listed = table("class", *figures, right=figures)
    for row in result.rows():
        shares = (_per_cent(row[name]) for name in ("iou", "boundary_iou", "accuracy"))
        listed.add_row(row["name"], *shares, str(row["pixels"]))
    screen = console()
    screen.print(listed)
    screen.print(f"{result.images} pictures on {result.target}, {result.engine}")
    if result.absent:
        screen.print(
            f"{result.absent} of {len(result.names)} classes are neither labelled nor predicted, and in no mean"
        )
    intervals = result.intervals()
    for title, scores in result.scores().items():
        around = intervals.get(title, {})
        words = ", ".join(f"{name} {_share(value, around.get(name))}" for name, value in scores.items())
        screen.print(f"{title}: {words}", soft_wrap=True)
    screen.print(_about_intervals(result.images))


def _share(value: float, around: tuple[float, float] | None) -> str:
    """Write a score, and its interval where it has one."""
    low_high = "" if around is None else f" ({100 * around[0]:.2f} to {100 * around[1]:.2f})"
    return f"{100 * value:.2f} %{low_high}"


def _about_intervals(images: int) -> str:
    from edgeseg.intervals import FEWEST, RESAMPLES, SHARE

    if images < FEWEST:
        return (
            f"no intervals: resampling needs {FEWEST} pictures, and {images} {'was' if images == 1 else 'were'} scored"
        )
    return f"in brackets: the range of {100 * SHARE:.0f} % of {RESAMPLES} resamplings of the pictures"


def _per_cent(value: Any) -> str:
    return "-" if value is None or value != value else f"{100 * value:.2f}"
