"""Prefixes of a checkpoint's keys: cut or added as the network needs them, and never by their names alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import CheckpointError
from edgeseg.models.checkpoint_keys import key_forms, plain_names
from edgeseg.models.checkpoints import load_state, stored_classes


class _Core(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1)


class _In(nn.Module):
    """Holds another module under names, the outermost first."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.add_module(names[0], _In(*names[1:]) if len(names) > 1 else _Core())


def _state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {key: torch.randn(value.shape) for key, value in _Core().state_dict().items()}


def _before(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in _state().items()}


def _core() -> nn.Module:
    return _Core()


def _in_model() -> nn.Module:
    return _In("model")


def _in_two() -> nn.Module:
    return _In("student", "net")


@pytest.mark.parametrize("network", [_core, _in_model, _in_two])
@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "model.",
        "module.model.",
        "model._orig_mod.",
        "net.",
        "network.",
        "backbone.",
        "a.b.c.",
        "student.",
    ],
)
def test_any_shared_prefix_is_cut_or_added(network: Callable[[], nn.Module], prefix: str) -> None:
    module = network()
    load_state(module, _before(prefix), what="a network")
    loaded = list(module.state_dict().values())
    assert all(torch.equal(got, wanted) for got, wanted in zip(loaded, _state().values(), strict=True))


def test_as_stored_goes_first_and_needs_no_word() -> None:
    state = _before("model.")
    assert next(key_forms(state, state)).stored == {key: key for key in state}
    assert load_state(_In("model"), state, what="a network") == ()
    assert load_state(_Core(), state, what="a network") == ()


@pytest.mark.parametrize(
    ("module", "prefix", "told"),
    [
        (_Core(), "backbone.", "the prefix 'backbone.' of every key was cut"),
        (_In("model"), "", "the prefix 'model.' was put before every key"),
        (_In("net"), "student.", "'student.' of every key was cut; the prefix 'net.' was put"),
    ],
)
def test_an_unusual_prefix_is_told(module: nn.Module, prefix: str, told: str) -> None:
    (note,) = load_state(module, _before(prefix), what="a network")
    assert told in note


@pytest.mark.parametrize("part", ["module", "_orig_mod", "_fsdp_wrapped_module"])
def test_a_wrapper_around_one_part_is_looked_through(part: str) -> None:
    state = {key.replace("conv.", f"conv.{part}."): value for key, value in _state().items()}
    assert f"conv.{part}.weight" in state
    module = _Core()
    load_state(module, state, what="a network")
    assert torch.equal(module.conv.weight, _state()["conv.weight"])
    assert torch.equal(module.head.weight, _state()["head.weight"])


@pytest.mark.parametrize("extra", ["n_averaged", "criterion.weight", "seg_loss.weight", "num_updates"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_keys_of_training_alone_are_left_out_and_told(extra: str, prefix: str) -> None:
    module = _Core()
    (note,) = load_state(module, {**_before(prefix), extra: torch.ones(4)}, what="a network")
    assert note == f"a network: keys of training alone were left out: {extra}"
    assert torch.equal(module.conv.weight, _state()["conv.weight"])


def test_a_network_that_has_such_keys_keeps_them() -> None:
    module = nn.Module()
    module.criterion = nn.Linear(2, 1)
    module.conv = nn.Conv2d(1, 1, 1)
    state = {key: torch.full(value.shape, 5.0) for key, value in module.state_dict().items()}
    assert load_state(module, state, what="a network") == ()
    assert module.criterion.weight.tolist() == [[5.0, 5.0]]


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_what_the_network_lacks_is_still_refused(prefix: str) -> None:
    state = {**_before(prefix), f"{prefix}aux.weight": torch.ones(2)}
    with pytest.raises(CheckpointError, match=r"of 4 keys 1 unexpected \(aux\.weight\)$"):
        load_state(_Core(), state, what="a network")


def test_parts_that_fit_alone_are_named() -> None:
    state = {**_before("student."), **_before("teacher.")}
    with pytest.raises(CheckpointError, match=r"the tensors under 'student', 'teacher' fit alone: .*--weights-key"):
        load_state(_Core(), state, what="a network")
    with pytest.raises(CheckpointError, match=r"under 'model' fit alone"):
        load_state(_Core(), {**_before("model."), "metric.confusion": torch.ones(2, 2)}, what="a network")
    both = nn.ModuleDict({"student": _Core(), "teacher": _Core()})
    assert load_state(both, state, what="a network of both") == ()


def test_names_without_prefixes_and_classes_below_them() -> None:
    state = {**_before("module._orig_mod."), "decay": torch.tensor(0.9)}
    assert set(plain_names(state)) == set(_state())
    assert stored_classes(state, "head.weight") == 3
    assert stored_classes(state, "tail.weight") is None


def test_a_single_tensor_keeps_its_name() -> None:
    module = nn.Linear(2, 1, bias=False)
    load_state(module, {"net.weight": torch.full((1, 2), 2.0)}, what="a network")
    assert module.weight.tolist() == [[2.0, 2.0]]
    with pytest.raises(CheckpointError, match="does not fit"):
        load_state(module, {}, what="a network")
