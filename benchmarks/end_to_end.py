"""Frame in, labels out: edgeseg against the path people write by hand, on the same machine in the same minutes.

    python benchmarks/end_to_end.py                          # the networks of NETWORKS at 512x1024; resumable
    python benchmarks/end_to_end.py pidnet_s --int8 --calib frames/ --seconds 1
    python benchmarks/end_to_end.py --int8 --calib frames/ --work exported --export-only   # then, on a quiet machine,
    python benchmarks/end_to_end.py --int8 --calib frames/ --work exported

A frame is uint8 RGB of the network's size, the labels uint8 of the same size. Contenders, each in a process of its own,
alternating in blocks with idle gaps (`edgeseg.bench.paired`):

- edgeseg fp32, int8 with ``--int8`` and bf16 with ``--bf16``: the bundle in the Predictor, on ONNX Runtime and OpenVINO
  (bf16 on OpenVINO alone);
- plain (a): torch.onnx.export, onnxsim, numpy normalisation, resize and argmax in the graph, on both engines; OpenVINO
  takes its own default there, bf16 on CPUs that have it, while edgeseg's fp32 is fp32 (bf16 is an export of its own);
- logits out (b): the same export ending in logits, OpenCV resizes each class, numpy takes the argmax;
- engine (c): edgeseg's graph alone in the engine: the floor.

The networks are filled with weights by rule: times do not depend on them, but for the postprocessing, whose two ways do
depend on the map; a noisy map, as here, is its slow case. Writes JSON after every network, a table and a picture.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import contenders  # noqa: E402
from benchmarks.matrix import lively  # noqa: E402
from edgeseg.bench.harness import run_benchmark  # noqa: E402
from edgeseg.bench.machine import describe_machine  # noqa: E402
from edgeseg.bench.paired import Contender, alternate, pair_ratio  # noqa: E402
from edgeseg.bench.report import Settings  # noqa: E402
from edgeseg.export import export_model  # noqa: E402
from edgeseg.export.reference import shipped_sample  # noqa: E402
from edgeseg.export.to_onnx import quiet, simplify  # noqa: E402
from edgeseg.files import write_text  # noqa: E402
from edgeseg.images import fit_image, read_image  # noqa: E402
from edgeseg.models import ModelSpec, create_model, model_spec  # noqa: E402
from edgeseg.specs import ResizeRule, Size, parse_size  # noqa: E402

NETWORKS = (
    *("fast_scnn", "pidnet_s", "ppliteseg_t", "cgnet_m3n15", "ffnet46ns_ccc_mobile", "mmseg_segformer_b0"),
    *("afformer_tiny", "espnet_p2_q8", "bisenetv2", "ddrnet_23_slim", "stdc1_seg", "topformer_tiny"),
)
ENGINES = ("ort", "openvino")
RESULTS = ROOT / "benchmarks" / "results" / "end-to-end.json"
TABLE = ROOT / "docs" / "speed.md"
Row = dict[str, Any]
_TEXT = """\
# Camera to mask

