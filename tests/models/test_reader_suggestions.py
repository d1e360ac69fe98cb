"""Which network a checkpoint fits, suggested from fingerprints: they bound what building every network would say."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from edgeseg.errors import CheckpointError
from edgeseg.models import list_models, model_spec, registry, suggest
from edgeseg.models.checkpoints import load_state
from edgeseg.models.facts import fingerprint, read_fingerprints
from edgeseg.models.registry import build_on_meta
from edgeseg.models.suggest import Given, share, suggest_network, upper_share

SOME = ("sinet", "espnet_p2_q8", "dfanet_b", "pphumanseg_lite", "mmseg_fcn_r18_d8", "espnetv2_edgenets_s1_0")
PADDLE = {"running_mean": "_mean", "running_var": "_variance"}


def _state(name: str, classes: int | None = None) -> dict[str, Tensor]:
    return dict(build_on_meta(name, classes).state_dict())


def _as_paddle(state: Mapping[str, Tensor], linear: set[str]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        stem, _, leaf = key.rpartition(".")
        renamed[f"{stem}.{PADDLE.get(leaf, leaf)}"] = value.t() if key in linear else value
    return {key: value for key, value in renamed.items() if not key.endswith("num_batches_tracked")}


def _changed(state: Mapping[str, Tensor], rng: random.Random) -> dict[str, Tensor]:
    """The state with tensors lost, added and of another shape."""
    kept = {key: value for key, value in state.items() if rng.random() > rng.choice((0.0, 0.1, 0.4))}
    for key in rng.sample(sorted(kept), len(kept) // 10):
        kept[key] = torch.empty(*kept[key].shape, 2, device="meta")
    return kept | {f"extra.{at}": torch.empty(1) for at in range(rng.randrange(9))}


@pytest.mark.parametrize("name", [name for name in SOME if name in list_models()])
def test_fingerprints_are_those_of_the_networks(name: str) -> None:
    stored = read_fingerprints()[name]
    assert stored == fingerprint(name), "run python -m edgeseg.models.facts"
    tensors = [key for key in _state(name) if not key.endswith("num_batches_tracked")]
    assert len(stored.words) + len(stored.free) == len(tensors)


@pytest.mark.slow
def test_every_fingerprint_is_that_of_its_network() -> None:
    stored = read_fingerprints()
    assert list(stored) == list_models(), "run python -m edgeseg.models.facts"
    for name in stored:
        assert stored[name] == fingerprint(name), f"{name}: run python -m edgeseg.models.facts"
        given = Given(_state(name), stored[name].ignores)
        assert upper_share(given, stored[name]) == 1.0, name


def test_every_network_has_a_fingerprint() -> None:
    assert list(read_fingerprints()) == list_models(), "run python -m edgeseg.models.facts"


@pytest.mark.parametrize("seed", range(12))
def test_the_bound_is_never_below_the_share(seed: int) -> None:
    rng = random.Random(seed)
    names = list_models()
    name = rng.choice(names)
    given = _changed(_state(name, model_spec(name).num_classes + rng.choice((0, 3))), rng)
    if seed % 3 == 0:
        given = _as_paddle(given, set())
    for other in (name, *rng.sample(names, 3)):
        known = read_fingerprints()[other]
        assert upper_share(Given(given, known.ignores), known) >= share(given, other)


@pytest.mark.parametrize("seed", range(4))
def test_the_answer_is_that_of_building_every_network(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    few = rng.sample(list_models(), 12)
    monkeypatch.setattr(registry, "list_models", lambda: few)
    given, asked = _changed(_state(few[3]), rng), few[0]
    shares = {other: share(given, other) for other in (asked, *few)}
    best = max(shares, key=lambda other: shares[other])
    suggested = suggest_network(given, asked)
    assert (f"'{best}' ({shares[best]:.0%}" in suggested) == (0.5 <= shares[best] < 1.0)


def test_networks_of_the_same_tensors_keep_the_one_asked_for() -> None:
    state = _state("erfnet_encoder_head")
    assert "it fits 'erfnet':" in suggest_network(state, "sinet")
    assert "it fits 'erfnet_encoder_head' with" in suggest_network(state, "erfnet_encoder_head")


def test_a_paddle_checkpoint_is_suggested_for() -> None:
    name = next(name for name in list_models("pp*") if "mask" not in name)
    module = build_on_meta(name)
    linear = {f"{key}.weight" for key, part in module.named_modules() if isinstance(part, torch.nn.Linear)}
    assert f"it fits '{name}'" in suggest_network(_as_paddle(module.state_dict(), linear), "sinet")


def test_few_networks_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def noted(state: Mapping[str, Tensor], name: str) -> float:
        built.append(name)
        return share(state, name)

    monkeypatch.setattr(suggest, "share", noted)
    assert "it fits 'espnet_p2_q5'" in suggest_network(_state("espnet_p2_q5"), "espnet_p2_q8")
    assert 1 <= len(built) <= 2
    built.clear()
    foreign = {f"layer{at}.weight": torch.empty(3, 3, device="meta") for at in range(500)}
    assert "no registered network" in suggest_network(foreign, "espnet_p2_q8")
    assert built == []


def test_a_network_of_ones_own_is_compared_by_building(monkeypatch: pytest.MonkeyPatch) -> None:
    list_models()
    own = registry.Network(
        lambda *, num_classes: torch.nn.Sequential(torch.nn.Conv2d(3, num_classes, 5)),
        model_spec("sinet").but(name="own_net"),
    )
    monkeypatch.setitem(registry.NETWORKS._entries, "own_net", (own, __name__))
    state = {"0.weight": torch.empty(2, 3, 5, 5), "0.bias": torch.empty(2)}
    assert "it fits 'own_net'" in suggest_network(state, "espnet_p2_q8")


def test_a_paddle_weight_of_three_axes_is_no_linear_one() -> None:
    name = next(name for name in list_models("mmseg_segformer_b0"))
    state = {"bn._mean": torch.empty(1), "backbone.layers.0.1.0.attn.attn.in_proj_weight": torch.empty(1, 1, 1)}
    module = build_on_meta(name)
    linear = next(key for key, part in module.named_modules() if isinstance(part, torch.nn.Linear))
    with pytest.raises(CheckpointError, match="does not fit a network"):
        load_state(module, {**state, f"{linear}.weight": torch.empty(2, 2, 2)}, what="a network")
