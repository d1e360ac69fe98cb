"""The matrix: every registered network on every target that can be checked without a GPU.

    python benchmarks/matrix.py                      # all networks; goes on where it stopped
    python benchmarks/matrix.py 'espnet*' --fresh

Each network is filled with lively weights (a rule of its key names), exported at 256x512 (its own size where that is
smaller or not a multiple), run in ONNX Runtime and OpenVINO against fp32 PyTorch, and built by TensorRT-RTX. Results go
to a JSON file after every network and to docs/matrix.md. A cell that fails keeps the engine's own words; where labels
or logits are below the bound, the row also tells how far fp32 PyTorch itself is from float64: networks that choose (max
unpooling, points) amplify the last bit of any engine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgeseg.bundle import Parity  # noqa: E402
from edgeseg.errors import EdgesegError  # noqa: E402
from edgeseg.export import export_model  # noqa: E402
from edgeseg.export.deploy import DeployNetwork  # noqa: E402
from edgeseg.export.reference import parity_set, shipped_sample  # noqa: E402
from edgeseg.files import write_text  # noqa: E402
from edgeseg.models import create_model, list_models, model_spec  # noqa: E402
from edgeseg.models.outputs import logits_at  # noqa: E402
from edgeseg.postprocess import labels_from_logits  # noqa: E402
from edgeseg.specs import Size  # noqa: E402
from tests.goldens.golden import fill  # noqa: E402

TARGETS = ("ort", "openvino", "trt-rtx")
SIZE = (256, 512)
AGREEMENT, LOGITS = 0.999, 1e-3
RESULTS, TABLE = ROOT / "benchmarks" / "results" / "matrix.json", ROOT / "docs" / "matrix.md"

Row = dict[str, Any]


def smallest_of_each_system() -> list[str]:
    """The network with the fewest parameters per system, in order of their names."""
    chosen: dict[str, str] = {}
    for name in sorted(list_models(), key=lambda name: model_spec(name).params):
        chosen.setdefault(model_spec(name).system, name)
    return sorted(chosen.values())


def matrix_size(name: str) -> Size:
    """256x512, or the network's own size where that is smaller or 256x512 does not divide."""
    spec = model_spec(name)
    fits = all(side % spec.divisor == 0 and side >= spec.min_side for side in SIZE)
    small = spec.input_size[0] * spec.input_size[1] < SIZE[0] * SIZE[1]
    return spec.input_size if small or not fits else SIZE


def lively(network: nn.Module) -> nn.Module:
    """Fill a network's floating tensors by their names, as the golden records do: no two channels alike."""
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.as_tensor(fill(key, tuple(value.shape))))
    return network


def check(name: str, targets: Sequence[str] = TARGETS, size: Size | None = None) -> Row:
    """One row: the export of a network on every target, each alone where one of them fails."""
    size = size or matrix_size(name)
    network = lively(create_model(name))
    row: Row = {"name": name, "system": model_spec(name).system, "size": list(size), "cells": {}}
    started = time.perf_counter()
    try:
        row["cells"] = _cells(network, name, size, targets)
    except EdgesegError:
        for target in targets:
            try:
                row["cells"][target] = _cells(network, name, size, (target,))[target]
            except EdgesegError as error:
                row["cells"][target] = {"ok": False, "words": str(error)}
    if any("agreement" in cell and not cell["ok"] for cell in row["cells"].values()):
        row["rounding"] = rounding(network, name, size)
    row["seconds"] = round(time.perf_counter() - started, 1)
    return row


def holds(row: Row) -> bool:
    """Whether every cell holds its bound, or is about as close to fp32 PyTorch as that is to float64.

    About is ten times: engines sum in orders of their own.
    """
    return all(cell["ok"] or _within_rounding(cell, row.get("rounding")) for cell in row["cells"].values())


def _within_rounding(cell: Row, own: Row | None) -> bool:
    if own is None or "agreement" not in cell:
        return False
    return bool(cell["logit_error"] <= 10 * own["logit_error"] and 1 - cell["agreement"] <= 10 * (1 - own["agreement"]))


def rounding(network: nn.Module, name: str, size: Size) -> Row:
    """How far fp32 PyTorch is from float64 PyTorch on the parity pictures: no engine can be asked for more."""
    spec = model_spec(name)
    wanted = parity_set(DeployNetwork(network, spec.input), size, spec.resize, spec.postprocess, (shipped_sample(),))
    deployed = DeployNetwork(network, spec.input)
    images = [torch.from_numpy(image[None]) for image in wanted.images]
    with torch.inference_mode():
        inputs = [deployed.normalise(image).double() for image in images]
        exact = [np.asarray(logits_at(network.double()(x))[0]) for x in inputs]
    network.float()
    labels = [labels_from_logits(x.astype(np.float32), size, postprocess=spec.postprocess) for x in exact]
    differing = sum(int((a != b).sum()) for a, b in zip(labels, wanted.labels, strict=True))
    error = max(float(np.abs(a - b).max()) for a, b in zip(exact, wanted.logits, strict=True))
    pixels = sum(a.size for a in labels)
    return {"agreement": 1 - differing / pixels, "logit_error": error / wanted.logit_range}


