"""How records with several outputs run: training forms, named outputs, maps that a network does not declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeseg.models import create_model
from tests.goldens.runner import TOLERANCE, fill_module, golden, in_order, run_record

SHAPE = (1, 3, 64, 96)


def _output(x: Tensor) -> dict[str, Any]:
    places = golden.sample_places(list(x.shape))
    return {
        "shape": list(x.shape),
        "absmax": float(x.abs().max()),
        "value": x.flatten().numpy()[places].tolist(),
    }


def _filled(name: str, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """A network as a record would have it, and the record without outputs."""
    network = create_model(name, **options)
    state = [[key, list(x.shape), "fill"] for key, x in network.state_dict().items() if x.is_floating_point()]
    record = {"name": name, "state": state, "input": {"shape": list(SHAPE), "seed": 0}}
    fill_module(network, record)
    return network, record


def _worst(record: dict[str, Any], outputs: Sequence[Tensor]) -> float:
    whole = {**record, "outputs": [_output(x) for x in outputs]}
    return float(golden.worst_error(whole, run_record(whole)))


def _image() -> Tensor:
    return torch.from_numpy(golden.make_input(SHAPE, 0))


def test_mask_and_edge() -> None:
    network, record = _filled("portraitnet_edge", aux=True)
    with torch.no_grad():
        x: Tensor = getattr(network, "decode")(_image())  # noqa: B009
        mask, edge = network.get_submodule("pred")(x), network.get_submodule("edge")(x)
    assert _worst(record, [mask, edge]) <= TOLERANCE
    assert _worst(record, [edge, mask]) > 1e-2


@torch.no_grad()
def _ghost_maps(network: nn.Module) -> list[Tensor]:
    """The stem's map at stride 2, and the end of every stage, computed one by one."""
    stem = network.get_submodule("bn1")(network.get_submodule("conv_stem")(_image()))
    maps = [torch.relu(stem)]
    for stage in network.get_submodule("blocks").children():
        maps.append(stage(maps[-1]))
    return maps


def test_maps_at_a_stride_that_is_not_declared() -> None:
    network, record = _filled("ghostnet_0_5x")
    maps = _ghost_maps(network)
    record["name"] = "ghostnet_0_5x_features@64x96"
    assert [64 // x.shape[2] for x in maps[:3]] == [2, 2, 4]
    assert _worst(record, maps) <= TOLERANCE
    assert _worst(record, [maps[0], maps[2], maps[4]]) <= TOLERANCE
    assert _worst(record, [maps[2], maps[0]]) > 1e-2  # not in the order of computation
    assert _worst(record, [maps[0] + 1e-3, *maps[1:]]) > TOLERANCE


@torch.no_grad()
def test_the_end_of_every_aligned_block() -> None:
    network, record = _filled("xception41")
    record["name"] = "xception41_features"
    maps = [network.get_submodule("stem")(_image())]
    for block in network.get_submodule("blocks").children():
        maps.append(block(maps[-1]))
    assert len(maps) == 14
    assert _worst(record, maps) <= TOLERANCE


def test_outputs_by_name() -> None:
    first, second = torch.zeros(1), torch.ones(1)
    wanted = [{"name": "edge"}, {"name": "mask"}]
    assert in_order({"mask": first, "edge": second}, wanted) == [second, first]
    assert in_order({"mask": first, "edge": second}, [{}, {}]) == [first, second]
    assert in_order((first, second), wanted) == [first, second]
    assert in_order(first, wanted) == [first]
    with pytest.raises(LookupError, match="hair"):
        in_order({"mask": first}, [{"name": "hair"}])


def test_several_outputs_of_a_network_without_training_form() -> None:
    _, record = _filled("ghostnet_0_5x")
    with pytest.raises(Exception, match="no training-only parts"):
        run_record({**record, "outputs": [{"shape": [1]}, {"shape": [1]}]})