Written by `python benchmarks/end_to_end.py` on {machine}: uint8 frame in, uint8 labels out, both 512x1024 where no
other size is given; milliseconds, median of alternating blocks. `plain` is the path people write by hand
(torch.onnx.export, onnxsim, numpy normalisation, resize and argmax in the graph; OpenVINO computes it in its own
default, bf16 on this processor), `engine` is edgeseg's fp32 graph alone. int8 is every operator that can be: weights
filled by rule have no accuracy to hold. The last columns are pre-processing and postprocessing as a share of the
engine's time, on the noisy maps that such weights give, the postprocessing's slow case.
"""


class _Plain(nn.Module):
    """The network with the resize, and the argmax where wanted, in the graph."""

    def __init__(self, network: nn.Module, size: Size, align_corners: bool, *, argmax: bool) -> None:
        super().__init__()
        self.network, self.size, self.align_corners, self.argmax = network, size, align_corners, argmax

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)
        if not self.argmax:
            return logits
        resized = nn.functional.interpolate(logits, self.size, mode="bilinear", align_corners=self.align_corners)
        return resized.argmax(dim=1)


def export_plainly(network: nn.Module, spec: ModelSpec, size: Size, path: Path, *, argmax: bool) -> None:
    """torch.onnx.export and onnxsim, nothing else."""
    module = _Plain(network, size, spec.postprocess.align_corners, argmax=argmax).eval()
    with quiet():
        program = torch.onnx.export(module, (torch.zeros(1, 3, *size),), dynamo=True, opset_version=18, verbose=False)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    part = path.with_suffix(".part")  # a file of the final name is whole
    onnx.save(simplify(program.model_proto), part)
    part.replace(path)


def prepare(name: str, size: Size, work: Path, options: argparse.Namespace) -> dict[str, tuple[str, dict[str, Any]]]:
    """Export what is not there yet into a folder of `work`; contender -> its factory and keywords."""
    folder = work / f"{name}_{size[0]}x{size[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    network, spec = lively(create_model(name)).eval(), model_spec(name)
    frame = folder / "frame.npy"
    np.save(frame, fit_image(read_image(options.frame or shipped_sample()), size, ResizeRule())[0])
    bundles = {"fp32": export(network, spec, size, folder, "fp32", options)}
    for precision in ("int8", "bf16"):
        if getattr(options, precision):
            bundles[precision] = export(network, spec, size, folder, precision, options)
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    common = {"frame": str(frame)}
    std = [value / spec.input.scale for value in spec.input.std]
    by_hand = {**common, "mean": spec.input.mean, "std": std, "order": spec.input.channel_order}
    for argmax, kind in ((True, "plain"), (False, "logits_out")):
        path = folder / f"{kind}.onnx"
        if not path.is_file():
            export_plainly(network, spec, size, path, argmax=argmax)
        for engine in ENGINES:
            found[f"{kind} {engine}"] = (
                f"benchmarks.contenders:{kind}",
                {**by_hand, "onnx": str(path), "engine": engine},
            )
    for engine in ENGINES:
        for precision, bundle in bundles.items():
            if precision == "bf16" and engine != "openvino":
                continue
            words = {**common, "bundle": str(bundle), "target": engine}
            found[f"edgeseg {precision} {engine}"] = ("benchmarks.contenders:ours", words)
        floor = {**common, "bundle": str(bundles["fp32"]), "target": engine}
        found[f"engine {engine}"] = ("benchmarks.contenders:engine_alone", floor)
    return found


def export(
    network: nn.Module, spec: ModelSpec, size: Size, folder: Path, precision: str, options: argparse.Namespace
) -> Path:
    """One bundle for both engines."""
    there = folder / f"{spec.name}_{precision}.edgeseg"
    if there.is_dir():
        return there
    more: dict[str, Any] = {}
    if precision != "fp32":
        more = {"precision": precision, "calib": options.calib if precision == "int8" else None, "force": True}
    report = export_model(
        network,
        spec=spec,
        size=size,
        targets=ENGINES if precision != "bf16" else ("openvino",),
        out=folder,
        name=f"{spec.name}_{precision}",
        min_agreement=0.0,  # weights by rule: some networks amplify the last bit (docs/matrix.md)
        max_logit_error=1e9,
        **more,
    )
    return report.path


def measure(name: str, size: Size, options: argparse.Namespace) -> Row:
    """One network: medians, ratios against (a), and the stages of edgeseg's own time."""
    with ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        wanted = prepare(name, size, work, options)
        agreement = {key: agrees(wanted, key) for key in wanted if key.startswith(("edgeseg", "logits_out"))}
        running = {
            key: stack.enter_context(Contender(factory, words, path=[ROOT])).block
            for key, (factory, words) in wanted.items()
        }
        samples = alternate(running, blocks=options.blocks, seconds=options.seconds, gap=options.gap)
        bundles = {key: words["bundle"] for key, (_, words) in wanted.items() if key.startswith("edgeseg")}
        stages = {key: stage_medians(bundle, key.split()[-1], options) for key, bundle in bundles.items()}
    row: Row = {"name": name, "size": list(size), "agreement_with_plain": agreement, "stages_ms": stages, "ms": {}}
    for key, blocks in samples.items():
        row["ms"][key] = float(np.median(np.concatenate(blocks)))
    row["faster_than_plain_ort"] = {
        key: pair_ratio(samples["plain ort"], blocks).to_json() for key, blocks in samples.items()
    }
    row["samples_ms"] = samples
    return row


def agrees(wanted: dict[str, tuple[str, dict[str, Any]]], key: str) -> float:
    """Share of labels equal to those of the plain path on ONNX Runtime."""
    found = []
    for chosen in (key, "plain ort"):
        factory, words = wanted[chosen]
        found.append(getattr(contenders, factory.partition(":")[2])(**words)())
    return float(np.mean(found[0] == found[1]))


def stage_medians(bundle: str, target: str, options: argparse.Namespace) -> dict[str, float]:
    """Median milliseconds of each stage of the Predictor, in a process of its own."""
    settings = Settings(min_samples=10, seconds=options.seconds * 3, warmup_seconds=2.0)
    report = run_benchmark(bundle, target, images=[np.load(Path(bundle).parent / "frame.npy")], settings=settings)
    return {stage: float(np.median(values)) for stage, values in report.samples.items()}


