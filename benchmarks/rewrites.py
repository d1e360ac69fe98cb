"""The algebraic rewrites: every network exported with and without them, counted, compared and timed.

    python benchmarks/rewrites.py                                        # every registered network; resumable
    python benchmarks/rewrites.py mmseg_segformer_b0 --size 512x512
    python benchmarks/rewrites.py pidnet_s --skip-pass PushLinear        # what one pass is worth

Both bundles hold the same weights, filled by rule. Nodes, multiply-accumulates and bytes are counted on ``model.onnx``
(`edgeseg.graph.cost`); the largest logit difference and the share of equal labels are those of the two graphs
on one picture in ONNX Runtime, the worse of them where ONNX Runtime has a graph of its own. Latency is the engine's
alone, on ONNX Runtime and OpenVINO, on one thread: the two graphs take turns frame by frame in one process
(`edgeseg.bench.paired`), so that a shared machine disturbs both alike. The speed-up is the median ratio of such pairs
of frames, with its 95 % interval. Graphs that no pass changed for an engine are not timed on it; where no operator
is new and some are left out, the row says so (``only_fewer``): a slow-down measured there is taken for noise. Writes
JSON after every network, and a table.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.matrix import lively, matrix_size, smallest_of_each_system  # noqa: E402
from edgeseg import bundle as layout  # noqa: E402
from edgeseg.bench.machine import describe_machine  # noqa: E402
from edgeseg.bench.paired import Contender, frame_ratio  # noqa: E402
from edgeseg.errors import EdgesegError  # noqa: E402
from edgeseg.export import export_model  # noqa: E402
from edgeseg.export.reference import shipped_sample  # noqa: E402
from edgeseg.files import write_text  # noqa: E402
from edgeseg.graph.cost import graph_cost, with_shapes  # noqa: E402
from edgeseg.graph.passes import PassReport  # noqa: E402
from edgeseg.graph.run import run_graph  # noqa: E402
from edgeseg.images import fit_image, read_image  # noqa: E402
from edgeseg.models import create_model, list_models, model_spec  # noqa: E402
from edgeseg.specs import ResizeRule, Size, parse_size  # noqa: E402

ENGINES = ("ort", "openvino")
RESULTS = ROOT / "benchmarks" / "results" / "rewrites.json"
TABLE = ROOT / "docs" / "rewrites.md"
Row = dict[str, Any]


def measure(name: str, size: Size, options: argparse.Namespace) -> Row:
    """One network: counts, differences, and times where the graphs differ."""
    network, spec = lively(create_model(name)).eval(), model_spec(name)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        frame = Path(folder) / "frame.npy"
        image = fit_image(read_image(shipped_sample()), size, ResizeRule())[0]
        np.save(frame, image)
        bundles: dict[str, Path] = {}
        row: Row = {"name": name, "size": list(size), "threads": 1}
        for key, rewrites in (("before", False), ("after", True)):
            report = export_model(
                network,
                spec=spec,
                size=size,
                targets=options.engines,
                out=folder,
                name=f"{name}_{key}",
                rewrites=rewrites,
                min_agreement=0.0,  # weights by rule: some networks amplify the last bit (docs/matrix.md)
                max_logit_error=1e9,
                skip_passes=options.skip_pass,
            )
            bundles[key] = report.path
            row[key] = counts(report.path / layout.MODEL)
            row["passes"] = [told(entry) for entry in report.passes if entry.modified or entry.error is not None]
        changed = {engine: graph_of(bundles["after"], engine) for engine in options.engines}
        before = bundles["before"] / layout.MODEL
        found = [difference(before, graph, image) for graph in dict.fromkeys(changed.values())]
        row["largest_difference"] = max(each["largest_difference"] for each in found)
        row["equal_labels"] = min(each["equal_labels"] for each in found)
        row["only_fewer"] = {engine: only_fewer(before, graph) for engine, graph in changed.items()}
        timed = [engine for engine, graph in changed.items() if counts(graph) != row["before"]]
        if timed and not options.no_times:
            row["times"] = {engine: time_paired(bundles, engine, frame, options.seconds) for engine in timed}
    return row


def graph_of(bundle: Path, engine: str) -> Path:
    """The graph that an engine runs, or is made from."""
    own = bundle / layout.ORT_MODEL
    return own if engine == "ort" and own.is_file() else bundle / layout.MODEL


def counts(path: Path) -> dict[str, int]:
    """Nodes, multiply-accumulates and bytes moved per frame."""
    cost = graph_cost(onnx.load(path))
    return {"nodes": cost.nodes, "macs": cost.macs, "bytes": cost.bytes}


def only_fewer(before: Path, after: Path) -> bool:
    """Whether every operator of the second graph is one of the first's, and some of those are left out.

    Operators are the same by kind, attributes and shapes (`operators`), not by what they are connected to.
    """
    old, new = (operators(onnx.load(path)) for path in (before, after))
    return new < old


def operators(model: onnx.ModelProto) -> Counter[tuple[Any, ...]]:
    """How often each operator is there: kind, attributes, shapes it reads and shapes it writes."""
    graph = with_shapes(model).graph
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return Counter(
        (
            node.op_type,
            tuple(sorted(entry.SerializeToString() for entry in node.attribute)),
            tuple(shapes.get(name) for name in node.input),
            tuple(shapes.get(name) for name in node.output),
        )
        for node in model.graph.node
    )


def told(entry: PassReport) -> dict[str, Any]:
    """A pass's report as JSON values."""
    return {"name": entry.name, "nodes": entry.nodes, "macs": entry.macs, "bytes": entry.bytes, "error": entry.error}


