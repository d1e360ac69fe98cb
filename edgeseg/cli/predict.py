"""``edgeseg predict``: pictures, folders, videos and cameras in; overlays, label maps or cutouts out."""

from __future__ import annotations

import itertools
import os
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgeseg.cli._shared import errors, print_json, target_names
from edgeseg.cli.engine_options import runtime_options
from edgeseg.cli.options import BundleFolder, Device, EngineOption, Limit, MaxPixels, Network, Strict, Threads
from edgeseg.decoding import MAX_PIXELS
from edgeseg.errors import InputError, PartialFailureError, UsageError
from edgeseg.runtimes.registry import BUILT_IN
from edgeseg.specs import Size, parse_size
from edgeseg.text import one_line, shown_name

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgeseg.bundle import Bundle
    from edgeseg.predictor import Failure, Predictor
    from edgeseg.results import Result
    from edgeseg.sources import Source
    from edgeseg.writer import ResultWriter

__all__ = ["predict"]

_Sources = Annotated[
    list[str],
    typer.Argument(
        help="Images, folders, patterns ('*.png', img_%04d.png) and lists (.txt), as many as you like; or one video, "
        "camera:0, rtsp://..., http://..., or gst:PIPELINE.",
        show_default=False,
    ),
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
_Recursive = Annotated[bool, typer.Option("--recursive", help="Also take the images of subfolders.")]
_Opacity = Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the colours in overlays.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print failures and damage only.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON line per picture on standard output.")]

_NAMED = 3  # pictures that a note names


@dataclass
class _Tally:
    """Counts and timings of the pictures so far."""

    done: int = 0
    failures: list[Failure] = field(default_factory=list)
    timings: dict[str, list[float]] = field(default_factory=dict)
    dropped: int = 0
    damaged: int = 0
    noted: dict[str, list[str]] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        self.done += 1
        for note in result.notes:
            self.noted.setdefault(note, []).append(result.source)
        self.damaged += bool(result.damaged)
        for stage, spent in result.timings.items():
            self.timings.setdefault(stage, []).append(spent)

    def notes(self) -> list[str]:
        """Say in one line each what the pictures' files hold that was left out."""
        said = []
        for note, names in self.noted.items():
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            said.append(f"note: {', '.join(shown_name(name) for name in names[:_NAMED])}{more}: {note}")
        return said

    def summary(self, out: Path) -> str:
        """Say in one line how many pictures there were, how fast, and where they are."""
        parts = [f"{_pictures(self.done)} in '{out}'"]
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


@dataclass
class _Reporter:
    """Writes results and reports on each picture.

    Attributes:
        tally: Counts the pictures.
        writer: Writes the files.
        bar: Whose console takes notices.
        alone: Whether the source is a single picture: its failure becomes the command's own error.
        as_json: Print a JSON line per picture.
    """

    tally: _Tally
    writer: ResultWriter
    bar: Progress
    alone: bool
    as_json: bool

    def take(self, item: Result | Failure) -> None:
        """Write a result, or report a failure. A result whose place is taken by something else is a failure."""
        from edgeseg.errors import ResultPathError
        from edgeseg.predictor import Failure

        if isinstance(item, Failure):
            self._report_failure(item)
            return
        try:
            files = self.writer.write(item)
        except ResultPathError as error:
            self._report_failure(Failure(item.source, error))
        else:
            self._report(item, files)

    def _report(self, result: Result, files: list[Path]) -> None:
        """Count a picture; name damage, like failures, also with --quiet."""
        self.tally.add(result)
        if result.damaged:
            line = f"{shown_name(result.source)}: {one_line('; '.join(result.damaged), 600)}"
            self.bar.console.print(f"damaged: {line}", soft_wrap=True)
        if self.as_json:
            print_json(
                {
                    "source": result.source,
                    "size": list(result.size),
                    "shares": {name: round(share, 6) for name, share in result.shares().items()},
                    "timings": {stage: round(spent, 3) for stage, spent in result.timings.items()},
                    "files": [str(file) for file in files],
                    "damaged": list(result.damaged),
                    "notes": list(result.notes),
                }
            )

    def _report_failure(self, failure: Failure) -> None:
        self.tally.failures.append(failure)
        if self.as_json:
            print_json({"source": failure.source, "error": str(failure.error)})
        if not self.alone:
            text, name = str(failure.error), shown_name(failure.source)
            self.bar.console.print(f"failed: {text if name in text else f'{name}: {text}'}", soft_wrap=True)


def predict(
    bundle: BundleFolder,
    source: _Sources,
    target: _Target = "ort",
    out: _Out = Path("out"),
    overlay: _Overlay = False,
    labels: _Labels = False,
    color: _Color = False,
    cutout: _Cutout = False,
    cutout_class: _CutoutClass = "1",
    scores: _Scores = False,
    output: _Output = "source",
    threads: Threads = None,
    device: Device = None,
    network: Network = None,
    engine_option: EngineOption = None,
    recursive: _Recursive = False,
    limit: Limit = None,
    opacity: _Opacity = 0.5,
    max_pixels: MaxPixels = MAX_PIXELS,
    strict: Strict = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Predict an image, a folder, a video or a camera with a bundle, and write the results as pictures."""
    from edgeseg.bundle import open_bundle
    from edgeseg.predictor import Predictor
    from edgeseg.writer import ResultWriter, class_index

    _refuse_targets(source)
    _silence_opencv()
    flags = {"overlay": overlay, "color": color, "labels": labels, "cutout": cutout, "scores": scores}
    kinds = [kind for kind, wanted in flags.items() if wanted] or ["overlay"]
    keep = "overlay" in kinds or "cutout" in kinds
    size, tally = _parse_output(output), _Tally()
    options = runtime_options(engine_option, threads=threads, device=device, network=network)
    opened = open_bundle(bundle)
    with (
        _frames(source, opened, recursive=recursive, max_pixels=max_pixels, strict=strict) as frames,
        Predictor(opened, target, output=size, scores=scores, keep_image=keep, options=options) as predictor,
        ResultWriter(
            out, frames, kinds, opacity=opacity, cut=class_index(cutout_class, predictor.names) if cutout else 0
        ) as writer,
    ):
        _run(predictor, frames, writer, tally, limit=limit, quiet=quiet, as_json=as_json)
    _say_all([] if quiet else [*tally.notes(), tally.summary(out)])
    _raise_failures(tally, frames, out)


def _refuse_targets(sources: list[str]) -> None:
    """Refuse a target's name among the sources: `predict` takes one target, where other commands take several."""
    targets = {word for record in BUILT_IN for word in record.words}
    for word in sources:
        if word in targets and not os.path.lexists(word):
            raise UsageError(
                f"'{word}' would be a source here, and no such path exists; give one target, as in --target {word} "
                "(edgeseg predict --help)"
            )


def _frames(source: list[str], bundle: Bundle, **reading: Any) -> Source:
    """Open a source of pictures of as many channels as the network of a bundle takes."""
    from edgeseg.sources import open_source

    return open_source(source, channels=bundle.manifest.input.image_channels, **reading)


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

    _say_all([*predictor.info.notes, *([] if quiet else source.notes)])
    try:
        with _progress(quiet) as bar, predictor.stream(source) as stream:
            reporter = _Reporter(tally, writer, bar, alone=source.kind == "image", as_json=as_json)
            task = bar.add_task(escape(one_line(source.name, 60)), total=_total(source, limit))
            for item in itertools.islice(stream, limit):
                reporter.take(item)
                tally.dropped = stream.dropped
                bar.advance(task)
    except KeyboardInterrupt:
        _say(f"stopped after {_pictures(tally.done)}")
        raise


def _raise_failures(tally: _Tally, source: Source, out: Path) -> None:
    if not tally.failures:
        return
    first, count = tally.failures[0].error, len(tally.failures)
    if source.kind == "image":
        raise first
    if tally.done == 0:
        name = shown_name(source.name)
        raise InputError(f"none of the {count} pictures of '{name}' could be predicted; the first: {first}")
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
    """Make a bar on standard error, invisible with --quiet and where that is no terminal."""
    from rich.progress import Progress

    hidden = quiet or not errors().is_terminal
    return Progress(console=errors(), transient=True, disable=hidden, redirect_stdout=False, redirect_stderr=False)


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _say(text: str) -> None:
    print(one_line(text, 1000), file=sys.stderr, flush=True)


def _say_all(lines: list[str]) -> None:
    for line in lines:
        _say(line)


def _silence_opencv() -> None:
    """Keep OpenCV's and FFmpeg's own messages off the terminal: edgeseg says in one sentence what went wrong."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
