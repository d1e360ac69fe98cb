"""``edgeseg predict``: pictures, folders, videos and cameras in; overlays, label maps or cutouts out."""

from __future__ import annotations

import itertools
import os
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgeseg.cli._shared import errors, print_json, target_names
from edgeseg.decoding import MAX_PIXELS
from edgeseg.errors import InputError, PartialFailureError, UsageError
from edgeseg.specs import Size, parse_size
from edgeseg.text import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgeseg.predictor import Failure, Predictor
    from edgeseg.results import Result
    from edgeseg.sources import Source
    from edgeseg.writer import ResultWriter

__all__ = ["predict"]

_Bundle = Annotated[Path, typer.Argument(help="The NAME.edgeseg folder.", show_default=False)]
_SourceArg = Annotated[
    str,
    typer.Argument(help="Image, folder, video, camera:0, rtsp://..., http://..., or gst:PIPELINE.", show_default=False),
]
_Target = Annotated[str, typer.Option("--target", "-t", help=f"Engine: {target_names(last=' or ')}.")]
_Out = Annotated[Path, typer.Option(help="Folder to write to.")]
_Overlay = Annotated[
    bool,
    typer.Option("--overlay", help="Picture under the coloured classes (what is written if nothing else is named)."),
]
_Labels = Annotated[bool, typer.Option("--labels", help="Class index per pixel, as PNG.")]
_Color = Annotated[bool, typer.Option("--color", help="Classes in their colours.")]
_Cutout = Annotated[bool, typer.Option("--cutout", help="One class cut out, the rest transparent.")]
_CutoutClass = Annotated[str, typer.Option(help="Class that --cutout keeps: name or index.")]
_Scores = Annotated[bool, typer.Option("--scores", help="Probability of the chosen class, 0..255, as PNG.")]
_Output = Annotated[str, typer.Option(help="Size of what is written: source, network, or HEIGHTxWIDTH.")]
_Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of the engine.")]
_Device = Annotated[str | None, typer.Option(help="Device or provider of the engine, such as cuda or GPU.")]
_Network = Annotated[str | None, typer.Option(help="package.module:factory of your own network, for the torch target.")]
_Recursive = Annotated[bool, typer.Option("--recursive", help="Also take the images of subfolders.")]
_Limit = Annotated[int | None, typer.Option(min=1, help="Stop after so many pictures.")]
_Opacity = Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the colours in overlays.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print failures and damage only.")]
_MaxPixels = Annotated[int, typer.Option(min=1, help="Largest height x width of a picture file, in pixels.")]
_Strict = Annotated[bool, typer.Option("--strict", help="Take damaged pictures for failures.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON line per picture on standard output.")]


