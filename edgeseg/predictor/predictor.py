"""`Predictor`: the entry point of the device side."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.bundle import SAMPLE_LABELS, Bundle, Manifest, Parity, open_bundle
from edgeseg.errors import BundleError, EdgesegError, InputError, UsageError
from edgeseg.postprocess import warm_up
from edgeseg.predictor.checks import check_graph, check_sample_input, read_sample_labels
from edgeseg.predictor.config import Output, PredictorConfig, PredictorKeywords, check_output
from edgeseg.predictor.finish import finish
from edgeseg.predictor.jobs import Failure, Job, Started, group_jobs, take_results
from edgeseg.predictor.prepare import Color, Preparer
from edgeseg.predictor.proof import KeptProof
from edgeseg.predictor.recipe import Recipe
from edgeseg.results import Result
from edgeseg.runtimes import SessionInfo, device_labelling, open_session, resolve_target
from edgeseg.runtimes.pending import Pipelined, pipelined
from edgeseg.runtimes.times import EngineTimes, EngineTiming
from edgeseg.signing import verify_signature
from edgeseg.sources import Frame, Source, open_iterable, open_source
from edgeseg.stacks import PictureFile, load_picture
from edgeseg.stream import Stage, Stream
from edgeseg.text import shown_name

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in `typing` since Python 3.11

__all__ = ["Predictor"]


class Predictor:
    """Predict with a bundle on one engine.

    One Predictor may be called from many threads. Use it in a ``with`` block, or `close` it. In a forked child it is
    refused. Pickled, it travels as its path, target and settings, and opens the bundle again with every check.

    Args:
        path: A ``NAME.edgeseg`` folder, or a bundle opened with `edgeseg.bundle.open_bundle`.
        target: Engine: ``ort``, ``openvino``, ``trt``, ``trt-rtx``, ``torch``, or one that a third party registered.
        output: Size of the labels: ``"source"`` (of the picture), ``"network"`` (of the graph's input; letterbox bars
            are then part of the labels), or height x width in pixels.
        scores: Also compute the probability of the chosen class per pixel.
        keep_image: Keep the picture in the result, for overlays; copies arrays that the caller passes.
        check: Compare every file of the bundle with its SHA-256 (a `path` only; an opened bundle was checked).
        trusted_keys: PEM files of public keys. Where any is given, only a bundle signed by the owner of one is opened.
        input_size: Height x width to give the graph; only for bundles exported with free height and width.
        threads: CPU threads of the engine; short for `RuntimeOptions.threads`.
        device: Device or provider; short for `RuntimeOptions.device`.
        options: How the engine is to run.
        max_pixels: Largest height x width of a picture file; arrays are in memory already and have no limit.
        strict: Refuse damaged picture files. Otherwise `Result.damaged` describes the damage.

    Raises:
        BundleError: A bundle that is missing, damaged, newer, or not exported for the target.
        TargetUnavailableError: The machine lacks what the target needs.
        UsageError: An unknown target, an impossible size, or options that contradict one another.

    Example:
        >>> with Predictor(bundle, target="ort", threads=1) as predictor:
        ...     result = predictor(bundle.file("sample.png"))
        >>> result.labels.shape, result.labels.dtype
        ((44, 52), dtype('uint8'))
    """

    def __init__(self, path: str | Path | Bundle, target: str = "ort", **settings: Unpack[PredictorKeywords]) -> None:
        self._config = config = PredictorConfig(**settings)
        self._target = resolve_target(target)
        self._bundle = bundle = _open(path, config)
        self._recipe = Recipe.of(bundle.path, self._target, config)
        config.check_input_size(bundle.manifest)
        self._session = open_session(bundle, self._target, config.runtime_options())
        check_graph(bundle, self._session)
        self._proof = KeptProof.of(self._session.info, bundle)
        self._labelling = None if config.scores else device_labelling(self._session)  # scores are made on the host
        self._pipelined = pipelined(self._session)
        self._preparer = Preparer(bundle.manifest, config)
        if self._labelling is None:
            warm_up()

    @property
    def info(self) -> SessionInfo:
        """What runs, as the engine reports it, and what the proof of this device said where one is kept."""
        return self._proof.added_to(self._session.info)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in index order."""
        return self.manifest.labels

    def __call__(
        self, frame: PictureFile | NDArray[Any], *, color: Color = "rgb", output: Output | None = None
    ) -> Result:
        """Predict one picture.

        Args:
            frame: Path of an image, or an array (H, W, 3) as `edgeseg.images.as_rgb` takes it. For a network of other
                than 1 or 3 channels an array (H, W, C) or file as `edgeseg.stacks` takes it. Or a list of paths, one
                file per channel. uint16 is divided by 257 and rounded.
            color: Channel order of an array of 3 channels; OpenCV reads ``"bgr"``.
            output: Size of this picture's labels, instead of the Predictor's own `output`.

        Returns:
            Labels uint8 (H, W) and the milliseconds of each stage. On a shared Predictor ``infer`` includes waiting for
            the other threads.

        Raises:
            InputError: A file or array that is no picture, or a closed Predictor.
            SizeError: A size that the graph does not take.
            UsageError: An `output` that is no size.
        """
        if output is not None:
            check_output(output)
        return self._predict([frame], color, output)[0]

    def predict_batch(self, frames: Sequence[PictureFile | NDArray[Any]], *, color: Color = "rgb") -> list[Result]:
        """Predict several pictures, as many at once as the graph takes. The last picture fills up the last batch.

        Args:
            frames: Paths, arrays or lists of paths, each as `__call__` takes it.
            color: Channel order of the arrays.

        Returns:
            One result per picture, in order. ``infer`` is the batch's time divided by its pictures.

        Raises:
            InputError: As `__call__`; nothing is returned when one picture fails.
            SizeError: As `__call__`.

        Example:
            >>> with Predictor(bundle) as predictor:
            ...     len(predictor.predict_batch([bundle.file("sample.png")] * 3))
            3
        """
        return self._predict(frames, color, None)

    def _predict(
        self, frames: Sequence[PictureFile | NDArray[Any]], color: Color, output: Output | None
    ) -> list[Result]:
        # one batch of pictures in memory at a time
        jobs = (self._preparer.load(frame, color, output) for frame in frames)
        done = self._infer(self.manifest.batch, jobs)
        return [self._result(job) for job in done if isinstance(job, Job)]

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
        """Predict one picture after another, with decoding, engine and postprocessing busy at once. Order is kept.

        Args:
            source: What `edgeseg.sources.open_source` opens, an opened source, or an iterable of arrays and paths.
            live: Drop late pictures instead of queueing them, so that the next result is always of the newest one. None
                does so for cameras and RTSP. `Stream.dropped` counts them.
            color: Channel order of arrays from an iterable.
            queue: Pictures that may wait between two stages of a source that is not live.
            on_error: ``report`` yields a `Failure` for a picture that cannot be used and goes on, ``raise`` raises it.
            stop: When set from any thread, the stream ends.

        Returns:
            An iterator of results and failures. Breaking out, `close`, an error and Ctrl-C end its threads. Use a
            stream that has a name in a ``with`` block. An opened source is left open.

        Raises:
            InputError: The source cannot be opened.
            UsageError: A queue below 1.

        Example:
            >>> with Predictor(bundle) as predictor, predictor.stream(folder / "images") as stream:
            ...     [result.size for result in stream]
            [(44, 52)]
        """
        if queue < 1:
            raise UsageError(f"queue is {queue}; at least 1 picture must be able to wait")
        opened, close = self._open_source(source, color)
        latest = opened.live if live is None else live
        prepare = functools.partial(self._prepare, on_error == "report")
        finish = functools.partial(self._finish, on_error == "report")
        stages: list[Stage] = [prepare, *self._engine_stages(latest), finish]
        frames = _frames(opened, close)
        return Stream(frames, stages, capacity=queue, latest=latest, stop=stop, patience=opened.patience)

    def self_test(self) -> Parity:
        """Predict the bundle's sample picture, and compare with the labels that fp32 PyTorch gave it at export.

        Returns:
            Pixels compared (at the sample's own size, whatever `output` and `input_size` are) and pixels whose label
            differs. `max_logit_error` is not measured.

        Raises:
            BundleError: The bundle holds no sample, or its labels have another size.
            ParityError: The sample becomes another network input on this machine than it became at export.

        Example:
            >>> with Predictor(bundle) as predictor:
            ...     predictor.self_test().agreement
            1.0
        """
        expected, job = read_sample_labels(self._bundle), self._sample_job()
        check_sample_input(self._bundle, job.input)
        self._run([job])
        labels = self._result(job).labels
        if expected.shape != labels.shape:
            raise BundleError(
                f"{SAMPLE_LABELS} in '{self._bundle.path}' does not fit {job.source}; export the bundle again"
            )
        differing = int(np.count_nonzero(labels != expected))
        return Parity(self._target, labels.size, differing, images=1, engine=self.info.engine)

    def sample_logits(self) -> NDArray[np.float32]:
        """Logits (classes, h, w) of the bundle's sample picture, by this engine.

        Raises:
            BundleError: The bundle holds no sample.
        """
        images = self._batched([self._sample_job()])
        return np.asarray(self._session.run(images, ("logits",))["logits"][0], np.float32)

    def _sample_job(self) -> Job:
        sample, manifest = self._bundle.file(self._bundle.sample), self.manifest
        image = load_picture(sample, manifest.input.image_channels).image
        config = dataclasses.replace(self._config, output="source", keep_image=False, input_size=manifest.input_size)
        return Preparer(manifest, config).prepare(image, sample.name, 0.0)

    def engine_times(self, frame: PictureFile | NDArray[Any], *, repeat: int = 50) -> EngineTimes | None:
        """Time the engine alone on a picture, without copies; None where the engine does not time itself (GPUs do).

        Raises:
            InputError: As `__call__`.
            UsageError: `repeat` is below 1.
        """
        if not isinstance(self._session, EngineTiming):
            return None
        job = self._preparer.load(frame, "rgb", None)
        return self._session.engine_times(self._batched([job]), repeat)

    def close(self) -> None:
        """Free the engine. Closing twice is harmless."""
        self._session.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Predictor], tuple[Any, ...]]:
        """Pickle as what opens the Predictor again; `UsageError` names a setting that cannot travel."""
        return self._recipe.pickled(type(self), self.manifest)

    def __repr__(self) -> str:
        info, activation = self.info, self.manifest.postprocess.activation
        words = f"target={info.target!r}, engine={info.engine!r}, device={info.device!r}"
        return f"Predictor({self.manifest.name!r}, {words}{f', {activation=}' if activation != 'none' else ''})"

    # Stages: iterators over pictures. In a stream each runs in its own thread; failures travel along, in order.

    def _prepare(self, report: bool, frames: Iterator[Frame]) -> Iterator[Job | Failure]:
        for frame in frames:
            item: Job | Failure
            try:
                item = self._preparer.take(frame)
            except EdgesegError as error:
                if not report:
                    raise
                item = Failure(frame.name, error)
            yield item

    def _engine_stages(self, latest: bool) -> list[Stage]:
        """One stage, or two where the engine takes a picture while another is under way.

        A source that drops late pictures has one: what was begun is not dropped.
        """
        if self._pipelined is None or latest:
            return [functools.partial(self._infer, 1 if latest else self.manifest.batch)]
        return [functools.partial(self._begin, self._pipelined, self.manifest.batch), _collect]

    def _begin(self, engine: Pipelined, most: int, items: Iterator[Job | Failure]) -> Iterator[Started | Failure]:
        for group in group_jobs(items, most):
            yield group if isinstance(group, Failure) else self._start(engine, group)

    def _start(self, engine: Pipelined, jobs: list[Job]) -> Started:
        start, images = time.perf_counter(), self._batched(jobs)
        if self._labelling is not None:
            labels = engine.start_labels(images, [(job.size, job.region) for job in jobs])
            return Started(jobs, start, labels.result)
        outputs = engine.start(images, ("logits",))
        return Started(jobs, start, lambda: list(outputs.result()["logits"]))

    def _infer(self, most: int, items: Iterator[Job | Failure]) -> Iterator[Job | Failure]:
        for group in group_jobs(items, most):
            if isinstance(group, Failure):
                yield group
            else:
                yield from self._run(group)

    def _finish(self, report: bool, items: Iterator[Job | Failure]) -> Iterator[Result | Failure]:
        for item in items:
            done: Result | Failure
            try:
                done = item if isinstance(item, Failure) else self._result(item)
            except InputError as error:
                if not report:
                    raise
                done = Failure(item.source, error)
            yield done

    def _run(self, jobs: list[Job]) -> list[Job]:
        """Run the engine once for up to `batch` jobs; the last picture fills what is left of the batch."""
        start = time.perf_counter()
        return take_results(jobs, self._outputs(self._batched(jobs), jobs), start)

    def _batched(self, jobs: list[Job]) -> NDArray[np.uint8]:
        """The engine's input of up to `batch` jobs."""
        batch = self.manifest.batch
        if batch == 1:
            return jobs[0].input[None]
        return np.stack([jobs[min(index, len(jobs) - 1)].input for index in range(batch)])

    def _outputs(self, images: NDArray[np.uint8], jobs: list[Job]) -> Sequence[NDArray[Any]]:
        """What each job takes of the engine: labels where it makes them itself, else logits."""
        if self._labelling is not None:
            return self._labelling.device_labels(images, [(job.size, job.region) for job in jobs])
        return list(self._session.run(images, ("logits",))["logits"])

    def _result(self, job: Job) -> Result:
        try:
            labelled = self._labelling is not None
            return finish(job, self.manifest, labelled=labelled, with_scores=self._config.scores)
        except MemoryError as error:
            size = f"{job.size[0]}x{job.size[1]}"
            raise InputError(
                f"memory ran out for the labels of '{shown_name(job.source)}' at {size}; "
                "make the picture smaller, or ask for smaller labels (output)"
            ) from error

    def _open_source(self, source: str | Path | int | Source | Iterable[Any], color: Color) -> tuple[Source, bool]:
        """Open a source; also return whether the stream must close it."""
        if isinstance(source, Source):
            return source, False
        channels, config = self.manifest.input.image_channels, self._config
        if isinstance(source, (str, Path, int)):
            opened = open_source(source, max_pixels=config.max_pixels, strict=config.strict, channels=channels)
            return opened, True
        limits: dict[str, Any] = {"max_pixels": config.max_pixels, "strict": config.strict}
        return open_iterable(source, color=color, channels=channels, **limits), True


def _open(path: str | Path | Bundle, config: PredictorConfig) -> Bundle:
    """Open a bundle, or check the signature of one that is open."""
    if not isinstance(path, Bundle):
        return open_bundle(path, check=config.check, trusted_keys=config.trusted_keys)
    if config.trusted_keys:
        verify_signature(path.path, config.trusted_keys)
    return path


def _collect(items: Iterator[Started | Failure]) -> Iterator[Job | Failure]:
    """Wait for the pictures that were begun."""
    for item in items:
        if isinstance(item, Failure):
            yield item
        else:
            yield from take_results(item.jobs, item.result(), item.start)


def _frames(source: Source, close: bool) -> Iterator[Frame]:
    """Yield the frames of a source, and then close it where `close` is set."""
    try:
        yield from source
    finally:
        if close:
            source.close()
