"""Run golden records against this package: build what a record names, load its published state, compute.

A record's name before ``@`` is a registry name, or a registry name with a suffix of `_SUFFIXES` (another method of the
same network, or its maps as a backbone). Records of heads, necks and blocks name a class instead: `parts` holds how to
build one, `part` registers more. Records of bare operators hold cases and have tests of their own.

A network that a record has several outputs of runs in its training form (``forward_train``, built with ``aux``).
Outputs may be one tensor, a list, or a dictionary of named tensors. Maps that a record of features has and the network
does not declare are looked up among all tensors that enter or leave a module (`traces`).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.models import create_model, list_models, model_spec
from edgeseg.models.checkpoints import load_state, state_from_arrays, stored_classes
from edgeseg.models.features import Features
from edgeseg.models.layers.resize import resize_bilinear
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import Size

__all__ = [
    "count_params",
    "fitting_size",
    "in_order",
    "load_record",
    "part",
    "record_files",
    "registry_name",
    "run_record",
]

Record = dict[str, Any]
Array = NDArray[np.float64]
PartBuilder = Callable[[Mapping[str, Any]], nn.Module]

TOLERANCE = 1e-6
"""Largest difference from a record, relative to the largest absolute value of an output."""
FOLDER = Path(__file__).resolve().parent
_SUFFIXES = {"_stages": "stages", "_features": "features"}
_PARTS: dict[str, PartBuilder] = {}


def _beside(name: str) -> ModuleType:
    """Import a module of this folder by path, so that this file works as part of a package and alone."""
    spec = importlib.util.spec_from_file_location(f"edgeseg_goldens_{name}", FOLDER / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{FOLDER / name}.py cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = _beside("golden")
traces = _beside("traces")


class Subject(NamedTuple):
    """What a record is about."""

    module: nn.Module
    run: Callable[..., Any]
    spec: ModelSpec | None


def part(class_name: str) -> Callable[[PartBuilder], PartBuilder]:
    """Register a builder for records whose ``source.class`` is `class_name`; it receives the record."""

    def decorate(builder: PartBuilder) -> PartBuilder:
        _PARTS[class_name] = builder
        return builder

    return decorate


def record_files(folder: Path = FOLDER) -> list[Path]:
    """Every record of a network, head or block in a folder; those of bare operators hold cases instead of outputs."""
    return sorted(path for path in folder.glob("*.json") if not path.stem.endswith("_operator"))


def load_record(path: Path) -> Record:
    """Read one record."""
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def count_params(module: nn.Module) -> int:
    """Trainable parameters, shared ones once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


for _class_name, _builder in _beside("parts").BUILDERS.items():
    part(_class_name)(_builder)


