"""Every network against its golden record, and every registry entry against the network it builds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeseg.export.fusion import fuse
from edgeseg.models import create_model, list_models, model_spec
from edgeseg.models.registry import build_on_meta
from tests.goldens.runner import (
    TOLERANCE,
    build,
    count_params,
    fill_module,
    fitting_size,
    golden,
    load_record,
    record_files,
    registry_name,
    run_record,
)

RECORDS = record_files()
SMALL, LARGE = (96, 160), (512, 1024)
LARGER = ("pidnet_m", "pidnet_l", "mmseg_segformer_b3", "mmseg_segformer_b4", "mmseg_segformer_b5")
"""Made of the same blocks as smaller ones."""


def _names_of(records: list[Path]) -> list[str]:
    return [path.stem for path in records]


@pytest.mark.parametrize("path", RECORDS, ids=_names_of(RECORDS))
def test_golden_record(path: Path) -> None:
    record = load_record(path)
    assert golden.worst_error(record, run_record(record)) <= TOLERANCE


@pytest.mark.parametrize("path", RECORDS, ids=_names_of(RECORDS))
def test_parameters_are_those_of_the_published_network(path: Path) -> None:
    record = load_record(path)
    name = registry_name(record)
    counted = count_params(build_on_meta(name) if name else build(record).module)
    if counted != record["params"]:  # the record counts training-only parts
        note = model_spec(name).params_note
        assert note
        if f"{record['params']:,}" in note:  # parts that are not built at all: the note tells which
            return
        counted = count_params(build_on_meta(name, aux=True))
    assert counted == record["params"]


@pytest.mark.parametrize("name", list_models())
def test_spec_tells_what_is_built(name: str) -> None:
    spec, network = model_spec(name), build_on_meta(name)
    assert spec.name == name
    assert count_params(network) == spec.params or spec.params_note
    assert all(side % spec.divisor == 0 for side in spec.input_size)
    key = spec.classes_key.replace("._weight", ".weight")
    assert not key or network.state_dict()[key].shape[0] == spec.num_classes


def _has_stride(logits: torch.Tensor, size: tuple[int, int], stride: int) -> bool:
    """Whether a map of an image has this stride; a max pool that rounds up may add one row and column."""
    extra = [got - side // stride for got, side in zip(logits.shape[2:], size, strict=True)]
    return extra in ([0, 0], [1, 1])


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("classes", [None, 7])
def test_shape_of_the_logits(name: str, classes: int | None) -> None:
    size = fitting_size(name, SMALL if classes else LARGE)
    network = build_on_meta(name, classes).eval()
    with torch.no_grad():
        logits = network(torch.empty(2, 3, *size, device="meta"))
    channels = classes or model_spec(name).num_classes
    if model_spec(name).notes.startswith("Classifier"):
        assert logits.shape == (2, channels)
        return
    assert logits.shape[:2] == (2, channels)
    assert any(_has_stride(logits, size, stride) for stride in (1, 2, 4, 8, 16))


@pytest.mark.parametrize("name", [name for name in list_models() if name not in LARGER])
def test_fused_form_is_exact(name: str) -> None:
    network = create_model(name)
    state = network.state_dict()
    shapes = [[key, list(value.shape), "fill"] for key, value in state.items() if value.is_floating_point()]
    fill_module(network, {"name": name, "state": shapes})
    _, report = fuse(network, torch.from_numpy(golden.make_input((1, 3, *fitting_size(name, (64, 96))))))
    assert report.batch_norms[1] < report.batch_norms[0] or report.batch_norms[0] == 0  # ParseNet has none
    assert report.error <= 1e-12


def test_record_of_an_unknown_class_names_it() -> None:
    record = {"name": "head_of_nobody", "source": {"class": "NobodysHead"}, "state": []}
    with pytest.raises(LookupError, match="NobodysHead"):
        run_record(record)
