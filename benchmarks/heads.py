"""Decode heads side by side: parameters, multiply-accumulates and latency on one backbone, in one run.

    python benchmarks/heads.py            # all heads on ResNet-18 (v1c) at 512x1024; writes docs/heads.md and JSON

What is measured is the head alone (with its neck and the head it refines), on maps of the size the backbone gives: the
backbone is the same for all of them, and its own row tells what it adds. Graphs are those an export makes: batch norms
folded, simplified, rewritten. Each head takes turns with the FCN head, each in a process of its own, so that a busy
machine shows in both; the last column is that ratio.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgeseg.bench.machine import Machine, describe_machine  # noqa: E402
from edgeseg.bench.paired import Contender, alternate, pair_ratio  # noqa: E402
from edgeseg.export.fusion import fuse  # noqa: E402
from edgeseg.export.passes import ROUNDS, default_passes  # noqa: E402
from edgeseg.export.to_onnx import OPSET, quiet, simplify  # noqa: E402
from edgeseg.files import write_text  # noqa: E402
from edgeseg.graph.cost import graph_cost  # noqa: E402
from edgeseg.graph.passes import run_passes  # noqa: E402
from edgeseg.models.count import count_parameters  # noqa: E402
from edgeseg.models.segmentor import Segmentor, create_segmentor  # noqa: E402
from edgeseg.specs import Size, parse_size  # noqa: E402

BACKBONE, CLASSES, BASE = "resnet18_v1c", 19, "fcn"
HEADS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("fcn", "psp", "aspp", "sep_aspp", "sep_fcn", "uper", "nl", "psa", "cc", "da", "enc")},
    **{name: {} for name in ("ema", "ann", "gc", "apc", "dm", "isa", "dnl", "segformer", "ddr", "pid")},
    **{name: {} for name in ("lraspp", "segmenter", "setr_up", "stdc")},
    "fpn": {"neck": "fpn", "neck_options": {"out_channels": 256}},
    "point": {"neck": "fpn", "neck_options": {"out_channels": 256}, "coarse_head": "fpn"},
    "ocr": {"coarse_head": "fcn"},
    "knet": {"coarse_head": "fcn"},
}
"""Head -> what `create_segmentor` needs besides its name.

`dpt` and `setr_mla` are not here: they read four maps of one stride, which only a ViT gives."""

RESULTS, TABLE = ROOT / "benchmarks" / "results" / "heads.json", ROOT / "docs" / "heads.md"
Row = dict[str, Any]


class _Head(nn.Module):
    """Everything behind the backbone."""

    def __init__(self, network: Segmentor) -> None:
        super().__init__()
        self.network = network
        network.backbone = nn.Identity()

    def forward(self, *maps: Tensor) -> Tensor:
        given = list(maps)
        return self.network.decode(given if self.network.neck is None else self.network.neck(given))


class _Maps(nn.Module):
    """The backbone alone."""

    def __init__(self, network: Segmentor) -> None:
        super().__init__()
        self.backbone = network.backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps: Sequence[Tensor] = self.backbone.features(image)  # type: ignore[operator]
        return tuple(maps)


def parts(name: str, size: Size) -> tuple[_Maps, _Head, list[Tensor]]:
    """Backbone, head, and maps as the backbone gives them (random numbers)."""
    network = _composed(name)
    with torch.device("meta"):
        shapes = [x.shape for x in _Maps(_composed(name)).eval()(torch.empty(1, 3, *size))]
    return _Maps(network).eval(), _Head(network).eval(), [torch.randn(shape) for shape in shapes]


def _composed(name: str) -> Segmentor:
    return create_segmentor(backbone=BACKBONE, head=name, num_classes=CLASSES, **HEADS[name])


def export(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> tuple[int, int]:
    """Write the graph an export would make; returns its multiply-accumulates before and after the rewrites."""
    with quiet(), torch.inference_mode():
        program = torch.onnx.export(module, tuple(inputs), dynamo=True, opset_version=OPSET, verbose=False)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = simplify(program.model_proto)
    feeds = {value.name: np.asarray(x) for value, x in zip(model.graph.input, inputs, strict=True)}
    rewritten, _ = run_passes(model, default_passes(), feeds, rounds=ROUNDS)
    onnx.save(rewritten, path)
    return graph_cost(model).macs, graph_cost(rewritten).macs


def folded(module: _Head, maps: Sequence[Tensor]) -> nn.Module:
    """The head with its batch norms folded."""

    class One(nn.Module):
        """Takes one tensor, as `fuse` feeds it: the maps flattened behind each other."""

        def __init__(self) -> None:
            super().__init__()
            self.head = module

        def forward(self, flat: Tensor) -> Tensor:
            pieces = torch.split(flat, [x.numel() for x in maps])
            logits: Tensor = self.head(*(piece.reshape(x.shape) for piece, x in zip(pieces, maps, strict=True)))
            return logits

    fused, _ = fuse(One(), torch.cat([x.ravel() for x in maps]))
    head: nn.Module = fused.get_submodule("head")
    return head


Turn = Callable[[float], list[float]]


def measure(name: str, path: Path, size: Size, base: Turn | None, seconds: float) -> Row:
    """One head's row."""
    _, head, maps = parts(name, size)
    row: Row = {"name": name, "parameters": count_parameters(head)}
    row["macs"], row["macs_rewritten"] = export(folded(head, maps), maps, path)
    return row | _timed(path, base, seconds)


