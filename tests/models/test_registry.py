"""Names, suggestions and orders of the registry."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from torch import nn

from edgeseg.errors import EdgesegError, UnknownNameError, UsageError
from edgeseg.models import create_model, list_models, model_spec, register, registry


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations of a test vanish with it."""
    list_models()
    monkeypatch.setattr(registry.NETWORKS, "_entries", dict(registry.NETWORKS._entries))


def _builder(*, num_classes: int = 2) -> nn.Module:
    return nn.Conv2d(3, num_classes, 1)


@pytest.mark.usefixtures("scratch")
def test_a_second_network_of_one_name_is_refused_naming_both_modules() -> None:
    with pytest.raises(
        EdgesegError, match=r"'sinet' is registered twice: in edgeseg\.models\.families\.sinet and in .*registry"
    ):
        register(model_spec("sinet"), name="sinet")(_builder)


@pytest.mark.usefixtures("scratch")
def test_registering_under_a_given_name() -> None:
    register(model_spec("sinet"), name="my_net_12")(_builder)
    assert model_spec("my_net_12").name == "my_net_12"
    assert list_models("my_*") == ["my_net_12"]
    assert isinstance(create_model("my_net_12", num_classes=5), nn.Conv2d)


@pytest.mark.usefixtures("scratch")
def test_order_is_natural() -> None:
    for name in ("znet_q10", "znet_q3", "znet_q8", "znet"):
        register(model_spec("sinet"), name=name)(_builder)
    assert list_models("znet*") == ["znet", "znet_q3", "znet_q8", "znet_q10"]


def test_pattern() -> None:
    assert list_models("pidnet_?") == ["pidnet_l", "pidnet_m", "pidnet_s"]
    assert list_models("no_such_*") == []
    assert set(list_models("espnet_*")) < set(list_models())


@pytest.mark.parametrize("lookup", [model_spec, create_model])
def test_unknown_name_suggests_the_nearest(lookup: object) -> None:
    assert callable(lookup)
    with pytest.raises(UnknownNameError, match="did you mean 'pidnet_s'"):
        lookup("pidnets")


@pytest.mark.parametrize("classes", [0, -3])
def test_number_of_classes_must_be_positive(classes: int) -> None:
    with pytest.raises(UsageError, match=f"num_classes is {classes}; it must be at least 1"):
        create_model("sinet", num_classes=classes)


def test_a_network_that_cannot_have_so_few_classes_says_so() -> None:
    with pytest.raises(UsageError, match="use 5 or more"):
        create_model("espnet_p2_q3", num_classes=4)


def test_created_networks_are_in_eval_mode_with_the_published_classes() -> None:
    network = create_model("extremec3net")
    assert not network.training
    assert network.state_dict()["classifier.2.weight"].shape[0] == 1


def test_one_registry_serves_networks_heads_necks_and_backbones() -> None:
    from edgeseg.models.backbones.registry import BACKBONES
    from edgeseg.models.heads.registry import HEADS, NECKS

    for known, kind in ((registry.NETWORKS, "network"), (HEADS, "head"), (NECKS, "neck"), (BACKBONES, "backbone")):
        name = known.names()[0]
        with pytest.raises(
            EdgesegError, match=rf"{kind} '{name}' is registered twice: in edgeseg\.models\..* and in here"
        ):
            known.add(name, known.find(name), "here")  # type: ignore[arg-type]
        with pytest.raises(UnknownNameError, match=f"unknown {kind} 'nothing_of_this_name'"):
            known.find("nothing_of_this_name")


def test_only_the_packages_of_networks_are_walked() -> None:
    """A helper beside them is no family: everything in families/ and mmseg/ registers something or serves there."""
    homes = {network.builder.__module__.rpartition(".")[0] for network in registry.NETWORKS}
    assert homes == {"edgeseg.models.families", "edgeseg.models.mmseg"}


def test_networks_know_nothing_of_export() -> None:
    folder = Path(registry.__file__).parent
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("edgeseg.export")], file
