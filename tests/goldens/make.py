"""Make a golden record of a published implementation.

    python -m tests.goldens.make package.module:factory NAME --shape 1x3x128x256 --repo OWNER/REPO --commit SHA

The factory builds the published network, as its authors do; it is imported from where it lies and does not enter the
project. Its state dict is filled by rule (`golden.fill`), it runs in float64 and eval mode, and what comes out is
written to ``tests/goldens/NAME.json``: facts about the published code, no weights. See to it that the note says what a
reader cannot know: whether the output is at the input's size, and with which align_corners; what is training-only.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.goldens.golden import Array, Record, fill, make_input, sample_places

__all__ = ["make_record"]

FOLDER = Path(__file__).resolve().parent
_DIGITS = 10


def make_record(network: nn.Module, name: str, shape: Sequence[int], **about: Any) -> Record:
    """Fill a published network by rule, run it, and record what comes out.

    Args:
        network: As published; it is changed.
        name: Registry name that the project's own network will have.
        shape: Of the input, (N, 3, H, W).
        about: ``system``, ``source`` (repository, commit, file, class, arguments), ``note``, ``facts``.
    """
    network = network.double().eval()
    state = network.state_dict()
    kinds = {key: "fill" if value.is_floating_point() else "keep" for key, value in state.items()}
    filled = {key: torch.from_numpy(fill(key, value.shape)) for key, value in state.items() if kinds[key] == "fill"}
    network.load_state_dict({**state, **filled})
    with torch.inference_mode():
        outputs = _arrays(network(torch.from_numpy(make_input(shape))))
    return {
        "name": name,
        **about,
        "params": sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        "state": [[key, list(value.shape), kinds[key]] for key, value in state.items()],
        "input": {"shape": list(shape), "seed": 0},
        "outputs": [_output(array) for array in outputs],
    }


def _arrays(output: Any) -> list[Array]:
    """The tensors that a network returns, in order."""
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [array for each in output for array in _arrays(each)]
    return [output.numpy().astype(np.float64)]


def _output(array: Array) -> Record:
    values = array.reshape(-1)[sample_places(array.shape)]
    return {
        "shape": list(array.shape),
        "mean": float(array.mean()),
        "std": float(array.std()),
        "absmax": float(np.abs(array).max()),
        "value": [float(f"{value:.{_DIGITS}g}") for value in values],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the record of a factory."""
    parser = argparse.ArgumentParser(description="Make a golden record of a published implementation.")
    parser.add_argument("factory", help="package.module:factory, which takes no arguments")
    parser.add_argument("name", help="registry name")
    parser.add_argument("--shape", default="1x3x128x256", help="of the input")
    for word in ("system", "repo", "commit", "file", "note", "licence"):
        parser.add_argument(f"--{word}", default="")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    module, _, attribute = options.factory.partition(":")
    shape = tuple(int(side) for side in options.shape.split("x"))
    source = {"repo": options.repo, "commit": options.commit, "file": options.file, "class": attribute}
    record = make_record(
        getattr(importlib.import_module(module), attribute)(),
        options.name,
        shape,
        system=options.system,
        source=source,
        note=options.note,
        facts={"license": options.licence},
    )
    file = options.out / f"{options.name}.json"
    file.write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")
    print(file)


if __name__ == "__main__":
    main()
