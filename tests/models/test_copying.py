"""Copies of modules that `copy.deepcopy` refuses, and wrappers of training."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.copying import copy_module, unwrap
from edgeseg.models.source import resolve_network

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.kept: Any = None

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.conv(image)
        return logits

    def keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.kept = output


def _weight_norm() -> nn.Module:
    net = _Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(net.conv)  # type: ignore[no-untyped-call,unused-ignore]
    return net


def _spectral_norm() -> nn.Module:
    net = _Net()
    nn.utils.spectral_norm(net.conv)
    net(IMAGE)
    return net


def _activation() -> nn.Module:
    net = _Net()
    net.kept = net(IMAGE)
    return net


def _activations() -> nn.Module:
    net = _Net()
    net.kept = {"features": [net(IMAGE)]}
    return net


def _hook() -> nn.Module:
    net = _Net()
    net.conv.register_forward_hook(net.keep)
    net(IMAGE)
    return net


def _lock() -> nn.Module:
    net = _Net()
    net.kept = threading.Lock()
    return net


def _buffer() -> nn.Module:
    net = _Net()
    net.register_buffer("last", net(IMAGE))
    return net


REFUSED = [_weight_norm, _spectral_norm, _activation, _activations, _hook, _lock, _buffer]


@pytest.mark.parametrize("build", REFUSED)
def test_a_copy_of_its_own_with_the_same_logits(build: Callable[[], nn.Module]) -> None:
    module = build().eval()
    copied = copy_module(module)
    assert torch.equal(copied(IMAGE), module(IMAGE))
    mine = {id(parameter) for parameter in module.parameters()}
    assert not mine & {id(parameter) for parameter in copied.parameters()}
    wanted = module(IMAGE).detach().clone()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(2.0)
    assert torch.equal(module(IMAGE), wanted)
    assert not torch.equal(copied(IMAGE), wanted)


@pytest.mark.parametrize("build", REFUSED)
def test_a_copy_runs_in_float64(build: Callable[[], nn.Module]) -> None:
    module = build().eval()
    torch.testing.assert_close(copy_module(module).double()(IMAGE.double()).float(), module(IMAGE))


def _calls_itself(function: Callable[[nn.Module], Any]) -> nn.Module:
    net = nn.Module()
    net.conv = nn.Conv2d(3, 4, 3, padding=1)
    net.forward = function(net)
    return net


def _one_more() -> nn.Module:
    def forward(image: Tensor) -> Tensor:
        logits: Tensor = net.conv(image)  # type: ignore[operator,unused-ignore]
        return logits

    net = _calls_itself(lambda _: forward)
    return net


@pytest.mark.parametrize(
    "build",
    [
        _one_more,
        lambda: _calls_itself(lambda net: lambda image: net.conv(image)),  # type: ignore[operator,unused-ignore]
        lambda: _calls_itself(lambda net: net.conv.forward),  # type: ignore[union-attr,unused-ignore]
        lambda: _calls_itself(lambda net: torch.compile(net.conv.forward, backend="eager")),  # type: ignore[union-attr,unused-ignore]
        lambda: _calls_itself(lambda net: functools.partial(net.conv.forward)),  # type: ignore[union-attr,unused-ignore]
    ],
)
def test_functions_among_attributes_refer_to_the_copy(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    """Else weights that are loaded into the copy would do nothing, in silence."""
    module = build()
    wanted = module(IMAGE).detach()
    weights = {key: 2 * value for key, value in module.state_dict().items()}
    torch.save(weights, tmp_path / "w.pth")
    source = resolve_network(module, weights=tmp_path / "w.pth")
    torch.testing.assert_close(source.module(IMAGE), 2 * wanted)
    assert torch.equal(module(IMAGE), wanted)


class _Never(_Net):
    def __deepcopy__(self, memo: object) -> NoReturn:
        raise RuntimeError("not this one")


def never() -> nn.Module:
    return _Never()


def test_a_module_that_refuses_names_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"_Never cannot be copied \(not this one\); .* package\.module:factory"):
        resolve_network(_Never())


def test_the_way_out_works() -> None:
    assert isinstance(resolve_network(f"{__name__}:never").module, _Never)


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        lambda net: torch.compile(net, backend="eager"),
        lambda net: torch.compile(nn.DataParallel(net), backend="eager"),
        lambda net: nn.DataParallel(cast(nn.Module, torch.compile(net, backend="eager"))),
    ],
)
def test_wrappers_of_training_are_left(wrap: Callable[[nn.Module], nn.Module]) -> None:
    net = _Net()
    assert unwrap(wrap(net)) is net
    source = resolve_network(wrap(net))
    assert (type(source.module), source.origin) == (_Net, "_Net")
    assert list(source.module.state_dict()) == ["conv.weight", "conv.bias"]
