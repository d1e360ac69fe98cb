"""Proof that a target makes the masks of fp32 PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg import bundle as layout
from edgeseg.bundle import Bundle, Parity
from edgeseg.errors import TargetUnavailableError
from edgeseg.export.reference import ParitySet, before_resize, compare, compare_outputs
from edgeseg.graph.run import run_graph
from edgeseg.labels import as_label_map
from edgeseg.metrics import agreement
from edgeseg.postprocess import labels_from_logits
from edgeseg.runtimes import RuntimeOptions, engine, engines, open_session
from edgeseg.specs import PostprocessSpec, Size

__all__ = ["verify_standalone", "verify_target"]

Runner = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""Labels (N, H, W) of uint8 pictures (N, H, W, C)."""


def verify_target(target: str, bundle: Bundle, expected: ParitySet, *, network: str | None = None) -> Parity:
    """Compare a target with fp32 PyTorch on the parity pictures.

    `network` is what the ``torch`` target builds, ``package.module:factory`` as the user gave it.

    A GPU target on a machine without a GPU cannot run; then the graph that its engine is built from is run in ONNX
    Runtime instead, and the entry says so (``ran`` is False): the engine's own arithmetic was not seen.

    Raises:
        TargetUnavailableError: The target's package is not installed.
    """
    postprocess, batch = bundle.manifest.postprocess, bundle.manifest.batch
    record = engine(target)
    try:
        session = open_session(bundle, target, RuntimeOptions(network=network if "network" in record.options else None))
    except TargetUnavailableError:
        if not record.needs_gpu:
            raise
        return _graph_alone(target, bundle, expected)
    try:
        return compare(target, session, expected, postprocess, batch=batch)
    finally:
        session.close()


def verify_standalone(
    folder: Path, expected: ParitySet, size: Size, postprocess: PostprocessSpec, batch: int, logit_size: Size
) -> dict[str, float]:
    """Run the graphs that end in labels alone on the parity pictures.

    A graph for GPUs runs in ONNX Runtime: its arithmetic is checked, the engine is not.

    Args:
        folder: The bundle's.
        expected: What fp32 PyTorch makes of the parity pictures.
        size: Height x width of the labels.
        postprocess: How logits become labels.
        batch: Of the graphs.
        logit_size: Height x width of the logits that the labels are made of.

    Returns:
        File -> share of labels equal to those of fp32 PyTorch's logits and the exact postprocessing.
    """
    logits = [before_resize(values, logit_size, postprocess) for values in expected.logits]
    wanted = [labels_from_logits(values, size, postprocess=postprocess) for values in logits]
    found = {}
    for file, opened in _standalone_files().items():
        if (folder / file).is_file():
            run = opened(folder / file)
            made = [as_label_map(run(np.stack([image] * batch))[0]) for image in expected.images]
            pairs = [agreement(a, b) for a, b in zip(made, wanted, strict=True)]
            found[file] = 1 - sum(wrong for wrong, _ in pairs) / sum(total for _, total in pairs)
    return found


def _standalone_files() -> dict[str, Callable[[Path], Runner]]:
    """Files that may hold a graph that ends in labels alone -> what opens them."""
    forms = [record.standalone for record in engines() if record.standalone is not None]
    return {
        layout.LABELS_CPU: _in_onnxruntime,
        **{form.file: form.runner for form in forms},
        layout.LABELS_GPU: _in_onnxruntime,
    }


def _in_onnxruntime(file: Path) -> Runner:
    model = onnx.load(file)
    return lambda image: run_graph(model, {"image": image})[0]


def _graph_alone(target: str, bundle: Bundle, expected: ParitySet) -> Parity:
    own = engine(target).graph
    model = onnx.load(bundle.path / (own if bundle.has(own) else layout.MODEL))

    def run(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        (logits,) = run_graph(model, {"image": image})
        return {"logits": logits.astype(np.float32, copy=False)}  # as a session hands out what is half

    ran = "graph run in onnxruntime; the engine needs a GPU and was not run"
    postprocess, batch = bundle.manifest.postprocess, bundle.manifest.batch
    return replace(compare_outputs(target, run, ran, expected, postprocess, batch=batch), ran=False)
