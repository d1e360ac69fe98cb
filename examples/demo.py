"""The whole way in one script: trained weights, export, ONNX Runtime, Predictor, a person cut out of a photograph."""

from __future__ import annotations

import argparse
from pathlib import Path

import edgeseg
from edgeseg.export.reference import shipped_sample

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "person" / "pphumanseg_lite_person.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, default=shipped_sample(), help="photograph of a person")
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--target", default="ort")
    options = parser.parse_args()

    report = edgeseg.export_model(
        "pphumanseg_lite",
        weights=WEIGHTS,
        size=(240, 240),
        targets=[options.target],
        out=options.out,
        progress=lambda step: print(f"  {step}"),
    )
    for parity in report.parity:
        equal, total = parity.pixels - parity.differing, parity.pixels
        print(f"{parity.target}: {equal} of {total} labels equal fp32 PyTorch's ({parity.engine})")

    with edgeseg.Predictor(report.path, options.target) as predictor:
        result = predictor(options.image)
    height, width = result.size
    person = result.shares().get("person", 0.0)
    print(f"{options.image.name}: {height}x{width} (height x width), person {person:.1%}")
    print("milliseconds: " + ", ".join(f"{stage} {took:.1f}" for stage, took in result.timings.items()))
    stem = options.image.stem
    for kind in ("cutout", "overlay", "labels"):
        print(f"wrote {result.save(options.out / f'{stem}_{kind}.png', kind=kind)}")


if __name__ == "__main__":
    main()
