"""Checkpoints that hold more than one set of weights: none is taken in silence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError, UsageError
from edgeseg.models import create_model
from edgeseg.models.checkpoints import open_checkpoint, read_checkpoint
from edgeseg.models.source import resolve_network


def _state(value: float, prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}weight": torch.full((2, 3, 1, 1), value), f"{prefix}bias": torch.full((2,), value)}


def _network() -> nn.Module:
    return nn.Conv2d(3, 2, 1)


def _saved(tmp_path: Path, content: object) -> Path:
    torch.save(content, tmp_path / "w.pth")
    return tmp_path / "w.pth"


SEVERAL: list[tuple[dict[str, Any], str, str]] = [
    ({"state_dict": _state(1), "state_dict_ema": _state(2)}, "state_dict", "state_dict_ema"),
    ({"state_dict": _state(1), "ema_state_dict": _state(2)}, "state_dict", "ema_state_dict"),
    ({"model": _state(1), "model_ema": _state(2, "module.")}, "model", "model_ema"),
    ({"model": _state(1), "ema": {**_state(2, "ema_model."), "initted": torch.tensor(1)}}, "model", "ema"),
    ({"params": _state(1), "params_ema": _state(2)}, "params", "params_ema"),
    ({"student": _state(1, "module."), "teacher": _state(2)}, "student", "teacher"),
    ({"model": _state(1), "swa_model": {**_state(2, "module."), "n_averaged": torch.tensor(5)}}, "model", "swa_model"),
    ({"model": _state(1), "ema": {"decay": 0.9, "module": _state(2)}}, "model", "ema.module"),
    ({"state_dict": _state(1), "callbacks": {"EMA": {"weights": _state(2)}}}, "state_dict", "callbacks.EMA.weights"),
    ({**_state(1), "ema": _state(2)}, ".", "ema"),
]


@pytest.mark.parametrize(("content", "first", "second"), SEVERAL)
def test_several_sets_are_listed_and_one_is_chosen(
    tmp_path: Path, content: dict[str, Any], first: str, second: str
) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2, 3, 1, 1)}}, "param_groups": [{"lr": 0.1}]}
    file = _saved(tmp_path, {**content, "epoch": 3, "optimizer": optimizer})
    with pytest.raises(CheckpointError, match=r"holds several sets of weights \(.*\); .*--weights-key") as caught:
        resolve_network(_network(), weights=file)
    assert {first, second} == set(re.findall(r"'([^']*)'", str(caught.value).partition("weights (")[2]))
    for key, other, value in ((first, second, 1.0), (second, first, 2.0)):
        source = resolve_network(_network(), weights=file, weights_key=key)
        assert source.module.state_dict()["bias"].tolist() == [value, value]
        assert source.weights == f"w.pth, {key}"
        assert source.notes[0] == f"w.pth: the weights are those under '{key}'; not taken: '{other}'"


@pytest.mark.parametrize("key", ["student", "teacher"])
@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("above", ["", "model."])
def test_two_networks_under_prefixes(tmp_path: Path, key: str, wrap: bool, above: str) -> None:
    state = {**_state(1, f"{above}student."), **_state(2, f"{above}teacher.")}
    file = _saved(tmp_path, {"state_dict": state} if wrap else state)
    with pytest.raises(CheckpointError, match=rf"under '{above}student', '{above}teacher' fit alone"):
        resolve_network(_network(), weights=file)
    value, other = (1.0, "teacher") if key == "student" else (2.0, "student")
    source = resolve_network(_network(), weights=file, weights_key=above + key)
    assert source.module.state_dict()["bias"].tolist() == [value, value]
    assert source.notes == (f"w.pth: the weights are those under '{above}{key}'; not taken: '{above}{other}'",)


@pytest.mark.parametrize(
    "content",
    [
        {"network_weights": _state(1), "current_epoch": 5},
        {"my_net": _state(1), "optimizer_state": {"weight": torch.zeros(2, 3, 1, 1), "bias": torch.zeros(2)}},
        {"epoch": torch.tensor(3), "generator": _state(1)},
        {"model": _state(1), "optimizer": {"exp_avg": _state(2)}, "lr_scheduler": {"weight": torch.ones(1)}},
        {"state_dict": _state(1), "history": {"loss": torch.ones(9)}},
    ],
)
def test_one_set_needs_no_key_and_no_word(tmp_path: Path, content: dict[str, Any]) -> None:
    source = resolve_network(_network(), weights=_saved(tmp_path, content))
    assert source.module.state_dict()["bias"].tolist() == [1.0, 1.0]
    assert source.notes == ()
    assert source.weights == "w.pth"


def test_another_network_beside_the_usual_one_is_told(tmp_path: Path) -> None:
    critic = {"critic.weight": torch.zeros(7, 7), "critic.bias": torch.zeros(7)}
    source = resolve_network(_network(), weights=_saved(tmp_path, {"model": _state(1), "critic": critic}))
    assert source.notes == ("w.pth: the weights are those under 'model'; not taken: 'critic'",)


def test_different_networks_without_a_usual_name_are_listed(tmp_path: Path) -> None:
    file = _saved(tmp_path, {"net_g": _state(1), "net_d": {"x.weight": torch.zeros(5)}})
    with pytest.raises(CheckpointError, match=r"several sets of weights \('net_g', 'net_d'\)"):
        read_checkpoint(file)
    assert read_checkpoint(file, "net_g")["bias"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("key", ["state_dict_em", "", "epoch", "state_dict.weight", "nothing.at.all"])
def test_a_key_that_the_file_lacks(tmp_path: Path, key: str) -> None:
    file = _saved(tmp_path, {"epoch": 3, "state_dict": _state(1), "state_dict_ema": _state(2)})
    with pytest.raises(CheckpointError, match=r"no weights under '.*'; it holds 'state_dict', 'state_dict_ema'"):
        open_checkpoint(file, key)


def test_a_key_for_a_file_of_one_set(tmp_path: Path) -> None:
    file = _saved(tmp_path, _state(1))
    with pytest.raises(CheckpointError, match=r"no weights under 'ema'; leave --weights-key out"):
        read_checkpoint(file, "ema")
    assert read_checkpoint(file, ".")["bias"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("content", [{"epoch": 3}, [_state(1)], {"models": [_state(1)]}])
def test_a_key_for_a_file_of_none(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_checkpoint(_saved(tmp_path, content), "ema")


@pytest.mark.parametrize(("key", "value"), [("model", 1.0), ("model_ema", 2.0), ("state_dict.model_ema", 2.0)])
def test_averaged_weights_beside_the_others_in_one_state_dict(tmp_path: Path, key: str, value: float) -> None:
    network = nn.ModuleDict({"model": _network()})
    state = {**_state(1, "model."), **_state(2, "model_ema.module."), "model_ema.decay": torch.tensor(0.9)}
    file = _saved(tmp_path, {"state_dict": state})
    with pytest.raises(CheckpointError, match=r"unexpected .*; the tensors under 'model' fit alone"):
        resolve_network(network, weights=file)
    source = resolve_network(network, weights=file, weights_key=key)
    assert source.module.state_dict()["model.bias"].tolist() == [value, value]


def test_a_module_that_has_both_networks_loads_both(tmp_path: Path) -> None:
    network = nn.ModuleDict({"model": _network(), "model_ema": _network()})
    file = _saved(tmp_path, {"state_dict": {**_state(1, "model."), **_state(2, "model_ema.")}})
    source = resolve_network(network, weights=file)
    assert [value.flatten()[0].item() for value in source.module.state_dict().values()] == [1.0, 1.0, 2.0, 2.0]
    assert source.notes == ()


def test_a_key_without_a_file() -> None:
    with pytest.raises(UsageError, match="--weights-key"):
        resolve_network(_network(), weights_key="ema")


def test_a_registered_network_takes_a_key(tmp_path: Path) -> None:
    raw = create_model("fast_scnn", num_classes=5).state_dict()
    averaged = {f"module.{key}": torch.zeros_like(value) for key, value in raw.items()}
    file = _saved(tmp_path, {"state_dict": raw, "ema_state_dict": averaged})
    with pytest.raises(CheckpointError, match=r"'state_dict', 'ema_state_dict'"):
        create_model("fast_scnn", weights=file)
    module = create_model("fast_scnn", weights=file, weights_key="ema_state_dict")
    assert all(not value.any() for value in module.state_dict().values())
    assert resolve_network("fast_scnn", weights=file, weights_key="state_dict").module.state_dict().keys() == raw.keys()


class Meter:
    """Of a training run."""


@pytest.mark.parametrize("objects", [{"meter": Meter()}, {"hyper": [Meter(), {"deep": Meter()}]}])
def test_what_was_skipped_is_told(tmp_path: Path, objects: dict[str, Any]) -> None:
    source = resolve_network(_network(), weights=_saved(tmp_path, {"state_dict": _state(1), **objects}))
    (note,) = source.notes
    assert note == f"w.pth: objects that are no tensors were passed over, not built: {__name__}.Meter"


def test_dictionaries_that_share_dictionaries_without_end_are_read_once(tmp_path: Path) -> None:
    inner: dict[str, Any] = _state(1)
    for _ in range(60):
        inner = {"a": inner, "b": inner}
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_checkpoint(_saved(tmp_path, inner))
