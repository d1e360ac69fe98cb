"""uint8 picture into the graph against normalisation on the host, for one network on each CPU engine.

    python benchmarks/input.py fast_scnn pidnet_s

Both graphs are the exporter's plain ones, without rewrites, so that the input is all they differ in; logits come out.
Contenders are processes of their own that take turns (`edgeseg.bench.paired`). OpenCV's ``blobFromImage`` knows one
scale for all channels, so it is what people use where the standard deviations are nearly equal.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.end_to_end import ENGINES, export_plainly  # noqa: E402
from benchmarks.matrix import lively  # noqa: E402
from edgeseg.bench.machine import describe_machine  # noqa: E402
from edgeseg.bench.paired import Contender, alternate, pair_ratio  # noqa: E402
from edgeseg.export.deploy import DeployNetwork  # noqa: E402
from edgeseg.export.reference import shipped_sample  # noqa: E402
from edgeseg.export.to_onnx import export_onnx, simplify  # noqa: E402
from edgeseg.files import write_text  # noqa: E402
from edgeseg.images import fit_image, read_image  # noqa: E402
from edgeseg.models import create_model, model_spec  # noqa: E402
from edgeseg.specs import ResizeRule, Size, parse_size  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "input.json"
Words = dict[str, tuple[str, dict[str, Any]]]


def prepare(name: str, size: Size, folder: Path) -> Words:
    """Export both graphs; contender -> its factory and keywords."""
    network, spec = lively(create_model(name)).eval(), model_spec(name)
    frame, raw, floats = folder / "frame.npy", folder / "raw.onnx", folder / "floats.onnx"
    np.save(frame, fit_image(read_image(shipped_sample()), size, ResizeRule())[0])
    onnx.save(simplify(export_onnx(DeployNetwork(network, spec.input).eval(), size)), raw)
    export_plainly(network, spec, size, floats, argmax=False)
    std = [value / spec.input.scale for value in spec.input.std]
    how = {"mean": spec.input.mean, "std": std, "order": spec.input.channel_order}
    found: Words = {}
    for engine in ENGINES:
        common = {"engine": engine, "frame": str(frame)}
        found[f"uint8 {engine}"] = ("benchmarks.contenders:raw_input", {**common, "onnx": str(raw)})
        for library in ("numpy", "opencv"):
            words = {**common, **how, "onnx": str(floats), "how": library}
            found[f"{library} {engine}"] = ("benchmarks.contenders:host_input", words)
    return found


def measure(name: str, size: Size, blocks: int, seconds: float) -> dict[str, Any]:
    """One network: medians, and each way's time over that of uint8 on the same engine."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        running = {
            key: stack.enter_context(Contender(factory, words, path=[ROOT])).block
            for key, (factory, words) in prepare(name, size, Path(folder)).items()
        }
        samples = alternate(running, blocks=blocks, seconds=seconds)
    row: dict[str, Any] = {"name": name, "size": list(size), "ms": {}, "over_uint8": {}}
    for key, blocks_of in samples.items():
        row["ms"][key] = float(np.median(np.concatenate(blocks_of)))
        row["over_uint8"][key] = pair_ratio(blocks_of, samples[f"uint8 {key.split()[-1]}"]).to_json()
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the networks and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["fast_scnn", "pidnet_s"])
    parser.add_argument("--size", type=parse_size, default=(512, 1024), help="HEIGHTxWIDTH")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    rows = [measure(name, options.size, options.blocks, options.seconds) for name in options.names]
    for row in rows:
        print(
            row["name"], {key: f"{row['ms'][key]:.1f} ms, {row['over_uint8'][key]['ratio']:.2f}" for key in row["ms"]}
        )
    write_text(options.json, json.dumps({"machine": describe_machine().to_json(), "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
