"""The matrix: every registered network on every target that can be checked without a GPU.

    python benchmarks/matrix.py                      # all networks; goes on where it stopped
    python benchmarks/matrix.py 'espnet*' --fresh

Each network is filled with lively weights (a rule of its key names), exported at 256x512 (its own size where that is
smaller or not a multiple), run in ONNX Runtime and OpenVINO against fp32 PyTorch, and built by TensorRT-RTX. Results go
to a JSON file after every network and to docs/matrix.md. A cell that fails keeps the engine's own words.
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

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgeseg.errors import EdgesegError  # noqa: E402
from edgeseg.export import export_model  # noqa: E402
from edgeseg.files import write_text  # noqa: E402
from edgeseg.models import create_model, list_models, model_spec  # noqa: E402
from edgeseg.specs import Size  # noqa: E402
from tests.goldens.golden import fill  # noqa: E402

TARGETS = ("ort", "openvino", "trt-rtx")
SIZE = (256, 512)
AGREEMENT, LOGITS = 0.999, 1e-3
MOST_CLASSES = 200  # labels are uint8: ImageNet classifiers are exported with fewer outputs
RESULTS, TABLE = ROOT / "benchmarks" / "results" / "matrix.json", ROOT / "docs" / "matrix.md"

Row = dict[str, Any]


def matrix_size(name: str) -> Size:
    """256x512, or the network's own size where that is smaller or 256x512 does not divide."""
    spec = model_spec(name)
    fits = all(side % spec.divisor == 0 for side in SIZE)
    small = spec.input_size[0] * spec.input_size[1] < SIZE[0] * SIZE[1]
    return spec.input_size if small or not fits else SIZE


def lively(network: nn.Module) -> nn.Module:
    """Fill a network's floating tensors by their names, as the golden records do: no two channels alike."""
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point() and value.ndim:
                value.copy_(torch.from_numpy(fill(key, tuple(value.shape))))
    return network


def check(name: str, targets: Sequence[str] = TARGETS) -> Row:
    """One row: the export of a network on every target, each alone where one of them fails."""
    size = matrix_size(name)
    classes = min(model_spec(name).num_classes, MOST_CLASSES)
    network = lively(create_model(name, num_classes=classes))
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
    row["seconds"] = round(time.perf_counter() - started, 1)
    return row


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
    cells = {}
    for parity in report.parity:
        relative = parity.max_logit_error / parity.logit_range if parity.logit_range else 0.0
        ok = parity.agreement >= AGREEMENT and relative <= LOGITS
        words = "" if ok else f"{parity.agreement:.4%} of the labels agree, logits to {relative:.1e} of their range"
        cells[parity.target] = {
            "ok": ok,
            "ran": parity.ran,
            "differing": parity.differing,
            "pixels": parity.pixels,
            "agreement": parity.agreement,
            "logit_error": relative,
            "words": words,
        }
    return {target: cells[target] for target in targets}


def write_table(rows: Sequence[Row]) -> str:
    """docs/matrix.md."""
    good = sum(all(cell["ok"] for cell in row["cells"].values()) for row in rows)
    lines = [
        "# Every network on every target",
        "",
        "Written by `python benchmarks/matrix.py`. Labels against fp32 PyTorch's on the same uint8 pictures (a",
        "photograph, noise, a ramp), and the largest logit difference relative to their range. TensorRT-RTX:",
        "the engine was built without a GPU and not run. Weights are filled by rule. Sizes are height x width.",
        f"ImageNet classifiers are exported with {MOST_CLASSES} outputs, since labels are uint8.",
        "",
        f"{good} of {len(rows)} networks hold every bound (labels {AGREEMENT:.1%}, logits {LOGITS:g} of their range).",
        "",
        "| network | system | at | ONNX Runtime | OpenVINO | TensorRT-RTX |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        told = [_words(row["cells"].get(target)) for target in TARGETS]
        lines.append(f"| {row['name']} | {row['system']} | {row['size'][0]}x{row['size'][1]} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


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
    """Run the matrix; returns 1 where a cell fails."""
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
    return int(any(not cell["ok"] for name in names for cell in rows[name]["cells"].values()))


if __name__ == "__main__":
    sys.exit(main())
