"""What int8 costs and gains on real data: accuracy on CamVid and portraits, latency at 512x1024 against fp32.

    python benchmarks/precision.py --shared ../shared --json benchmarks/results/precision-MACHINE.json

ESPNet and SINet have their published weights; PIDNet-S and Fast-SCNN are filled by rule, so that only their latency
means something. Latency is what the export's guard measures: medians of fp32 and int8 in alternating blocks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.matrix import lively  # noqa: E402
from edgeseg.bench.machine import describe_machine, device_state  # noqa: E402
from edgeseg.evaluation import LabelledPictures, evaluate_bundle, read_labels  # noqa: E402
from edgeseg.export import export_model  # noqa: E402
from edgeseg.files import write_text  # noqa: E402
from edgeseg.metrics import agreement  # noqa: E402
from edgeseg.models import create_model, model_spec  # noqa: E402
from edgeseg.predictor import Predictor  # noqa: E402

CPU_TARGETS, TARGETS = ("ort", "openvino"), ("ort", "openvino", "trt-rtx")
LATENCY, SIZE = ("pidnet_s", "fast_scnn"), (512, 1024)
ESPNET, SINET = "decoder_espnet_p_2_q_8_camvid.pth", "SINet.pth"
PEOPLE = 80  # calibration pictures taken from the photographs of people, evenly spread

Row = dict[str, Any]


def espnet(shared: Path, out: Path) -> Row:
    """ESPNet p2 q8 on the CamVid test set: mIoU of fp32 and int8, void ignored."""
    options: Row = {"weights": shared / "real" / "weights" / ESPNET, "size": (360, 480), "targets": TARGETS}
    name = "espnet_p2_q8_trainvariant"
    exact = export_model(name, out=out / "fp32", **options)
    calib = shared / "camvid" / "calib" / "images"
    low = export_model(name, out=out, precision="int8", calib=calib, min_agreement=0.9865, force=True, **options)
    test = shared / "camvid" / "test"
    scores = {}
    for target in CPU_TARGETS:
        pair = [
            evaluate_bundle(b, LabelledPictures(test / "images", test / "labels", ignore=11), target=target)
            for b in (exact.path, low.path)
        ]
        fp32, int8 = (entry.scores() for entry in pair)
        scores[target] = {"images": pair[0].images, "fp32": fp32, "int8": int8}
        drop = 100 * (fp32["void ignored"]["mIoU"] - int8["void ignored"]["mIoU"])
        print(f"ESPNet on CamVid, {target}: mIoU {drop:.2f} points lower in int8")
    return {"camvid": scores, "report": told(low)}


def sinet(shared: Path, out: Path) -> Row:
    """SINet on six portraits: labels equal to the published masks, calibrated on photographs of people."""
    photographs = sorted((shared / "people" / "images").iterdir())
    calib = out / "people"
    calib.mkdir(parents=True)
    for index in range(PEOPLE):
        file = photographs[index * len(photographs) // PEOPLE]
        shutil.copyfile(file, calib / file.name)
    weights = shared / "real" / "weights" / SINET
    low = export_model(
        "sinet",
        weights=weights,
        targets=TARGETS,
        out=out,
        precision="int8",
        calib=calib,
        min_agreement=0.99,
        force=True,
    )
    folder, shares = shared / "real" / "portrait", {}
    for target in CPU_TARGETS:
        wrong = total = 0
        with Predictor(low.path, target, output="network") as predictor:
            for picture in sorted((folder / "images").iterdir()):
                expected = read_labels(folder / "expected" / f"sinet__{picture.stem}__demo.png", positive_label=255)
                differing, pixels = agreement(expected, predictor(picture).labels)
                wrong, total = wrong + differing, total + pixels
        shares[target] = 1.0 - wrong / total
        print(f"SINet on portraits, {target}: {shares[target]:.3%} of the labels equal the published masks")
    return {"portraits": shares, "report": told(low)}


def latency(name: str, shared: Path, out: Path) -> Row:
    """A network filled by rule, at 512x1024."""
    network = lively(create_model(name))
    calib = shared / "camvid" / "calib" / "images"
    options: Row = {"spec": model_spec(name), "name": name, "size": SIZE, "targets": TARGETS, "out": out}
    low = export_model(network, precision="int8", calib=calib, min_agreement=0.0, force=True, **options)
    return {"report": told(low)}


def told(report: Any) -> Row:
    """An export's precision figures, printed and as plain values."""
    found = report.precision
    for row in found.rows():
        print(report.path.name, ", ".join(f"{key}: {value}" for key, value in row.items()))
    values: Row = found.to_json()
    return values


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder of real data")
    parser.add_argument("--only", nargs="*", choices=("espnet", "sinet", *LATENCY), help="default: all")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    options = parser.parse_args(arguments)
    chosen = options.only or ("espnet", "sinet", *LATENCY)
    before = device_state().to_json()
    results: Row = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            out = Path(folder) / name
            work = {"espnet": espnet, "sinet": sinet}.get(name)
            results[name] = work(options.shared, out) if work else latency(name, options.shared, out)
    if options.json:
        machine = describe_machine().to_json()
        state = {"before": before, "after": device_state().to_json()}
        data = {"machine": machine, "state": state, "numpy": np.__version__, "results": results}
        write_text(options.json, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