@dataclass
class _Tally:
    """What was done so far."""

    done: int = 0
    failures: list[Failure] = field(default_factory=list)
    timings: dict[str, list[float]] = field(default_factory=dict)
    dropped: int = 0
    damaged: int = 0

    def add(self, result: Result) -> None:
        self.done += 1
        self.damaged += bool(result.damaged)
        for stage, spent in result.timings.items():
            self.timings.setdefault(stage, []).append(spent)

    def summary(self, out: Path) -> str:
        """One line: how many, how fast, where."""
        parts = [f"{self.done} picture{'' if self.done == 1 else 's'} in '{out}'"]
        if self.failures:
            parts.append(f"{len(self.failures)} failed")
        if self.damaged:
            parts.append(f"{self.damaged} damaged")
        if self.dropped:
            parts.append(f"{self.dropped} late ones dropped")
        medians = {stage: statistics.median(spent) for stage, spent in self.timings.items()}
        if medians:
            parts.append("median ms: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in medians.items()))
        return "; ".join(parts)


def predict(
    bundle: _Bundle,
    source: _SourceArg,
    target: _Target = "ort",
    out: _Out = Path("out"),
    overlay: _Overlay = False,
    labels: _Labels = False,
    color: _Color = False,
    cutout: _Cutout = False,
    cutout_class: _CutoutClass = "1",
    scores: _Scores = False,
    output: _Output = "source",
    threads: _Threads = None,
    device: _Device = None,
    network: _Network = None,
    recursive: _Recursive = False,
    limit: _Limit = None,
    opacity: _Opacity = 0.5,
    max_pixels: _MaxPixels = MAX_PIXELS,
    strict: _Strict = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Predict an image, a folder, a video or a camera with a bundle, and write what was found as pictures."""
    from edgeseg.predictor import Predictor
    from edgeseg.runtimes import RuntimeOptions
    from edgeseg.sources import open_source
    from edgeseg.writer import ResultWriter, class_index

    _hush_opencv()
    chosen = {"overlay": overlay, "color": color, "labels": labels, "cutout": cutout, "scores": scores}
    kinds = [kind for kind, wanted in chosen.items() if wanted] or ["overlay"]
    keep = "overlay" in kinds or "cutout" in kinds
    size, tally = _parse_output(output), _Tally()
    with (
        open_source(source, recursive=recursive, max_pixels=max_pixels, strict=strict) as frames,
        Predictor(
            bundle,
            target,
            output=size,
            scores=scores,
            keep_image=keep,
            options=RuntimeOptions(threads=threads, device=device, network=network),
        ) as predictor,
        ResultWriter(
            out, frames, kinds, opacity=opacity, cut=class_index(cutout_class, predictor.names) if cutout else 0
        ) as writer,
    ):
        _run(predictor, frames, writer, tally, limit=limit, quiet=quiet, as_json=as_json)
    if not quiet:
        _say(tally.summary(out))
    _raise_failures(tally, frames, out)


def _run(
    predictor: Predictor,
    source: Source,
    writer: ResultWriter,
    tally: _Tally,
    *,
    limit: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Predict and write picture after picture, counting into `tally`."""
    from rich.markup import escape

    from edgeseg.predictor import Failure

    for note in predictor.info.notes:
        _say(note)
    try:
        with _progress(quiet) as bar, predictor.stream(source) as stream:
            task = bar.add_task(escape(one_line(source.name, 60)), total=_total(source, limit))
            for item in itertools.islice(stream, limit):
                if isinstance(item, Failure):
                    _fail(item, tally, bar, alone=source.kind == "image", as_json=as_json)
                else:
                    _write(item, writer, tally, bar, alone=source.kind == "image", as_json=as_json)
                tally.dropped = stream.dropped
                bar.advance(task)
    except KeyboardInterrupt:
        _say(f"stopped after {tally.done} picture{'' if tally.done == 1 else 's'}")
        raise


def _write(result: Result, writer: ResultWriter, tally: _Tally, bar: Progress, *, alone: bool, as_json: bool) -> None:
    """Write a picture's files; where something stands in their place, that is this picture's failure."""
    from edgeseg.errors import ResultPathError
    from edgeseg.predictor import Failure

    try:
        files = writer.write(result)
    except ResultPathError as error:
        _fail(Failure(result.source, error), tally, bar, alone=alone, as_json=as_json)
    else:
        _done(result, files, tally, bar, as_json=as_json)


def _done(result: Result, files: list[Path], tally: _Tally, bar: Progress, *, as_json: bool) -> None:
    """Report a picture; damage is told even with --quiet, as failures are."""
    tally.add(result)
    if result.damaged:
        line = one_line(f"{result.source}: {'; '.join(result.damaged)}", 600)
        bar.console.print(f"damaged: {line}", soft_wrap=True)
    if as_json:
        timings = {stage: round(spent, 3) for stage, spent in result.timings.items()}
        shares = {name: round(share, 6) for name, share in result.shares().items()}
        written = [str(file) for file in files]
        damaged = list(result.damaged)
        _print_json(
            source=result.source,
            size=list(result.size),
            shares=shares,
            timings=timings,
            files=written,
            damaged=damaged,
        )


def _fail(failure: Failure, tally: _Tally, bar: Progress, *, alone: bool, as_json: bool) -> None:
    """Report a failure; that of a lone picture becomes the command's own error."""
    tally.failures.append(failure)
    if as_json:
        _print_json(source=failure.source, error=str(failure.error))
    if not alone:
        text, name = str(failure.error), one_line(failure.source)
        bar.console.print(f"failed: {text if name in text else f'{name}: {text}'}", soft_wrap=True)


def _raise_failures(tally: _Tally, source: Source, out: Path) -> None:
    if not tally.failures:
        return
    first, count = tally.failures[0].error, len(tally.failures)
    if source.kind == "image":
        raise first
    if tally.done == 0:
        raise InputError(f"none of the {count} pictures of '{source.name}' could be predicted; the first: {first}")
    raise PartialFailureError(
        f"{count} of {tally.done + count} pictures failed (named above); the others are in '{out}'"
    )


def _parse_output(text: str) -> Literal["source", "network"] | Size:
    if text == "source" or text == "network":
        return "source" if text == "source" else "network"
    try:
        return parse_size(text)
    except UsageError as error:
        raise UsageError(f"--output '{text}' is none of source, network and HEIGHTxWIDTH such as 512x1024") from error


def _total(source: Source, limit: int | None) -> int | None:
    known = [number for number in (source.length, limit) if number is not None]
    return min(known) if known else None


def _progress(quiet: bool) -> Progress:
    """A bar on standard error, invisible with --quiet and where that is no terminal."""
    from rich.progress import Progress

    hidden = quiet or not errors().is_terminal
    return Progress(console=errors(), transient=True, disable=hidden, redirect_stdout=False, redirect_stderr=False)


def _print_json(**values: object) -> None:
    print_json(values)


def _say(text: str) -> None:
    print(one_line(text, 1000), file=sys.stderr, flush=True)


def _hush_opencv() -> None:
    """Keep OpenCV's and FFmpeg's own messages off the terminal: edgeseg says in one sentence what went wrong."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
