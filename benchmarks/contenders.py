"""What the benchmarks let run against each other: from a uint8 frame to logits or uint8 labels.

Every factory takes JSON values and returns a function without arguments that does one frame, or several by name, as
`edgeseg.bench.paired` wants it. The frame has the network's size; engines choose their threads where none are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["engine_alone", "engines_alone", "graph", "host_input", "logits_out", "ours", "plain", "raw_input"]

Frame = Callable[[], Any]
Run = Callable[[NDArray[Any]], NDArray[Any]]


def ours(bundle: str, target: str, frame: str) -> Frame:
    """The Predictor of edgeseg."""
    from edgeseg.predictor import Predictor

    predictor = Predictor(bundle, target=target, keep_image=False)
    image = read_frame(frame)
    return lambda: predictor(image).labels


def engine_alone(bundle: str, target: str, frame: str, threads: int | None = None) -> Frame:
    """The floor: edgeseg's graph in the engine, uint8 picture in, logits out, nothing before or after."""
    from edgeseg.bundle import open_bundle
    from edgeseg.runtimes import RuntimeOptions, open_session

    session = open_session(open_bundle(bundle), target, RuntimeOptions(threads=threads))
    image = read_frame(frame)[None]
    return lambda: session.run(image, ("logits",))


def engines_alone(bundles: Mapping[str, str], target: str, frame: str) -> dict[str, Frame]:
    """`engine_alone` of several bundles on one thread, to take turns frame by frame."""
    return {name: engine_alone(bundle, target, frame, threads=1) for name, bundle in bundles.items()}


def plain(onnx: str, engine: str, frame: str, mean: Sequence[float], std: Sequence[float], order: str) -> Frame:
    """What people write: normalise with numpy, and a graph that ends in a resize and an argmax."""
    run, image = _engine(onnx, engine), read_frame(frame)
    normalise = _normaliser(mean, std, order)
    return lambda: run(normalise(image))[0].astype(np.uint8)


def logits_out(onnx: str, engine: str, frame: str, mean: Sequence[float], std: Sequence[float], order: str) -> Frame:
    """A graph that ends in logits; OpenCV resizes them, numpy takes the argmax."""
    run, image = _engine(onnx, engine), read_frame(frame)
    normalise = _normaliser(mean, std, order)
    height, width = image.shape[:2]

    def labels() -> NDArray[np.uint8]:
        planes = run(normalise(image))[0]
        resized = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in planes])
        best: NDArray[np.uint8] = resized.argmax(axis=0).astype(np.uint8)
        return best

    return labels


def raw_input(onnx: str, engine: str, frame: str) -> Frame:
    """A graph that takes the uint8 picture and normalises it inside; logits out."""
    run, image = _engine(onnx, engine), read_frame(frame)[None]
    return lambda: run(image)


def host_input(
    onnx: str, engine: str, frame: str, mean: Sequence[float], std: Sequence[float], order: str, how: str
) -> Frame:
    """A graph that takes normalised floats; numpy or OpenCV (``blobFromImage``, one scale) makes them; logits out."""
    run, image = _engine(onnx, engine), read_frame(frame)
    if how == "numpy":
        normalise = _normaliser(mean, std, order)
        return lambda: run(normalise(image))
    scale = 1.0 / (sum(std) / 3)
    means = [float(value) for value in mean]
    return lambda: run(cv2.dnn.blobFromImage(image, scale, (0, 0), means, order == "bgr"))


def read_frame(path: str) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB from a ``.npy`` file."""
    image: NDArray[np.uint8] = np.load(Path(path), allow_pickle=False)
    return image


def _normaliser(mean: Sequence[float], std: Sequence[float], order: str) -> Run:
    """``(image - mean) / std`` to float32 (1, 3, H, W), in the network's channel order."""
    means, stds = np.array(mean, np.float32), np.array(std, np.float32)

    def normalise(image: NDArray[Any]) -> NDArray[np.float32]:
        ordered = image[..., ::-1] if order == "bgr" else image
        x = (ordered.astype(np.float32) - means) / stds
        return np.ascontiguousarray(x.transpose(2, 0, 1)[None])

    return normalise


def _engine(onnx: str, engine: str) -> Run:
    if engine == "openvino":
        import openvino

        core = openvino.Core()
        compiled = core.compile_model(core.read_model(onnx), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        request = compiled.create_infer_request()
        return lambda x: request.infer({0: x})[0]
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: np.asarray(session.run(None, {name: x})[0])


def graph(onnx: str) -> Frame:
    """A float graph alone in ONNX Runtime, on random inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {x.name: rng.standard_normal(x.shape).astype(np.float32) for x in session.get_inputs()}
    return lambda: session.run(None, feeds)