def _cells(network: nn.Module, name: str, size: Size, targets: Sequence[str]) -> dict[str, Row]:
    with tempfile.TemporaryDirectory() as folder:
        spec = model_spec(name)
        report = export_model(
            network,
            spec=spec,
            size=size,
            targets=targets,
            out=folder,
            name=name,
            min_agreement=0.0,
            max_logit_error=1e9,
        )
    cells = {parity.target: cell_of(parity) for parity in report.parity}
    return {target: cells[target] for target in targets}


def cell_of(parity: Parity) -> Row:
    """One cell of a row: what was measured, and whether it holds the bounds."""
    relative = parity.max_logit_error / parity.logit_range if parity.logit_range else 0.0
    ok = parity.agreement >= AGREEMENT and relative <= LOGITS
    words = "" if ok else f"{parity.agreement:.4%} of the labels agree, logits to {relative:.1e} of their range"
    return {
        "ok": ok,
        "ran": parity.ran,
        "differing": parity.differing,
        "pixels": parity.pixels,
        "agreement": parity.agreement,
        "logit_error": relative,
        "words": words,
    }


def write_table(rows: Sequence[Row], more: str = "") -> str:
    """docs/matrix.md, with what `benchmarks/gpu_precisions.py` adds."""
    good = sum(all(cell["ok"] for cell in row["cells"].values()) for row in rows)
    lines = [
        "# Every network on every target",
        "",
        "Written by `python benchmarks/matrix.py`. Labels against fp32 PyTorch's on the same uint8 pictures (a",
        "photograph, noise, a ramp), and the largest logit difference relative to their range. TensorRT-RTX:",
        "the engine was built without a GPU and not run. Weights are filled by rule. Sizes are height x width.",
        "",
        f"{good} of {len(rows)} networks hold every bound (labels {AGREEMENT:.1%}, logits {LOGITS:g} of their range).",
        "",
        "| network | system | at | ONNX Runtime | OpenVINO | TensorRT-RTX |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        told = [_words(row["cells"].get(target)) for target in TARGETS]
        lines.append(f"| {row['name']} | {row['system']} | {row['size'][0]}x{row['size'][1]} | {' | '.join(told)} |")
    return "\n".join(lines + _told_of_rounding(rows)) + "\n" + more


def _told_of_rounding(rows: Sequence[Row]) -> list[str]:
    found = [row for row in rows if "rounding" in row]
    lines = ["", "Where a bound is not held, fp32 PyTorch itself differs from float64 PyTorch:", ""] if found else []
    return lines + [
        f"- {row['name']}: {row['rounding']['agreement']:.4%} of the labels agree, logits to "
        f"{row['rounding']['logit_error']:.0e} of their range."
        for row in found
    ]


def _words(cell: Row | None) -> str:
    if cell is None:
        return "-"
    if "agreement" not in cell:
        return str(cell["words"]).replace("|", "/")
    if not cell["ran"]:
        return "built"
    share = "100 %" if cell["differing"] == 0 else f"{cell['agreement']:.4%}"
    return f"{share}, {cell['logit_error']:.0e}" + ("" if cell["ok"] else " **below the bound**")


def load(path: Path) -> dict[str, Row]:
    """Rows of an earlier run by name."""
    return {row["name"]: row for row in json.loads(path.read_text())} if path.is_file() else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix; returns 1 where a cell fails for another reason than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern on names")
    parser.add_argument("--fresh", action="store_true", help="run again what is already there")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args(arguments)
    rows, names = load(options.json), list_models(options.pattern)
    for index, name in enumerate(names, 1):
        if name in rows and not options.fresh:
            continue
        rows[name] = check(name)
        told = ", ".join(f"{target} {_words(cell)}" for target, cell in rows[name]["cells"].items())
        print(f"[{index}/{len(names)}] {name}: {told} ({rows[name]['seconds']} s)", flush=True)
        known = [rows[key] for key in list_models() if key in rows]
        write_text(options.json, json.dumps(known, indent=1) + "\n")
        write_text(options.table, write_table(known))
    return int(not all(holds(rows[name]) for name in names))


if __name__ == "__main__":
    sys.exit(main())
