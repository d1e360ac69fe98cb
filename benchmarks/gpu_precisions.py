"""Every registered network in fp32, fp16 and int8 as NVIDIA's engines are given it: built, and walked layer by layer.

    python benchmarks/gpu_precisions.py          # the smallest network of each system; goes on where it stopped
    python benchmarks/gpu_precisions.py --all 'espnet*'

TensorRT-RTX parses and builds on a machine without a GPU; nothing is run. Weights are filled by a rule, int8 is
calibrated on noise and the sample picture, and passes are undone where the logits go away from fp32's. What is checked
are the rules of `tests.runtimes.tensorrt.parsed`. Results go to a JSON file after every network, and to docs/matrix.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import matrix  # noqa: E402
from edgeseg.errors import EdgesegError  # noqa: E402
from edgeseg.export.config import ExportConfig  # noqa: E402
from edgeseg.export.job import ExportJob, prepare_job  # noqa: E402
from edgeseg.export.network_graph import NetworkGraph, network_graph  # noqa: E402
from edgeseg.export.precision.fp16 import measure_nodes  # noqa: E402
from edgeseg.export.precision.int8 import quantise  # noqa: E402
from edgeseg.export.reference import shipped_sample  # noqa: E402
from edgeseg.export.target_graphs import TargetGraphs  # noqa: E402
from edgeseg.files import write_text  # noqa: E402
from edgeseg.graph.half import kept_in_fp32, marked, to_half  # noqa: E402
from edgeseg.graph.qdq import named  # noqa: E402
from edgeseg.graph.run import run_graph  # noqa: E402
from edgeseg.images import fit_image, read_image  # noqa: E402
from edgeseg.models import create_model, list_models, model_spec  # noqa: E402
from edgeseg.models.source import resolve_network  # noqa: E402
from edgeseg.runtimes.tensorrt.packages import rtx_module  # noqa: E402
from edgeseg.runtimes.tensorrt.rtx import build_engine  # noqa: E402
from edgeseg.specs import ResizeRule, Size  # noqa: E402
from tests.goldens.runner import fitting_size  # noqa: E402
from tests.runtimes.tensorrt.parsed import CONVOLUTIONS, Parsed, broken_rules, parsed  # noqa: E402

PRECISIONS = ("fp32", "fp16", "int8")
SIZE = (64, 128)
RESULTS = ROOT / "benchmarks" / "results" / "gpu-precisions.json"

Row = dict[str, Any]


def check(name: str, size: Size | None = None, precisions: Sequence[str] = PRECISIONS) -> Row:
    """One row: a network in every precision, each alone where one of them fails."""
    started = time.perf_counter()
    spec = model_spec(name)
    size = size or fitting_size(name, SIZE)
    row: Row = {"name": name, "system": spec.system, "size": list(size), "cells": {}}
    source = resolve_network(matrix.lively(create_model(name)), spec=spec)
    job = prepare_job(source, ExportConfig(targets=("trt-rtx",), size=size), name)
    graph = network_graph(job)
    plain = named(graph.model)
    images = _pictures(job)
    measured = measure_nodes(plain, images)
    reasons = {node: entry.reason for node, entry in measured.items() if entry.reason}
    for precision in precisions:
        try:
            row["cells"][precision] = _cell(graph, plain, precision, images, reasons)
        except (EdgesegError, ValueError) as error:
            row["cells"][precision] = {"ok": False, "words": str(error)}
    row["seconds"] = round(time.perf_counter() - started, 1)
    return row


def _pictures(job: ExportJob) -> list[NDArray[np.uint8]]:
    sample = fit_image(read_image(shipped_sample()), job.size, ResizeRule("stretch", "linear"))[0]
    return [sample, job.noise[0]]


def _cell(
    graph: NetworkGraph,
    plain: onnx.ModelProto,
    precision: str,
    images: Sequence[NDArray[np.uint8]],
    reasons: dict[str, str],
) -> Row:
    """One network in one precision: the graph that the target is given, parsed, walked and built."""
    started = time.perf_counter()
    lowered = plain
    if precision == "fp16":
        lowered = marked(to_half(plain, reasons), reasons)
    if precision == "int8":
        lowered = marked(quantise(plain, images), reasons)
    graphs = TargetGraphs(graph.job, plain, lowered, _nearness(plain, images), folded=graph.folded)
    model, reports = graphs.of("trt-rtx", precision), graphs.reports_of("trt-rtx", precision)
    network = parsed(rtx_module(), model, kept_in_fp32(model))
    broken = broken_rules(network, precision)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(model.SerializeToString())
        built = build_engine(file, Path(folder))
    undone = {report.name: report.reason for report in reports if report.reason}
    return {
        "ok": not broken and not undone,
        "plan_bytes": built.size,
        "seconds": round(time.perf_counter() - started, 1),
        "convolutions": _convolutions(network),
        "fp32_operators": len(network.kept),
        "undone": undone,
        "declined": [reason for report in reports for reason in report.declined],
        "broken": broken,
    }


def _nearness(plain: onnx.ModelProto, images: Sequence[NDArray[np.uint8]]) -> Callable[[onnx.ModelProto], float]:
    """Score a graph by how near its logits are to the fp32 graph's: one less their mean difference over the range.

    Weights that nobody trained put logits so close together that labels tell little.
    """
    wanted = [run_graph(plain, {"image": image[None]})[0] for image in images]

    def score(model: onnx.ModelProto) -> float:
        made = [run_graph(model, {"image": image[None]})[0].astype(np.float32) for image in images]
        pairs = zip(made, wanted, strict=True)
        return 1.0 - float(np.mean([np.abs(got - exact).mean() / (np.ptp(exact) or 1.0) for got, exact in pairs]))

    return score


def _convolutions(network: Parsed) -> dict[str, int]:
    """How many convolutions compute in which type."""
    found: Counter[str] = Counter()
    for layer in network.layers:
        if layer.kind in CONVOLUTIONS:
            int8 = network.kind_of(layer.inputs[0]) == "DEQUANTIZE"
            found["int8" if int8 else layer.types[0].lower()] += 1
    return dict(found)


def holds(row: Row) -> bool:
    """Whether every precision was built and breaks no rule."""
    return all(cell["ok"] for cell in row["cells"].values())


def section(rows: Sequence[Row]) -> str:
    """The part of docs/matrix.md; empty without rows."""
    if not rows:
        return ""
    lines = [
        "",
        "## In fp32, fp16 and int8 for NVIDIA's engines",
        "",
        "Written by `python benchmarks/gpu_precisions.py`: the graph that TensorRT is given, parsed and built by",
        "TensorRT-RTX without a GPU, and walked: the picture is cast first (to half where the graph is), no",
        "convolution is fp32 but those kept, int8 convolutions read int8 on both sides, no quantiser serves anything",
        "else, the graph ends in logits, in half. Convolutions are counted by what they compute in. Weights are",
        "filled by rule; nothing was run.",
        "",
        f"{sum(map(holds, rows))} of {len(rows)} networks ({len({row['system'] for row in rows})} systems) build and "
        f"keep every rule in all three precisions. The other {len(list_models()) - len(rows)} networks were not run.",
        "",
        "| network | system | at | fp32 | fp16 | int8 |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        told = [_words(row["cells"].get(precision)) for precision in PRECISIONS]
        lines.append(f"| {row['name']} | {row['system']} | {row['size'][0]}x{row['size'][1]} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def _words(cell: Row | None) -> str:
    if cell is None:
        return "-"
    if "convolutions" not in cell:
        return str(cell["words"]).replace("|", "/")
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(cell["convolutions"].items()))
    notes = [counts or "no convolution"]
    if cell["fp32_operators"]:
        notes.append(f"{cell['fp32_operators']} operators fp32")
    notes += [f"**{name} undone**" for name in cell["undone"]]
    notes += [f"**{name}: {sentences[0]}**".replace("|", "/") for name, sentences in cell["broken"].items()]
    return "; ".join(notes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; returns 1 where a network does not build or breaks a rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern on names")
    parser.add_argument("--all", action="store_true", help="every network, not the smallest of each system alone")
    parser.add_argument("--fresh", action="store_true", help="run again what is already there")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, default=matrix.TABLE)
    options = parser.parse_args(arguments)
    rows = matrix.load(options.json)
    chosen = set(list_models(options.pattern))
    if not options.all:
        chosen &= set(matrix.smallest_of_each_system())
    names = sorted(chosen, key=lambda name: model_spec(name).params)
    for index, name in enumerate(names, 1):
        if name in rows and not options.fresh:
            continue
        try:
            rows[name] = check(name)
        except EdgesegError as error:
            cells = {precision: {"ok": False, "words": str(error)} for precision in PRECISIONS}
            rows[name] = {"name": name, "system": model_spec(name).system, "size": [0, 0], "cells": cells, "seconds": 0}
        told = ", ".join(f"{precision} {_words(cell)}" for precision, cell in rows[name]["cells"].items())
        print(f"[{index}/{len(names)}] {name}: {told} ({rows[name]['seconds']} s)", flush=True)
        known = [rows[key] for key in list_models() if key in rows]
        write_text(options.json, json.dumps(known, indent=1) + "\n")
        write_text(options.table, matrix.write_table(list(matrix.load(matrix.RESULTS).values()), section(known)))
    return int(not all(holds(rows[name]) for name in names))


if __name__ == "__main__":
    sys.exit(main())
