"""edgeseg's resize, the same on every machine, against OpenCV's and Pillow's own: pixels, labels, IoU and time.

    python benchmarks/resizing.py NAME.edgeseg --images FOLDER [--labels FOLDER] [--sizes 720x1280 1080x1920]

Each picture is taken as it is and, with `--sizes`, at those sizes besides. It becomes the network's input by both, and
ONNX Runtime makes labels of both at the size of the picture. Without a bundle only the filters are timed, in turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgeseg import Predictor, images  # noqa: E402
from edgeseg.evaluation import read_labels  # noqa: E402
from edgeseg.images import fit_image, read_image  # noqa: E402
from edgeseg.metrics import ConfusionMatrix  # noqa: E402
from edgeseg.resizing import resize  # noqa: E402
from edgeseg.sources import pictures_at  # noqa: E402
from edgeseg.specs import ResizeFilter, Size, parse_size  # noqa: E402

U8 = NDArray[np.uint8]
OPENCV = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}
TIMED: tuple[tuple[Size, Size], ...] = (
    ((1024, 2048), (512, 1024)),
    ((720, 1280), (512, 1024)),
    ((512, 512), (240, 240)),
    ((480, 640), (224, 224)),
)


def plain_resize(image: U8, size: Size, kind: ResizeFilter) -> U8:
    """What `edgeseg.resizing.resize` was before: OpenCV's filter of that name, or one call of Pillow's."""
    if image.shape[:2] == tuple(size):
        return image
    if kind == "pillow_bilinear":
        from PIL import Image

        return np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR), np.uint8)
    return np.asarray(cv2.resize(image, size[::-1], interpolation=OPENCV[kind]), np.uint8)


def time_filters(rounds: int) -> list[dict[str, Any]]:
    """Medians of both ways, frame after frame in turns, and their ratio."""
    rows: list[dict[str, Any]] = []
    for old, new in TIMED:
        image = np.random.default_rng(0).integers(0, 256, (*old, 3), np.uint8)
        for kind in get_args(ResizeFilter):
            ways = {"exact": resize, "plain": plain_resize}
            spent: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, way in ways.items():
                    spent[name].append(_seconds(way, image, new, kind))
            medians = {f"{name}_ms": 1e3 * float(np.median(times)) for name, times in spent.items()}
            off = np.abs(resize(image, new, kind).astype(int) - plain_resize(image, new, kind))
            row = {"filter": kind, "from": list(old), "to": list(new), **medians}
            rows.append({**row, "ratio": medians["exact_ms"] / medians["plain_ms"], **_off(off)})
    return rows


def _seconds(way: Callable[[U8, Size, ResizeFilter], U8], image: U8, size: Size, kind: ResizeFilter) -> float:
    start = time.perf_counter()
    way(image, size, kind)
    return time.perf_counter() - start


def _off(difference: NDArray[np.int_]) -> dict[str, float]:
    return {"values_off": float((difference > 0).mean()), "most_off": int(difference.max())}


def compare_labels(
    bundle: Path, folder: Path, labels: Path | None, sizes: Sequence[Size], suffix: tuple[str, str], ignore: int
) -> list[dict[str, Any]]:
    """Inputs, labels and, with label maps, mean IoU of both ways, one row a size of the pictures."""
    rows: list[dict[str, Any]] = []
    with Predictor(bundle, output="source", keep_image=False) as predictor:
        manifest = predictor.manifest
        for size in (None, *sizes):
            differing = total = 0
            offs: list[NDArray[np.int_]] = []
            scores = {"exact": ConfusionMatrix(manifest.num_classes), "plain": ConfusionMatrix(manifest.num_classes)}
            for file, image in _pictures(folder, size):
                found: dict[str, Any] = {}
                inputs: dict[str, U8] = {}
                for name, way in (("exact", resize), ("plain", plain_resize)):
                    with mock.patch.object(images, "resize", way):
                        inputs[name] = fit_image(image, manifest.input_size, manifest.resize)[0]
                        found[name] = predictor(image).labels
                offs.append(np.abs(inputs["exact"].astype(int) - inputs["plain"]))
                differing += int(np.count_nonzero(found["exact"] != found["plain"]))
                total += found["exact"].size
                truth = None if labels is None else labels / f"{file.stem.replace(*suffix)}.png"
                if truth is not None and truth.is_file():
                    for name, matrix in scores.items():
                        wanted = resize(read_labels(truth), found[name].shape, "nearest")
                        matrix.update(wanted, found[name], ignore=ignore)
            row = {"bundle": manifest.name, "filter": manifest.resize.filter, "pictures": "as they are"}
            row |= {} if size is None else {"pictures": f"{size[0]}x{size[1]}"}
            shares = {"labels_off": differing / total, "labels": total}
            rows.append({**row, **_off(np.concatenate([off.ravel() for off in offs])), **shares, **_ious(scores)})
    return rows


def _pictures(folder: Path, size: Size | None) -> Iterator[tuple[Path, U8]]:
    for file in pictures_at(folder):
        image = read_image(file)
        yield file, image if size is None else resize(image, size, "area")


def _ious(scores: dict[str, ConfusionMatrix]) -> dict[str, float]:
    return {f"miou_{name}": float(matrix.miou) for name, matrix in scores.items() if matrix.counts.any()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print one JSON row a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("--images", type=Path, help="folder of pictures, or a picture")
    parser.add_argument("--labels", type=Path, help="folder of label maps, PNG")
    parser.add_argument("--ignore", type=int, default=255, help="their value of void")
    parser.add_argument(
        "--suffix", nargs=2, default=("", ""), metavar=("OLD", "NEW"), help="in the stems of label maps"
    )
    parser.add_argument("--sizes", nargs="*", type=parse_size, default=[])
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args(arguments)
    if options.bundles and options.images is None:
        parser.error("--images is missing")
    rows = [] if options.bundles else time_filters(options.rounds)
    for bundle in options.bundles:
        truth = options.labels, options.sizes, tuple(options.suffix), options.ignore
        rows += compare_labels(bundle, options.images, *truth)
    for row in rows:
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
