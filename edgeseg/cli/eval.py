"""``edgeseg eval``: accuracy of a bundle on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli._shared import console, errors, print_json, table
from edgeseg.cli.options import BundleFolder, Device, Json, MaxPixels, Network, Strict, Threads
from edgeseg.decoding import MAX_PIXELS
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.evaluation import Evaluation

__all__ = ["evaluate"]


_Images = Annotated[Path | None, typer.Option(help="Folder of pictures.", show_default=False)]
_Labels = Annotated[
    Path | None,
    typer.Option(
        help="Folder of label maps, same stem: PNG with class indices, a colour table, or the classes' colours.",
        show_default=False,
    ),
]
_Dataset = Annotated[
    tuple[str, Path] | None,
    typer.Option(
        "--dataset",
        metavar="NAME ROOT",
        help="A data set as downloaded, instead of two folders: cityscapes, ade20k, voc, camvid or binary.",
        show_default=False,
    ),
]
_ReduceZeroLabel = Annotated[
    bool, typer.Option("--reduce-zero-label", help="Label 0 is void and k + 1 means class k, as in ADE20K.")
]
_LabelMap = Annotated[
    Path | None, typer.Option("--label-map", help="JSON or CSV: label value or #RRGGBB to class or void.")
]
_LabelSuffix = Annotated[str, typer.Option("--label-suffix", help="End of label maps' names after the stem.")]
_Target = Annotated[str, typer.Option("--target", "-t", help="Where to run.")]
_Ignore = Annotated[int | None, typer.Option(min=0, max=65535, help="Label value of void pixels.")]
_PositiveLabel = Annotated[int | None, typer.Option(min=0, max=65535, help="Label value of class 1, such as 255.")]
_Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N pictures.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def evaluate(
    bundle: BundleFolder,
    images: _Images = None,
    labels: _Labels = None,
    target: _Target = "ort",
    ignore: _Ignore = None,
    positive_label: _PositiveLabel = None,
    threads: Threads = None,
    device: Device = None,
    network: Network = None,
    limit: _Limit = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    strict: Strict = False,
    as_json: Json = False,
    quiet: _Quiet = False,
    dataset: _Dataset = None,
    reduce_zero_label: _ReduceZeroLabel = False,
    label_map: _LabelMap = None,
    label_suffix: _LabelSuffix = ".png",
) -> None:
    """Score a bundle: mIoU, class accuracy and pixel accuracy, with void ignored and with void counted as an error."""
    from edgeseg.errors import PartialFailureError
    from edgeseg.evaluation import LabelledPictures, evaluate_bundle
    from edgeseg.runtimes import RuntimeOptions

    images, labels, name = _places(images, labels, dataset)
    data = LabelledPictures(
        *(images, labels, ignore, positive_label, limit, max_pixels, strict),
        *(reduce_zero_label, label_map, label_suffix, name),
    )
    options = RuntimeOptions(threads=threads, device=device, network=network)
    with errors().status("opening") as status:

        def show_progress(done: int, total: int) -> None:
            if not quiet:
                status.update(f"{done} of {total} pictures")

        result = evaluate_bundle(bundle, data, target=target, options=options, progress=show_progress)
    if as_json:
        print_json(result.to_json(), indent=2)
    else:
        _print_scores(result)
    _print_notes(result)
    if result.failures:
        count, total = len(result.failures), len(result.failures) + result.images
        raise PartialFailureError(f"{count} of {total} pictures failed (named above); the others were scored")


def _places(
    images: Path | None, labels: Path | None, dataset: tuple[str, Path] | None
) -> tuple[Path, Path, str | None]:
    """Choose between two folders and a data set."""
    from edgeseg.errors import UsageError

    if dataset is not None:
        if images is not None or labels is not None:
            raise UsageError("--dataset NAME ROOT finds both folders itself; leave --images and --labels out")
        return dataset[1], dataset[1], dataset[0]
    if images is None or labels is None:
        raise UsageError("give --images and --labels, or --dataset NAME ROOT (edgeseg eval --help)")
    return images, labels, None


def _print_notes(result: Evaluation) -> None:
    """Name the damaged pictures, the failed ones, and how label values were read, on standard error."""
    for word, listed in (("damaged", result.damaged), ("failed", result.failures)):
        for picture, reason in listed:
            name, why = one_line(picture), one_line(reason, 1000)
            errors().print(f"{word}: {why if name in why else f'{name}: {why}'}", soft_wrap=True)
    for note in result.notes:
        errors().print(f"note: {one_line(note, 1000)}", soft_wrap=True)


def _print_scores(result: Evaluation) -> None:
    listed = table("class", "IoU %", "accuracy %", "pixels", right=("IoU %", "accuracy %", "pixels"))
    for row in result.rows():
        listed.add_row(row["name"], _per_cent(row["iou"]), _per_cent(row["accuracy"]), str(row["pixels"]))
    console().print(listed)
    console().print(f"{result.images} pictures on {result.target}, {result.engine}")
    for title, scores in result.scores().items():
        words = ", ".join(f"{name} {100 * value:.2f} %" for name, value in scores.items())
        console().print(f"{title}: {words}")


def _per_cent(value: Any) -> str:
    return "-" if value is None or value != value else f"{100 * value:.2f}"
