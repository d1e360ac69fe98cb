"""ncnn's matrix: the smallest network of each system, converted for ncnn and run against fp32 PyTorch.

    python benchmarks/ncnn_matrix.py                   # one network of each system; goes on where it stopped
    python benchmarks/ncnn_matrix.py 'espnet*' --size 256x512

Weights, pictures and bounds are those of `benchmarks/matrix.py`; unlike there, nothing but ncnn's part of the export is
run (folding, conversion, proof). Results go to benchmarks/results/ncnn.json after every network. A network that cannot
be converted keeps the words that refused it, which name the operator.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import matrix  # noqa: E402
from benchmarks.matrix import cell_of  # noqa: E402
from edgeseg.bundle import Bundle, Manifest, Parity  # noqa: E402
from edgeseg.errors import EdgesegError  # noqa: E402
from edgeseg.export.bundle_files import hashed  # noqa: E402
from edgeseg.export.deploy import DeployNetwork  # noqa: E402
from edgeseg.export.fusion import fuse  # noqa: E402
from edgeseg.export.reference import ParitySet, compare, parity_set, shipped_sample  # noqa: E402
from edgeseg.files import write_text  # noqa: E402
from edgeseg.models import ModelSpec, create_model, list_models, model_spec  # noqa: E402
from edgeseg.runtimes import BuildRequest, open_session  # noqa: E402
from edgeseg.runtimes.ncnn.build import build  # noqa: E402
from edgeseg.specs import Size, parse_size  # noqa: E402
from tests.goldens.runner import fitting_size  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "ncnn.json"


def check(name: str, size: Size) -> matrix.Row:
    """One row: a network converted, run and compared."""
    network, spec = matrix.lively(create_model(name)).eval(), model_spec(name)
    row: matrix.Row = {"name": name, "system": spec.system, "size": list(size)}
    started = time.perf_counter()
    deployed = DeployNetwork(network, spec.input)
    expected = parity_set(deployed, size, spec.resize, spec.postprocess, (shipped_sample(),))
    try:
        row["cells"] = {"ncnn": cell_of(_parity(network, spec, size, expected))}
    except EdgesegError as error:
        row["cells"] = {"ncnn": {"ok": False, "words": str(error)}}
    if "agreement" in row["cells"]["ncnn"] and not row["cells"]["ncnn"]["ok"]:
        row["rounding"] = matrix.rounding(network, name, size)
    return {**row, "seconds": round(time.perf_counter() - started, 1)}


def _parity(network: nn.Module, spec: ModelSpec, size: Size, expected: ParitySet) -> Parity:
    probe = torch.randn(1, spec.input.channels, *size, generator=torch.Generator().manual_seed(0))
    folded, _ = fuse(network, probe)
    classes, height, width = expected.logits[0].shape[-3:]
    manifest = Manifest(
        name=spec.name,
        network=spec.name,
        num_classes=classes,
        labels=tuple(map(str, range(max(2, classes)))),
        palette=((0, 0, 0),) * max(2, classes),
        input_size=size,
        logit_size=(height, width),
        divisor=spec.divisor,
        input=spec.input,
        resize=spec.resize,
        postprocess=spec.postprocess,
        targets=("ncnn",),
    )
    with tempfile.TemporaryDirectory() as folder:
        request = BuildRequest(
            folder=Path(folder), graph=Path(folder), manifest=manifest, network=network, folded=folded
        )
        build(request)
        bundle = Bundle(Path(folder), replace(manifest, files=hashed(Path(folder))))
        session = open_session(bundle, "ncnn")
        try:
            return compare("ncnn", session, expected, spec.postprocess)
        finally:
            session.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix; returns 1 where a network is not exact for another reason than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names or shell patterns; the smallest of each system without any")
    parser.add_argument("--size", default="64x96", help="HEIGHTxWIDTH, or the nearest that the network takes")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    size = parse_size(options.size)
    names = list(dict.fromkeys(name for each in options.names for name in list_models(each)))
    rows = {(row["name"], *row["size"]): row for row in _load(options.json)}
    wanted = [(name, *fitting_size(name, size)) for name in names or matrix.smallest_of_each_system()]
    for key in wanted:
        if key not in rows:
            name, height, width = key
            rows[key] = check(name, (height, width))
            print(f"{name}: {matrix._words(rows[key]['cells']['ncnn'])} ({rows[key]['seconds']} s)", flush=True)
            write_text(options.json, json.dumps([rows[each] for each in sorted(rows)], indent=1) + "\n")
    return int(not all(matrix.holds(rows[key]) for key in wanted))


def _load(path: Path) -> list[matrix.Row]:
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