def difference(before: Path, after: Path, image: NDArray[np.uint8]) -> dict[str, float]:
    """Largest logit difference relative to the logits' range, and the share of equal labels at the logits' size."""
    old, new = (run_graph(onnx.load(path), {"image": image[None]})[0].astype(np.float64) for path in (before, after))
    span = float(np.ptp(old)) or 1.0
    equal = (old > 0) == (new > 0) if old.shape[1] == 1 else old.argmax(axis=1) == new.argmax(axis=1)
    return {"largest_difference": float(np.abs(new - old).max()) / span, "equal_labels": float(np.mean(equal))}


def time_paired(bundles: dict[str, Path], engine: str, frame: Path, seconds: float) -> dict[str, Any]:
    """Medians of both graphs in one engine, and how many times as fast the rewritten one is."""
    asked = {"bundles": {key: str(path) for key, path in bundles.items()}, "target": engine, "frame": str(frame)}
    with Contender("benchmarks.contenders:engines_alone", asked, path=[ROOT]) as contender:
        samples = contender.turns(seconds)
    medians = {f"{key}_ms": float(np.median(times)) for key, times in samples.items()}
    return {**medians, **frame_ratio(samples["before"], samples["after"]).to_json(), "pairs": len(samples["before"])}


def summary(rows: Sequence[Row], engines: Sequence[str]) -> dict[str, Any]:
    """Geometric mean of the speed-ups, the slowest network, and the largest difference."""
    found: dict[str, Any] = {"networks": len(rows)}
    for engine in engines:
        ratios = {row["name"]: row["times"][engine]["ratio"] for row in rows if engine in row.get("times", {})}
        if ratios:
            worst = min(ratios, key=lambda name: ratios[name])
            mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
            found[engine] = {"timed": len(ratios), "mean": mean, "least": [worst, ratios[worst]]}
    differences = [row["largest_difference"] for row in rows if "largest_difference" in row]
    found["largest_difference"] = max(differences, default=0.0)
    return found


