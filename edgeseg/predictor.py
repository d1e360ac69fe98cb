"""`Predictor`: a picture in, labels out, on any engine. The device-side heart of edgeseg; numpy and OpenCV only.

A picture goes through four stages, each timed: ``decode`` (bytes to uint8 RGB), ``pre`` (the bundle's resize rule),
``infer`` (the engine, normalisation included) and ``postprocess`` (logits to labels at the wanted size, exactly as
PyTorch's resize and argmax). A GPU graph that already ends in labels of the wanted size skips the host's
postprocessing; the labels are the same either way.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.bundle import SAMPLE, SAMPLE_LABELS, Bundle, Manifest, Parity, open_bundle
from edgeseg.decoding import decode
from edgeseg.errors import BundleError, EdgesegError, InputError, SizeError, UsageError
from edgeseg.images import MAX_PIXELS, as_rgb, check_max_pixels, fit_image, load_image, read_image
from edgeseg.labels import as_label_map
from edgeseg.postprocess import Region, labels_from_logits, scores_from_logits, warm_up
from edgeseg.results import Result
from edgeseg.runtimes import RuntimeOptions, Session, SessionInfo, open_session, resolve_target
from edgeseg.signing import verify_signature
from edgeseg.sources import Frame, Source, open_iterable, open_source
from edgeseg.specs import Size, check_divisor
from edgeseg.stream import Stage, Stream
from edgeseg.text import one_line

__all__ = ["Failure", "Predictor"]

Color = Literal["rgb", "bgr"]
Output = Literal["source", "network"] | Size


@dataclass(frozen=True)
class Failure:
    """A picture of a stream that could not be predicted.

    Attributes:
        source: Path, or address and frame number.
        error: Why, in one sentence.
    """

    source: str
    error: EdgesegError


@dataclass
class _Job:
    """A picture on its way through the stages."""

    source: str
    fitted: NDArray[np.uint8]
    region: Region | None
    size: Size
    output: Literal["labels", "logits"]
    picture: NDArray[np.uint8] | None
    timings: dict[str, float]
    damaged: tuple[str, ...] = ()
    found: NDArray[Any] = field(default_factory=lambda: np.empty(0))


class Predictor:
    """Predict with a bundle on one engine.

    One Predictor may be called from many threads. Use it in a ``with`` block, or `close` it.

    Args:
        path: A ``NAME.edgeseg`` folder, or a bundle opened with `edgeseg.bundle.open_bundle`.
        target: Engine: ``ort``, ``openvino``, ``trt``, ``trt-rtx``, ``torch``, or one that a third party registered.
        output: Size of the labels: ``"source"`` (of the picture), ``"network"`` (of the graph's input; letterbox bars
            are then part of the labels), or height x width in pixels.
        scores: Also give the probability of the chosen class per pixel.
        keep_image: Keep the picture in the result, for overlays; costs a copy of arrays that the caller passes.
        check: Compare every file of the bundle with its SHA-256 (a `path` only; an opened bundle was checked).
        trusted_keys: PEM files of public keys; where any is given, only a bundle signed by the owner of one is opened.
        input_size: Height x width to feed; only for bundles exported with free height and width.
        threads: CPU threads of the engine; short for `RuntimeOptions.threads`.
        device: Device or provider; short for `RuntimeOptions.device`.
        options: How the engine is to run.
        max_pixels: Largest height x width of a picture file; arrays are in memory already and have no limit.
        strict: Refuse damaged picture files instead of telling in `Result.damaged`.

    Raises:
        BundleError: A bundle that is missing, damaged, newer, or not exported for the target.
        TargetUnavailableError: The machine lacks what the target needs.
        UsageError: An unknown target, a size that cannot be, or options that contradict one another.
    """

    def __init__(
        self,
        path: str | Path | Bundle,
        target: str = "ort",
        *,
        output: Output = "source",
        scores: bool = False,
        keep_image: bool = True,
        check: bool = True,
        trusted_keys: Sequence[str | Path] = (),
        input_size: Size | None = None,
        threads: int | None = None,
        device: str | None = None,
        options: RuntimeOptions | None = None,
        max_pixels: int = MAX_PIXELS,
        strict: bool = False,
    ) -> None:
        _check_output(output)
        check_max_pixels(max_pixels)
        self._max_pixels, self._strict = max_pixels, strict
        self._target = resolve_target(target)
        bundle = _opened(path, check, trusted_keys)
        _check_input_size(bundle.manifest, input_size)
        self._bundle, self._scores, self._keep, self._input_size = bundle, scores, keep_image, input_size
        self._output: Output = output
        self._session = open_session(bundle, self._target, _merge(options, threads, device))
        _check_graph(bundle, self._session)
        self._ends_in_labels = any(tensor.name == "labels" for tensor in self._session.outputs)
        if not (scores or self._ends_in_labels):  # every picture goes through the compiled postprocessing
            warm_up()

    @property
    def info(self) -> SessionInfo:
        """What really runs, as the engine reports it."""
        return self._session.info

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of the network."""
        return self._bundle.manifest

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in index order."""
        return self.manifest.labels

    def __call__(self, frame: str | Path | NDArray[Any], *, color: Color = "rgb") -> Result:
        """Predict one picture.

        Args:
            frame: Path of an image, or an array (H, W, 3) as `edgeseg.images.as_rgb` takes it.
            color: Channel order of an array; OpenCV reads ``"bgr"``.

        Returns:
            Labels uint8 (H, W) and the milliseconds of each stage; on a shared Predictor ``infer`` includes waiting
            for the other threads' turns.

        Raises:
            InputError: A file or array that is no picture, or a closed Predictor.
            SizeError: A size that the graph does not take.
        """
        return self.predict_batch([frame], color=color)[0]

    def predict_batch(self, frames: Sequence[str | Path | NDArray[Any]], *, color: Color = "rgb") -> list[Result]:
        """Predict several pictures, as many at once as the graph takes; the last batch is filled with its last picture.

        Args:
            frames: Paths or arrays, each as `__call__` takes it.
            color: Channel order of the arrays.

        Returns:
            One result per picture, in order. ``infer`` is the batch's time divided by its pictures.

        Raises:
            InputError: As `__call__`; nothing is returned when one picture fails.
            SizeError: As `__call__`.
        """
        jobs = (self._load(frame, color) for frame in frames)  # no more pictures in memory than a batch has
        done = self._inferring(self.manifest.batch, jobs)
        return [self._finish(job) for job in done if isinstance(job, _Job)]

    def stream(
        self,
        source: str | Path | int | Source | Iterable[Any],
        *,
        live: bool | None = None,
        color: Color = "rgb",
        queue: int = 2,
        on_error: Literal["raise", "report"] = "report",
        stop: threading.Event | None = None,
    ) -> Stream[Result | Failure]:
        """Predict picture after picture, with decoding, engine and postprocessing busy at once. Order is kept.

        Args:
            source: What `edgeseg.sources.open_source` opens, an opened source, or an iterable of arrays and paths.
            live: Drop late pictures instead of queueing them, so that the next result is always of the newest one;
                None does so for cameras and RTSP. `Stream.dropped` counts them.
            color: Channel order of arrays from an iterable.
            queue: Pictures that may wait between two stages of a source that is not live.
            on_error: ``report`` gives a `Failure` for a picture that cannot be used and goes on, ``raise`` raises it.
            stop: When set from any thread, the stream ends.

        Returns:
            An iterator of results and failures. Breaking out, `close`, an error and Ctrl-C end its threads; where the
            stream has a name of its own, use it in a ``with`` block. A source given open is left open.

        Raises:
            InputError: The source cannot be opened.
            UsageError: A queue below 1.
        """
        if queue < 1:
            raise UsageError(f"queue is {queue}; at least 1 picture must be able to wait")
        opened, owned = self._as_source(source, color)
        latest = opened.live if live is None else live
        infer = functools.partial(self._inferring, 1 if latest else self.manifest.batch)
        stages: list[Stage] = [self._preparing(on_error == "report"), infer, self._finishing]
        frames = _frames(opened, owned)
        return Stream(frames, stages, capacity=queue, latest=latest, stop=stop, patience=opened.patience)

    def self_test(self) -> Parity:
        """Predict the bundle's sample picture and compare with the labels fp32 PyTorch gave it at export.

        Returns:
            Pixels compared (at the sample's own size, whatever `output` and `input_size` are) and pixels whose label
            differs; `max_logit_error` is not measured.

        Raises:
            BundleError: The bundle holds no sample, or its labels do not fit.
        """
        expected = _sample_labels(self._bundle)
        image = read_image(self._bundle.file(SAMPLE))
        size = self.manifest.input_size
        (job,) = self._infer([self._prepare(image, SAMPLE, {}, output="source", keep=False, fed=size)])
        labels = self._finish(job).labels
        if expected.shape != labels.shape:
            raise BundleError(
                f"{SAMPLE_LABELS} in '{self._bundle.path}' does not fit {SAMPLE}; export the bundle again"
            )
        differing = int(np.count_nonzero(labels != expected))
        return Parity(self._target, labels.size, differing, images=1, engine=self.info.engine)

    def close(self) -> None:
        """Free the engine; closing twice is harmless."""
        self._session.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.info
        return (
            f"Predictor({self.manifest.name!r}, target={info.target!r}, engine={info.engine!r}, device={info.device!r})"
        )

    # Stages, one picture (or batch) each.

    def _load(self, frame: str | Path | NDArray[Any], color: Color) -> _Job:
        start = time.perf_counter()
        if isinstance(frame, (str, Path)):
            found = load_image(frame, max_pixels=self._max_pixels, strict=self._strict)
            return self._prepare(found.image, str(frame), {"decode": _ms_since(start)}, damaged=found.damaged)
        image = as_rgb(frame, color)
        if self._keep and np.may_share_memory(image, frame):
            image = image.copy()  # the result must not change when the caller fills the buffer again
        return self._prepare(image, "", {"decode": _ms_since(start)})

    def _prepare(
        self,
        image: NDArray[np.uint8],
        source: str,
        timings: dict[str, float],
        *,
        output: Output | None = None,
        keep: bool | None = None,
        fed: Size | None = None,
        damaged: tuple[str, ...] = (),
    ) -> _Job:
        """Fit the picture to the graph and settle what is wanted of it."""
        start = time.perf_counter()
        output = output or self._output
        keep = self._keep if keep is None else keep
        source_size = (int(image.shape[0]), int(image.shape[1]))
        fed = fed or self._fed_size(source_size)
        fitted, region = fit_image(image, fed, self.manifest.resize)
        if region is not None and region.height == fed[0] and region.width == fed[1]:
            region = None  # no bars
        if output == "network":
            size, region, image = fed, None, fitted
        else:
            size = output if isinstance(output, tuple) else source_size
        wanted = self._wanted(fed, size, region)
        timings["pre"] = _ms_since(start)
        return _Job(source, fitted, region, size, wanted, image if keep else None, timings, damaged)

    def _fed_size(self, source: Size) -> Size:
        """Height x width to feed for a picture of size `source`."""
        manifest = self.manifest
        if self._input_size is not None:
            return self._input_size
        if manifest.dynamic and manifest.resize.mode == "none":
            check_divisor(manifest.name, source, manifest.divisor)
            return source
        return manifest.input_size

    def _wanted(self, fed: Size, size: Size, region: Region | None) -> Literal["labels", "logits"]:
        """Which output of the graph to fetch: its labels where they are exactly what is asked for."""
        fits = fed == self.manifest.input_size and size == self.manifest.label_size and region is None
        return "labels" if fits and self._ends_in_labels and not self._scores else "logits"

    def _infer(self, jobs: list[_Job]) -> list[_Job]:
        """Run the engine once for up to `batch` jobs."""
        start = time.perf_counter()
        batch = self.manifest.batch
        if batch == 1:
            images = jobs[0].fitted[None]
        else:
            images = np.stack([jobs[min(index, len(jobs) - 1)].fitted for index in range(batch)])
        outputs = self._session.run(images, tuple(sorted({job.output for job in jobs})))
        spent = _ms_since(start) / len(jobs)
        for index, job in enumerate(jobs):
            job.found = outputs[job.output][index]
            job.timings["infer"] = spent
        return jobs

    def _finish(self, job: _Job) -> Result:
        """Turn what the graph gave into labels of the wanted size."""
        start = time.perf_counter()
        scores: NDArray[np.float32] | None = None
        postprocess = self.manifest.postprocess
        if job.output == "labels":
            labels = as_label_map(job.found)
        elif self._scores:
            labels, scores = scores_from_logits(job.found, job.size, postprocess=postprocess, region=job.region)
        else:
            labels = labels_from_logits(job.found, job.size, postprocess=postprocess, region=job.region)
        picture = None if job.picture is None else _resized(job.picture, job.size)
        job.timings["postprocess"] = _ms_since(start)
        return Result(labels, self.names, self.manifest.palette, picture, scores, job.timings, job.source, job.damaged)

    def _as_source(self, source: str | Path | int | Source | Iterable[Any], color: Color) -> tuple[Source, bool]:
        """The source, and whether the stream must close it."""
        if isinstance(source, Source):
            return source, False
        if isinstance(source, (str, Path, int)):
            return open_source(source, max_pixels=self._max_pixels, strict=self._strict), True
        return open_iterable(source, color=color, max_pixels=self._max_pixels, strict=self._strict), True

    # Stages of a stream: iterators over pictures, each run in its thread. Failures travel along, in order.

    def _preparing(self, report: bool) -> Callable[[Iterator[Frame]], Iterator[_Job | Failure]]:
        def prepare(frame: Frame) -> _Job | Failure:
            try:
                if frame.error is not None or frame.image is None:
                    raise frame.error or UsageError(f"frame {frame.index} holds neither a picture nor an error")
                return self._prepare(frame.image, frame.name, {"decode": frame.decode_ms}, damaged=frame.damaged)
            except EdgesegError as error:
                if not report:
                    raise
                return Failure(frame.name, error)

        return lambda frames: map(prepare, frames)

    def _inferring(self, most: int, items: Iterator[_Job | Failure]) -> Iterator[_Job | Failure]:
        for group in _groups(items, most):
            if isinstance(group, Failure):
                yield group
            else:
                yield from self._infer(group)

    def _finishing(self, items: Iterator[_Job | Failure]) -> Iterator[Result | Failure]:
        for item in items:
            yield item if isinstance(item, Failure) else self._finish(item)


def _groups(items: Iterator[_Job | Failure], most: int) -> Iterator[list[_Job] | Failure]:
    """Jobs in order, in runs of one fed size and up to `most`, and the failures between them."""
    group: list[_Job] = []
    for item in items:
        if group and (isinstance(item, Failure) or item.fitted.shape != group[0].fitted.shape):
            yield group
            group = []
        if isinstance(item, Failure):
            yield item
            continue
        group.append(item)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group


def _frames(source: Source, owned: bool) -> Iterator[Frame]:
    try:
        yield from source
    finally:
        if owned:
            source.close()


def _resized(picture: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    smaller = size[0] * size[1] < height * width
    resized = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def _merge(options: RuntimeOptions | None, threads: int | None, device: str | None) -> RuntimeOptions:
    merged = options or RuntimeOptions()
    for name, value in (("threads", threads), ("device", device)):
        if value is not None and getattr(merged, name) not in (None, value):
            raise UsageError(f"{name} is {value}, but options.{name} is {getattr(merged, name)}; give one of them")
        if value is not None:
            merged = dataclasses.replace(merged, **{name: value})  # type: ignore[arg-type]
    return merged


def _check_output(output: object) -> None:
    if isinstance(output, tuple) and len(output) == 2 and all(isinstance(x, int) and x > 0 for x in output):
        return
    if output not in ("source", "network"):
        raise UsageError(f"output is {output!r}; it must be 'source', 'network' or (height, width) in pixels")


def _check_input_size(manifest: Manifest, size: Size | None) -> None:
    if size is None:
        return
    check_divisor(manifest.name, size, manifest.divisor)
    if not manifest.dynamic and tuple(size) != manifest.input_size:
        fixed = "x".join(map(str, manifest.input_size))
        raise SizeError(
            f"bundle '{manifest.name}' takes only {fixed}, got {size[0]}x{size[1]}; leave input_size out, "
            "or export with free height and width"
        )


def _opened(path: str | Path | Bundle, check: bool, trusted_keys: Sequence[str | Path]) -> Bundle:
    if not isinstance(path, Bundle):
        return open_bundle(path, check=check, trusted_keys=trusted_keys)
    if trusted_keys:
        verify_signature(path.path, trusted_keys)
    return path


def _check_graph(bundle: Bundle, session: Session) -> None:
    """Refuse a graph whose input or output is not what the manifest says.

    Raises:
        BundleError: Names what differs.
    """
    manifest = bundle.manifest
    image, outputs = session.inputs[0], {tensor.name: tensor.shape for tensor in session.outputs}
    free = (None, None)
    size, logits = (free, free) if manifest.dynamic else (manifest.input_size, manifest.logit_size)
    wanted = [
        ("image", image.shape, (manifest.batch, *size, 3)),
        ("logits", outputs.get("logits"), (manifest.batch, manifest.num_classes, *logits)),
    ]
    for name, got, expected in wanted:
        if got is None or len(got) != len(expected):
            fits = False
        else:
            fits = all(None in (a, b) or a == b for a, b in zip(got, expected, strict=True))
        if not fits:
            session.close()
            shapes = [" x ".join("?" if n is None else str(n) for n in shape or ()) for shape in (got, expected)]
            raise BundleError(
                f"the graph of bundle '{bundle.path}' has {name} of {shapes[0] or 'no shape'}, its manifest says "
                f"{shapes[1]}; copy or export the bundle again"
            )


def _sample_labels(bundle: Bundle) -> NDArray[Any]:
    try:
        return decode(bundle.read(SAMPLE_LABELS), SAMPLE_LABELS, stored=True).image
    except InputError as error:
        raise BundleError(f"bundle '{one_line(bundle.path)}': {error}; export it again") from error


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1000.0