def geometric_mean(rows: Sequence[Row], key: str, base: str) -> float | None:
    """Over the networks that have both: how many times as fast `key` is as `base`."""
    logs = [math.log(row["ms"][base] / row["ms"][key]) for row in rows if key in row["ms"] and base in row["ms"]]
    return math.exp(sum(logs) / len(logs)) if logs else None


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Geometric means against the plain path on ONNX Runtime and on the same engine."""
    found: dict[str, Any] = {"networks": len(rows)}
    for key in dict.fromkeys(key for row in rows for key in row["ms"]):
        for base in ("plain ort", f"plain {key.split()[-1]}"):
            found[f"{key} against {base}"] = geometric_mean(rows, key, base)
    return found


def write_table(rows: Sequence[Row], machine: str) -> str:
    """Markdown: one line per network, and the geometric means against the plain path on ONNX Runtime."""
    keys = list(dict.fromkeys(key for row in rows for key in row["ms"] if not key.startswith("logits_out")))
    shares = list(dict.fromkeys(key for row in rows for key in row["stages_ms"] if " fp32 " in key))
    head = ["network", *keys, *(f"before and after, {key}" for key in shares)]
    lines = [
        _TEXT.format(machine=machine),
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *(_line(row, keys, shares) for row in rows),
    ]
    means = (geometric_mean(rows, key, "plain ort") for key in keys)
    told = ["**times as fast as plain ort**", *("" if mean is None else f"**{mean:.2f}**" for mean in means)]
    return "\n".join([*lines, "| " + " | ".join([*told, *("" for _ in shares)]) + " |"]) + "\n"


def _line(row: Row, keys: Sequence[str], shares: Sequence[str]) -> str:
    name = row["name"] if row["size"] == [512, 1024] else f"{row['name']} {row['size'][0]}x{row['size'][1]}"
    times = [f"{row['ms'][key]:.1f}" if key in row["ms"] else "" for key in keys]
    stages = [row["stages_ms"].get(key) for key in shares]
    parts = [
        "" if found is None else f"{(found['pre'] + found['postprocess']) / found['infer']:.0%}" for found in stages
    ]
    return "| " + " | ".join([name, *times, *parts]) + " |"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Bars per network: milliseconds of each contender."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    keys = list(dict.fromkeys(key for row in rows for key in row["ms"]))
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.12 * len(keys) * len(rows)))
    for index, key in enumerate(keys):
        places = [place + 0.8 * index / len(keys) for place in range(len(rows))]
        axes.barh(places, [row["ms"].get(key, 0.0) for row in rows], height=0.8 / len(keys), label=key)
    axes.set_yticks([place + 0.4 for place in range(len(rows))], [row["name"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds per frame, median")
    axes.legend(fontsize="x-small")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--size", type=parse_size, default=(512, 1024), help="HEIGHTxWIDTH")
    parser.add_argument("--int8", action="store_true", help="also int8; needs --calib")
    parser.add_argument("--bf16", action="store_true", help="also bf16, where OpenVINO's processor has it")
    parser.add_argument("--calib", type=Path, help="folder of calibration pictures")
    parser.add_argument("--frame", type=Path, help="picture to run on; the shipped one if none is given")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a block")
    parser.add_argument("--gap", type=float, default=0.2, help="idle seconds before a block")
    parser.add_argument("--fresh", action="store_true", help="measure again what is already there")
    parser.add_argument("--work", type=Path, help="folder that keeps what is exported, and is looked into first")
    parser.add_argument("--export-only", action="store_true", help="fill --work and measure nothing")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args(arguments)
    if options.int8 and options.calib is None:
        parser.error("--int8 needs --calib FOLDER: real pictures decide the ranges")
    if options.export_only and options.work is None:
        parser.error("--export-only needs --work FOLDER")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not there yet."""
    options = parse(arguments)
    if options.export_only:
        for name in options.names:
            prepare(name, options.size, options.work, options)
        return 0
    known = json.loads(options.json.read_text()) if options.json.is_file() else {"rows": []}
    rows = {row["name"]: row for row in known["rows"]}
    for name in options.names:
        if name in rows and not options.fresh:
            continue
        rows[name] = row = measure(name, options.size, options)
        print(name, {key: round(value, 1) for key, value in row["ms"].items()}, flush=True)
        report = {
            "machine": describe_machine().to_json(),
            "summary": summary([*rows.values()]),
            "rows": [*rows.values()],
        }
        write_text(options.json, json.dumps(report, indent=1) + "\n")
        write_text(options.table, write_table([*rows.values()], describe_machine().cpu))
        draw([*rows.values()], options.json.with_suffix(".png"))
    print(json.dumps(summary([*rows.values()]), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