def write_table(rows: Sequence[Row], machine: str, engines: Sequence[str]) -> str:
    """Markdown, one line per network."""
    head = ["network", "size", "operators", "GMACs", "MB moved", "largest difference", "equal labels", *engines]
    lines = [
        "# What the rewrites are worth",
        "",
        f"Written by `python benchmarks/rewrites.py` on {machine}. Before -> after; times are the engine's alone, in",
        "ms, on one thread, with the speed-up of frame against frame and its 95 % interval; what is marked * was timed",
        "in blocks of a second in processes of their own, on one or two threads (the JSON says which): it is coarser.",
        "What is marked - has no new operator and fewer of them: less than 1 is taken for noise there.",
        "The largest logit difference is relative to the logits' range.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
    ]
    return "\n".join([*lines, *(_line(row, engines) for row in rows)]) + "\n"


def _line(row: Row, engines: Sequence[str]) -> str:
    size = f"{row['size'][0]}x{row['size'][1]}"
    if "error" in row:
        return f"| {row['name']} | {size} | {row['error']} |" + " |" * (4 + len(engines))
    before, after = row["before"], row["after"]
    cells = [
        row["name"],
        size,
        f"{before['nodes']} -> {after['nodes']}",
        f"{before['macs'] / 1e9:.3f} -> {after['macs'] / 1e9:.3f}",
        f"{before['bytes'] / 1e6:.0f} -> {after['bytes'] / 1e6:.0f}",
        f"{row['largest_difference']:.1e}",
        f"{row['equal_labels']:.4%}",
        *(_time(row.get("times", {}).get(engine), row.get("only_fewer", {}).get(engine)) for engine in engines),
    ]
    return "| " + " | ".join(cells) + " |"


def _time(found: dict[str, Any] | None, only_fewer: bool | None) -> str:
    if found is None:
        return "unchanged"
    low, high = found["ratio_95"]
    mark = (" *" if "pairs" not in found else "") + (" -" if only_fewer else "")
    return f"{found['before_ms']:.1f} -> {found['after_ms']:.1f}, {found['ratio']:.2f} ({low:.2f} to {high:.2f}){mark}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="registered networks; all of them if none is given")
    parser.add_argument("--one-per-system", action="store_true", help="the smallest network of each system")
    parser.add_argument("--size", type=parse_size, help="HEIGHTxWIDTH; default 256x512, or what the network takes")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--skip-pass", action="append", default=[], help="leave a pass out; may be given again")
    parser.add_argument("--no-times", action="store_true", help="only count and compare")
    parser.add_argument("--seconds", type=float, default=10.0, help="of an engine's turns")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no network after so long; run again")
    parser.add_argument("--fresh", action="store_true", help="measure again what is already there")
    parser.add_argument("--work", type=Path, help="folder for the exported networks, removed afterwards")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, default=TABLE)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not there yet; 1 where a network failed."""
    options = parse(arguments)
    known = json.loads(options.json.read_text()) if options.json.is_file() else {"rows": []}
    rows = {(row["name"], *row["size"]): row for row in known["rows"]}
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    machine, started = describe_machine(), time.monotonic()
    everything = smallest_of_each_system() if options.one_per_system else list_models()
    for name in options.names or everything:
        size = options.size or matrix_size(name)
        key = (name, *size)
        if (key in rows and not options.fresh) or time.monotonic() - started > 60 * options.minutes:
            continue
        rows[key] = _attempt(name, size, options)
        ordered = [rows[key] for key in sorted(rows)]
        report = {"machine": machine.to_json(), "summary": summary(ordered, options.engines), "rows": ordered}
        write_text(options.json, json.dumps(report, indent=1) + "\n")
        write_text(options.table, write_table(ordered, machine.cpu, options.engines))
        print(_line(rows[key], options.engines), flush=True)
    return int(any("error" in row for row in rows.values()))


def _attempt(name: str, size: Size, options: argparse.Namespace) -> Row:
    try:
        return measure(name, size, options)
    except EdgesegError as error:
        return {"name": name, "size": list(size), "error": str(error)}


if __name__ == "__main__":
    sys.exit(main())
