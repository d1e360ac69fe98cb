"""ncnn's matrix: the smallest network of each system exported for ncnn and run against fp32 PyTorch.

    python benchmarks/ncnn.py                   # one network of each system; goes on where it stopped
    python benchmarks/ncnn.py 'espnet*' --size 256x512

Weights, pictures and bounds are those of `benchmarks/matrix.py`. Results go to benchmarks/results/ncnn.json after every
network. A network that cannot be exported keeps the words that refused it, which name the operator.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import matrix  # noqa: E402
from edgeseg.files import write_text  # noqa: E402
from edgeseg.models import list_models  # noqa: E402
from edgeseg.specs import parse_size  # noqa: E402
from tests.goldens.runner import fitting_size  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "ncnn.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix; returns 1 where a network is not exact for another reason than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names or shell patterns; the smallest of each system without any")
    parser.add_argument("--size", default="64x96", help="HEIGHTxWIDTH, or the nearest that the network takes")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    size = parse_size(options.size)
    names = [name for name in list_models() if any(fnmatch.fnmatch(name, each) for each in options.names)]
    rows = {(row["name"], *row["size"]): row for row in _load(options.json)}
    wanted = [(name, *fitting_size(name, size)) for name in names or matrix.smallest_of_each_system()]
    for key in wanted:
        if key not in rows:
            name, height, width = key
            rows[key] = matrix.check(name, ("ncnn",), (height, width))
            print(f"{name}: {matrix._words(rows[key]['cells']['ncnn'])} ({rows[key]['seconds']} s)", flush=True)
            write_text(options.json, json.dumps([rows[each] for each in sorted(rows)], indent=1) + "\n")
    return int(not all(matrix.holds(rows[key]) for key in wanted))


def _load(path: Path) -> list[matrix.Row]:
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
