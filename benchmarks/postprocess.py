"""edgeseg's resize and argmax beside ONNX Runtime's, OpenVINO's and PyTorch's, in one run.

    python benchmarks/postprocess.py --classes 19 --logits 64x128 --size 512x1024 --threads 2 --json postprocess.json

Every contender gets the same float32 logits and is checked against a float64 reference before it is timed: it may
differ only where the two best classes are closer than float32 tells apart. Contenders take turns in blocks with an idle
gap before each, because an idle session's spinning threads slow the next one; ONNX Runtime's spinning is switched off
for the same reason (``session.intra_op.allow_spinning`` = 0), and OpenVINO's latency hint is used. The two maps are
piecewise smooth blobs, as networks give, and noise, the worst case. The ratio is each contender's median over that of
edgeseg's ``auto`` (compiled where it is here), with a 95 % bootstrap interval over the blocks' medians.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.bench.paired import pair_ratio, run_block
from edgeseg.postprocess import Method, labels_from_logits
from edgeseg.specs import PostprocessSpec, Size, parse_size

F32 = NDArray[np.float32]
Contender = Callable[[F32], NDArray[Any]]

_BLOCKS, _GAP_S, _BLOCK_S = 7, 0.05, 0.15


def blobs(classes: int, size: Size, rng: np.random.Generator) -> F32:
    """Piecewise smooth logits (C, h, w): a coarse field enlarged, with a little noise."""
    coarse = rng.standard_normal((classes, size[0] // 16 + 2, size[1] // 16 + 2)).astype(np.float32)
    field = np.stack([cv2.resize(plane, size[::-1], interpolation=cv2.INTER_CUBIC) for plane in coarse])
    return np.ascontiguousarray(4 * field + 0.05 * rng.standard_normal(field.shape), np.float32)


def graph(classes: int, logits: Size, size: Size, *, align_corners: bool, cast: bool) -> bytes:
    """Resize (linear) and ArgMax as an ONNX model, opset 18; with `cast` the labels are made uint8."""
    from onnx import TensorProto, helper

    mode = "align_corners" if align_corners else "half_pixel"
    nodes = [
        helper.make_node("Resize", ["x", "", "", "sizes"], ["big"], mode="linear", coordinate_transformation_mode=mode),
        helper.make_node("ArgMax", ["big"], ["labels"], axis=1, keepdims=0),
    ]
    out, kind = "labels", TensorProto.INT64
    if cast:
        nodes.append(helper.make_node("Cast", ["labels"], ["small"], to=TensorProto.UINT8))
        out, kind = "small", TensorProto.UINT8
    made = helper.make_graph(
        nodes,
        "postprocess",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, classes, *logits])],
        [helper.make_tensor_value_info(out, kind, [1, *size])],
        [helper.make_tensor("sizes", TensorProto.INT64, [4], [1, classes, *size])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def bands(classes: int, logits: Size, size: Size, *, align_corners: bool) -> bytes:
    """The graph of ``edgeseg export --output labels`` for CPUs: two small matrix products in bands of rows."""
    from onnx import TensorProto, helper

    from edgeseg.graph.passes import AppendLabels

    shape = [1, classes, *logits]
    made = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["logits"])],
        "postprocess",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    end = AppendLabels(size, PostprocessSpec(align_corners), form="bands")
    return bytes(end(model).model.SerializeToString())


def onnxruntime_postprocess(model: bytes, threads: int) -> Contender:
    """ONNX Runtime's session over the graph, without spinning threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda logits: np.asarray(session.run(None, {"x": logits[None]})[0])[0]


def openvino_postprocess(model: bytes, threads: int) -> Contender:
    """OpenVINO's request over the same graph."""
    import openvino

    core = openvino.Core()
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(model, b""), "CPU", hints).create_infer_request()
    return lambda logits: request.infer({0: logits[None]})[0][0]


def torch_postprocess(size: Size, align_corners: bool, threads: int) -> Contender:
    """``interpolate`` and ``argmax``."""
    import torch

    torch.set_num_threads(threads)

    def run(logits: F32) -> NDArray[Any]:
        batch = torch.from_numpy(logits)[None]
        with torch.inference_mode():
            big = torch.nn.functional.interpolate(batch, size=size, mode="bilinear", align_corners=align_corners)
            labels: NDArray[Any] = big.argmax(dim=1)[0].numpy()
        return labels

    return run


def contenders(classes: int, logits: Size, size: Size, *, align_corners: bool, threads: int) -> dict[str, Contender]:
    """Name -> function from logits to labels; engines that are not installed are left out, saying so."""
    postprocess = PostprocessSpec(align_corners)
    methods: tuple[Method, ...] = ("auto", "dense", "sparse")
    found: dict[str, Contender] = {
        f"edgeseg {method}": functools.partial(labels_from_logits, size=size, postprocess=postprocess, method=method)
        for method in methods
    }

    def build(cast: bool) -> bytes:
        return graph(classes, logits, size, align_corners=align_corners, cast=cast)

    sizes = (classes, logits, size)
    others: dict[str, Callable[[], Contender]] = {
        "ONNX Runtime Resize+ArgMax": lambda: onnxruntime_postprocess(build(False), threads),
        "ONNX Runtime Resize+ArgMax+Cast": lambda: onnxruntime_postprocess(build(True), threads),
        "ONNX Runtime bands": lambda: onnxruntime_postprocess(bands(*sizes, align_corners=align_corners), threads),
        "OpenVINO bands": lambda: openvino_postprocess(bands(*sizes, align_corners=align_corners), threads),
        "OpenVINO Resize+ArgMax": lambda: openvino_postprocess(build(False), threads),
        "torch interpolate+argmax": lambda: torch_postprocess(size, align_corners, threads),
    }
    for name, make in others.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"left out: {name} ({error})")
    return found