def _timed(path: Path, base: Turn | None, seconds: float) -> Row:
    """A graph's median, and its ratio to the base (itself where there is none yet)."""
    with Contender("benchmarks.contenders:graph", {"onnx": str(path)}, path=[ROOT]) as contender:
        samples = alternate({"base": base or contender.block, "head": contender.block}, blocks=3, seconds=seconds)
    middle = float(np.median(np.concatenate(samples["head"])))
    return {"ms": middle, "over_fcn": pair_ratio(samples["head"], samples["base"]).to_json()}


def backbone_row(path: Path, size: Size, base: Turn, seconds: float) -> Row:
    """The backbone's own row, at stride 8."""
    backbone, _, _ = parts(BASE, size)
    image = torch.randn(1, 3, *size)
    fused, _ = fuse(_FirstOf(backbone), image[..., :64, :96])
    row: Row = {"name": f"backbone {BACKBONE}, stride 8", "parameters": count_parameters(backbone)}
    row["macs"], row["macs_rewritten"] = export(fused.get_submodule("inner"), [image], path)
    return row | _timed(path, base, seconds)


class _FirstOf(nn.Module):
    """The last map of a backbone, for `fuse`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        last: Tensor = self.inner(image)[-1]
        return last


def write_table(rows: Sequence[Mapping[str, Any]], size: Size, machine: str) -> str:
    """docs/heads.md."""
    lines = [
        "# Decode heads side by side",
        "",
        f"Written by `python benchmarks/heads.py`: heads alone on the maps of `{BACKBONE}` at {size[0]}x{size[1]}",
        f"(height x width), {CLASSES} classes, ONNX Runtime, {machine}. Pyramid heads",
        "(fpn, uper, point, segformer) read strides 4 to 32, the others stride 8. GMACs as published, and after the",
        "rewrites of an export.",
        "",
        "| head | parameters (M) | GMACs | rewritten | ms | times FCN (95 % interval) |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: float(row["ms"])):
        low, high = row["over_fcn"]["ratio_95"]
        ratio = f"{row['over_fcn']['ratio']:.2f} ({low:.2f} to {high:.2f})"
        lines.append(
            f"| {row['name']} | {row['parameters'] / 1e6:.2f} | {row['macs'] / 1e9:.2f} | "
            f"{row['macs_rewritten'] / 1e9:.2f} | {row['ms']:.1f} | {ratio} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every head, the FCN head taking turns with each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default=(512, 1024), help="HEIGHTxWIDTH of the picture")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a block")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args(arguments)
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "base.onnx"
        rows = [measure(BASE, first, options.size, None, options.seconds)]
        _write(rows, options, machine)
        with Contender("benchmarks.contenders:graph", {"onnx": str(first)}, path=[ROOT]) as base:
            work = [
                partial(measure, name, Path(folder) / "head.onnx", options.size, base.block, options.seconds)
                for name in HEADS
                if name != BASE
            ]
            work.append(partial(backbone_row, Path(folder) / "head.onnx", options.size, base.block, options.seconds))
            for step in work:
                rows.append(step())
                print(rows[-1]["name"], f"{rows[-1]['ms']:.1f} ms", rows[-1]["over_fcn"], flush=True)
                _write(rows, options, machine)
    return 0


def _write(rows: Sequence[Row], options: argparse.Namespace, machine: Machine) -> None:
    report = {"machine": machine.to_json(), "size": options.size, "backbone": BACKBONE, "rows": rows}
    write_text(options.json, json.dumps(report, indent=1) + "\n")
    write_text(options.table, write_table(rows, options.size, f"{machine.cpu}, {machine.usable_cores} cores"))


if __name__ == "__main__":
    sys.exit(main())
