"""What can be exported: names, factories, modules; and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgeseg.errors import CheckpointError, ExportError, UnknownNameError, UsageError
from edgeseg.models.source import resolve_network
from edgeseg.specs import InputSpec
from tests.export.networks import Tiny, own_spec

HERE = "tests.export.networks"


def test_registered_name() -> None:
    source = resolve_network("espnet_c_p2_q3", num_classes=4)
    assert (source.origin, source.weights) == ("espnet_c_p2_q3", "random (seed 0)")
    assert source.spec.name == "espnet_c_p2_q3"
    assert not source.module.training
    again = resolve_network("espnet_c_p2_q3", num_classes=4)
    for (key, value), other in zip(source.module.state_dict().items(), again.module.state_dict().values(), strict=True):
        assert torch.equal(value, other), key


def test_unknown_name_suggests() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'espnet_p2_q8'"):
        resolve_network("espnet_p2_q88")


def test_factory_gets_conventions_by_its_name() -> None:
    source = resolve_network(f"{HERE}:tiny")
    assert source.origin == f"{HERE}:tiny"
    assert source.spec.name == "tiny"
    assert source.spec.input == InputSpec.imagenet()
    assert source.spec.divisor == 1
    assert source.weights == "as built"


def test_a_module_carries_its_own_spec_and_an_argument_goes_before_it() -> None:
    assert resolve_network(f"{HERE}:with_spec").spec == own_spec()
    other = own_spec("other")
    assert resolve_network(f"{HERE}:with_spec", spec=other).spec == other


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("no_such_package_at_all:make", UsageError, "cannot import 'no_such_package_at_all'"),
        (f"{HERE}:nothing", UsageError, "has no 'nothing'"),
        (f"{HERE}:", UsageError, "has no ''"),
        (f"{HERE}:CLASSES", UsageError, "is a int; expected a function"),
        (f"{HERE}:no_module", UsageError, r"gave a int; expected a torch\.nn\.Module"),
        (f"{HERE}:broken", ExportError, "failed: RuntimeError: no weights here$"),
        (f"{HERE}:MixesBatch.forward", UsageError, "has no 'MixesBatch.forward'"),
        (":make", ExportError, "importing '' failed: ValueError"),
        (".networks:make", ExportError, "importing '.networks' failed: TypeError"),
    ],
)
def test_a_wrong_factory_is_one_sentence(path: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        resolve_network(path)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_a_factory_module_that_fails_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fails_on_import.py").write_text("def make(:\n")
    (tmp_path / "lacks_attribute.py").write_text("import os\nos.no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExportError, match="importing 'fails_on_import' failed: SyntaxError"):
        resolve_network("fails_on_import:make")
    with pytest.raises(ExportError, match="importing 'lacks_attribute' failed: AttributeError"):
        resolve_network("lacks_attribute:make")


def test_a_module_handed_in_is_copied() -> None:
    mine = Tiny().double().train()
    source = resolve_network(mine)
    assert source.module is not mine
    assert mine.training
    assert next(mine.parameters()).dtype is torch.float64
    assert not source.module.training
    assert next(source.module.parameters()).dtype is torch.float32
    assert source.origin == "Tiny"


def test_weights_of_an_own_module(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    torch.save(Tiny(seed=1).state_dict(), file)
    mine = Tiny(seed=2)
    source = resolve_network(mine, weights=file)
    assert source.weights == "mine.pth"
    assert torch.equal(source.module.state_dict()["head.weight"], Tiny(seed=1).head.weight)
    assert torch.equal(mine.head.weight, Tiny(seed=2).head.weight)
    torch.save({"other": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"does not fit Tiny.*missing.*unexpected"):
        resolve_network(Tiny(), weights=file)


def test_spec_name_of_an_odd_class() -> None:
    class _Odd(nn.Module):
        pass

    assert resolve_network(_Odd()).spec.name == "odd"


def test_the_callers_random_numbers_go_on() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    first = resolve_network("extremec3net").module.state_dict()
    assert torch.equal(torch.rand(3), wanted)
    second = resolve_network("extremec3net").module.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