def reference(logits: F32, size: Size, align_corners: bool) -> NDArray[np.float64]:
    """Resized logits in float64 by two matrix products."""

    def weights(n: int, out: int) -> NDArray[np.float64]:
        steps = np.arange(out, dtype=np.float64)
        places = steps * (n - 1) / max(out - 1, 1) if align_corners else (steps + 0.5) * n / out - 0.5
        distance = np.abs(np.clip(places, 0, n - 1)[:, None] - np.arange(n))
        matrix: NDArray[np.float64] = np.maximum(1 - distance, 0)
        return matrix

    field = weights(logits.shape[1], size[0]) @ logits.astype(np.float64)
    resized: NDArray[np.float64] = field @ weights(logits.shape[2], size[1]).T
    return resized


def wrong_pixels(labels: NDArray[Any], exact: NDArray[np.float64], scale: float) -> tuple[int, int]:
    """Pixels that differ from the reference, and those among them whose margin float32 does not excuse."""
    best = exact.argmax(axis=0)
    mine = np.take_along_axis(exact, labels[None].astype(np.intp), axis=0)[0]
    differ = labels != best
    return int(differ.sum()), int((differ & (exact.max(axis=0) - mine > 1e-5 * scale)).sum())


def measure(found: dict[str, Contender], logits: F32) -> dict[str, list[list[float]]]:
    """Milliseconds by contender and block; the order changes from block to block."""
    samples: dict[str, list[list[float]]] = {name: [] for name in found}
    names = list(found)
    for block in range(_BLOCKS):
        for name in names[block % len(names) :] + names[: block % len(names)]:
            time.sleep(_GAP_S)
            frame = functools.partial(found[name], logits)
            frame()
            samples[name].append(run_block(frame, _BLOCK_S))
    return samples


def machine(threads: int) -> dict[str, Any]:
    """Where it ran, in words."""
    found: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.platform(),
    }
    found["load_average"] = os.getloadavg() if hasattr(os, "getloadavg") else None
    versions = {"python": platform.python_version(), "numpy": np.__version__, "opencv": cv2.__version__}
    for name in ("onnxruntime", "openvino", "torch"):
        try:
            versions[name] = __import__(name).__version__
        except ImportError:
            versions[name] = "not installed"
    return found | {"versions": versions}


def cpu_name() -> str:
    """Model of the processor as the system tells it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    names = re.findall(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return names[0].strip() if names else platform.processor() or platform.machine()


def compare(options: argparse.Namespace, align_corners: bool, kind: str) -> dict[str, Any]:
    """One table: check, measure, print."""
    rng = np.random.default_rng(0)
    shape = (options.classes, *options.logits)
    field = blobs(options.classes, options.logits, rng) if kind == "blobs" else rng.standard_normal(shape)
    logits = np.ascontiguousarray(field, np.float32)
    found = contenders(
        options.classes, options.logits, options.size, align_corners=align_corners, threads=options.threads
    )
    exact = reference(logits, options.size, align_corners)
    checks = {name: wrong_pixels(run(logits), exact, float(np.abs(logits).max())) for name, run in found.items()}
    del exact
    samples = measure(found, logits)
    rows = []
    print(f"\n{kind}, align_corners {align_corners}, {shape} to {options.size}, {options.threads} threads")
    print(f"{'':34}{'median ms':>10}{'p90 ms':>9}{'over auto (95 % interval)':>28}{'differ':>9}{'wrong':>7}")
    for name, blocks in samples.items():
        pooled = np.concatenate(blocks)
        found_ratio = pair_ratio(blocks, samples["edgeseg auto"])
        median, p90 = float(np.median(pooled)), float(np.percentile(pooled, 90))
        print(f"{name:34}{median:10.2f}{p90:9.2f}{found_ratio!s:>28}{checks[name][0]:9}{checks[name][1]:7}")
        row = {"name": name, "median_ms": median, "p90_ms": p90, **found_ratio.to_json()}
        rows.append(row | {"differ": checks[name][0], "wrong": checks[name][1], "samples_ms": blocks})
    return {"map": kind, "align_corners": align_corners, "rows": rows}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--logits", type=parse_size, default=(64, 128), help="HEIGHTxWIDTH of the logits")
    parser.add_argument("--size", type=parse_size, default=(512, 1024), help="HEIGHTxWIDTH of the labels")
    parser.add_argument("--align-corners", choices=("false", "true", "both"), default="both")
    parser.add_argument("--map", choices=("blobs", "noise", "both"), default="both")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write everything measured here")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the tables asked for."""
    options = parse(arguments)
    cv2.setNumThreads(options.threads)
    corners = {"false": [False], "true": [True], "both": [False, True]}[options.align_corners]
    kinds = ["blobs", "noise"] if options.map == "both" else [options.map]
    tables = [compare(options, align_corners, kind) for align_corners in corners for kind in kinds]
    if options.json:
        setting = {"classes": options.classes, "logits": options.logits, "size": options.size}
        report = {"machine": machine(options.threads), "setting": setting, "tables": tables}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