def fitting_size(name: str, size: Size) -> Size:
    """Height x width `size`, enlarged to what the registered network takes."""
    spec = model_spec(name)
    height, width = (-(max(side, spec.min_side) // -spec.divisor) * spec.divisor for side in size)
    return height, width


def _split_name(record: Record) -> tuple[str, str]:
    """The registered network a record names, "" for none, and the suffix of the name."""
    name = str(record["name"]).split("@")[0]
    for suffix in ("", *_SUFFIXES):
        base = name.removesuffix(suffix)
        if name.endswith(suffix) and base in list_models():
            return base, suffix
    return "", ""


def registry_name(record: Record) -> str:
    """The registered network a record names; "" for a record of a head or block."""
    return _split_name(record)[0]


def _main_outputs(record: Record) -> list[dict[str, Any]]:
    """The record's outputs without the tapped ones, which stand last."""
    outputs: list[dict[str, Any]] = record.get("outputs", [])
    return outputs[: len(outputs) - len(record.get("taps", ()))]


def _trains(record: Record) -> bool:
    """Whether the record holds the training form of a registered network: several outputs, and no method's name."""
    base, suffix = _split_name(record)
    return bool(base) and not suffix and len(_main_outputs(record)) > 1


def _run_of(module: nn.Module, suffix: str, *, trains: bool) -> Callable[..., Any]:
    if trains:
        train: Callable[..., Any] = getattr(module, "forward_train")  # noqa: B009 - a network that trains has it
        return train
    if not suffix:
        return module
    return Features(module) if _SUFFIXES[suffix] == "features" else getattr(module, _SUFFIXES[suffix])


def build(record: Record) -> Subject:
    """Build what the record names, with the number of classes its state holds, in eval mode.

    Raises:
        LookupError: Neither a registered network nor a class with a registered builder.
        UsageError: The record has several outputs, and the network no training form.
    """
    base, suffix = _split_name(record)
    if base:
        spec, trains = model_spec(base), _trains(record)
        state = state_from_arrays(golden.published_state(record))
        module = create_model(base, num_classes=stored_classes(state, spec.classes_key), aux=trains)
        return Subject(module, _run_of(module, suffix, trains=trains), spec)
    class_name = record.get("source", {}).get("class", "")
    if class_name not in _PARTS:
        raise LookupError(f"record '{record['name']}': no network of that name and no builder for class '{class_name}'")
    module = _PARTS[class_name](record).eval()
    return Subject(module, module, None)


def fill_module(module: nn.Module, record: Record) -> None:
    """Double the module, then load the record's published state through the package's own checkpoint loader."""
    module.double()
    kept = {key: value for key, value in record.get("kept_values", {}).items() if key in module.state_dict()}
    state = state_from_arrays({**golden.published_state(record), **kept})
    load_state(module, state, what=f"record '{record['name']}'")


def _inputs(record: Record) -> list[Tensor]:
    shapes = record["inputs"] if "inputs" in record else [record["input"]]
    return [torch.from_numpy(golden.make_input(each["shape"], each["seed"])) for each in shapes]


def _published_size(output: Tensor, want: list[int], image: Tensor, spec: ModelSpec | None) -> Tensor:
    """Apply the recorded trailing resize where the record is at input size and the logits are smaller."""
    full = (int(image.shape[-2]), int(image.shape[-1]))
    if spec is None or len(want) != 4 or output.ndim != 4 or tuple(want[2:]) != full:
        return output
    if (int(output.shape[-2]), int(output.shape[-1])) == full:
        return output
    return resize_bilinear(output, full, align_corners=spec.postprocess.align_corners)


def in_order(result: Any, wanted: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """Put what a module gave in the record's order.

    Args:
        result: A tensor, tensors in order, or tensors by name.
        wanted: The record's outputs; with a ``name`` each where the tensors are named and their order differs.

    Raises:
        LookupError: The record names an output that the module does not give.
    """
    if isinstance(result, Tensor):
        return [result]
    if not isinstance(result, Mapping):
        return list(result)
    names = [want.get("name") for want in wanted]
    if None in names:
        return list(result.values())
    if missing := [name for name in names if name not in result]:
        raise LookupError(f"the record names outputs {missing}; the module gives {list(result)}")
    return [result[name] for name in names]


def _tap(module: nn.Module, record: Record) -> dict[str, Tensor]:
    """Have the modules that a record taps leave their outputs, by the record's names, when the network runs."""
    tapped: dict[str, Tensor] = {}
    published: Mapping[str, str] = getattr(module, "tap_names", {})

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _inputs, output: tapped.__setitem__(name, output)

    for name in record.get("taps", ()):
        module.get_submodule(published.get(name, name)).register_forward_hook(keep(name))
    return tapped


def _equals(want: Mapping[str, Any], x: Tensor) -> bool:
    """Whether a tensor is that of a record's output."""
    return bool(golden.worst_error({"outputs": [want]}, [x.numpy()]) <= TOLERANCE)


def _maps(
    network: nn.Module, image: Tensor, wanted: Sequence[Mapping[str, Any]], declared: list[Tensor]
) -> list[Tensor]:
    """The maps that a record wants: those declared, or those that pass through the whole network's modules."""
    if len(wanted) == len(declared) and all(map(_equals, wanted, declared)):
        return declared
    with traces.trace(network) as passed:
        network(image)
    found: list[Tensor] | None = traces.in_turn(wanted, passed, _equals)
    return declared if found is None else found  # comparing the declared ones then shows the error


def run_record(record: Record) -> list[Array]:
    """Compute a record's outputs with this package: float64, eval mode, no gradients.

    Args:
        record: A parsed record; heads take their list of maps in one argument.

    Returns:
        The main output or outputs, then the tapped ones in the record's order.

    Raises:
        LookupError: The record names nothing that can be built here.
        CheckpointError: The published keys or shapes are not those of the network.
    """
    subject = build(record)
    fill_module(subject.module, record)
    inputs, wanted = _inputs(record), _main_outputs(record)
    tapped = _tap(subject.module, record)
    with torch.no_grad():
        outputs = in_order(subject.run(inputs if "inputs" in record else inputs[0]), wanted)
        if _split_name(record)[1] == "_features":
            outputs = _maps(subject.module, inputs[0], wanted, outputs)
    shapes = [want["shape"] for want in wanted]
    sized = [_published_size(out, want, inputs[0], subject.spec) for out, want in zip(outputs, shapes, strict=False)]
    return [x.numpy() for x in (*sized, *outputs[len(sized) :], *(tapped[name] for name in record.get("taps", ())))]
