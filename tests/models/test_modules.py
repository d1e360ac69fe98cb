"""Modules as training frameworks leave them: wrapped, without forward, lazy, quantised, in other precisions."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgeseg.errors import CheckpointError, UsageError
from edgeseg.export.inspect import inspect_network
from edgeseg.models.modules import has_forward, network_inside
from edgeseg.models.source import NetworkSource, resolve_network

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SIZE = (8, 8)


class _Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        for parameter in self.parameters():
            parameter.data.normal_(generator=torch.Generator().manual_seed(seed))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.norm(self.conv(image))
        return logits


class LightningModule(nn.Module):
    """As lightning's own: attributes of its mixins, and a forward that leaves it to the class above."""

    def __init__(self) -> None:
        super().__init__()
        self._trainer: Any = None
        self._hparams: dict[str, Any] = {}

    @property
    def trainer(self) -> Any:
        if self._trainer is None:
            raise RuntimeError(f"{type(self).__name__} is not attached to a `Trainer`.")
        return self._trainer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


LightningModule.__module__ = "lightning.pytorch.core.module"


class _Trainer:
    """Holds what no copy can: a lock, an open file, other modules."""

    def __init__(self, module: nn.Module) -> None:
        self.lock, self.model = threading.Lock(), module

    def __deepcopy__(self, memo: object) -> Any:
        raise AssertionError("a trainer is not copied")


class _Metric(nn.Module):
    """As torchmetrics' own: a state that is no buffer, and an update that is wrapped."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.update = torch.zeros(()), lambda value: value

    def forward(self, value: Tensor) -> Tensor:
        self.total = self.total + value.sum()
        return self.total


class _Forwarding(LightningModule):
    """What most people write: the network as an attribute, and a forward that calls it."""

    def __init__(self, name: str = "model") -> None:
        super().__init__()
        self.name = name
        setattr(self, name, _Net())
        self.loss, self.metric = nn.CrossEntropyLoss(torch.ones(4)), _Metric()
        self._hparams = {"lr": 1e-3, "lock": threading.Lock()}
        self._trainer = _Trainer(self)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = getattr(self, self.name)(image)
        return logits


class _Training(LightningModule):
    """Only trains: no forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.criterion, self.val_metric = _Net(), nn.CrossEntropyLoss(torch.ones(4)), _Metric()
        self.perceptual_loss = nn.Conv2d(3, 3, 1)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss: Tensor = self.criterion(self.net(batch[0]), batch[1])
        return loss


def _logits(source: NetworkSource) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = source.module(IMAGE)
    return logits


WANTED = _Net().eval()(IMAGE).detach()


@pytest.mark.parametrize("name", ["model", "net", "network"])
def test_a_lightning_module_with_a_forward_is_the_network(name: str) -> None:
    mine = _Forwarding(name).train()
    source = resolve_network(mine)
    assert (source.origin, source.notes) == ("_Forwarding", ())
    assert torch.equal(_logits(source), WANTED)
    assert source.module is not mine
    assert source.module._trainer is mine._trainer  # type: ignore[comparison-overlap,unused-ignore]
    assert mine.training
    assert inspect_network(source, SIZE).channels == 4


def test_a_lightning_module_that_only_trains_holds_it() -> None:
    source = resolve_network(_Training())
    assert source.notes == ("_Training has no forward of its own; its part 'net' (_Net) was taken as the network",)
    assert (source.origin, type(source.module)) == ("_Net", _Net)
    assert torch.equal(_logits(source), WANTED)


class _Several(_Training):
    def __init__(self) -> None:
        super().__init__()
        self.teacher = _Net(1)


def _compiled(module: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(module, backend="eager"))


class _Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.system = nn.ModuleDict({"student": _compiled(_Net())})


class _OwnParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = _Net(), nn.Parameter(torch.ones(()))


class _Abstract(_Net):
    def forward(self, image: Tensor) -> Tensor:
        raise NotImplementedError("a network of this kind says it")


class _Concrete(_Abstract):
    def forward(self, image: Tensor) -> Tensor:
        return _Net.forward(self, image)


class _Inheriting(_Net):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image)


def test_several_parts_are_named() -> None:
    with pytest.raises(UsageError, match=r"2 parts of it have parameters: net \(_Net\), teacher \(_Net\); give"):
        resolve_network(_Several())
    with pytest.raises(UsageError, match="has no forward, and parameters of its own"):
        resolve_network(_OwnParameters())


def test_a_network_further_inside() -> None:
    inside = network_inside(_Deep())
    assert (inside.path, type(inside.module)) == ("system.student.", _Net)


@pytest.mark.parametrize(
    ("module", "has"),
    [
        (_Net(), True),
        (nn.Identity(), True),
        (_Concrete(), True),
        (_Inheriting(), True),
        (_Forwarding(), True),
        (_Abstract(), False),
        (_Training(), False),
        (nn.ModuleList(), False),
        (torch.fx.symbolic_trace(nn.ReLU()), True),
    ],
)
def test_what_has_a_forward(module: nn.Module, has: bool) -> None:
    assert has_forward(module) is has


def test_a_forward_that_is_an_attribute() -> None:
    module = nn.Module()
    module.net = _Net()
    module.forward = module.net.forward
    assert torch.equal(_logits(resolve_network(module)), WANTED)


OTHER = _Net(7)


@pytest.mark.parametrize("prefix", ["", "net.", "model.net.", "module.net."])
@pytest.mark.parametrize("beside", [{}, {"criterion.weight": torch.ones(4)}])
def test_a_checkpoint_of_a_module_that_only_trains(tmp_path: Path, prefix: str, beside: dict[str, Tensor]) -> None:
    state = {f"{prefix}{key}": value for key, value in OTHER.state_dict().items()}
    torch.save({"state_dict": {**state, **beside}, "epoch": 3}, tmp_path / "last.ckpt")
    source = resolve_network(_Training(), weights=tmp_path / "last.ckpt")
    assert torch.equal(_logits(source), OTHER.eval()(IMAGE))


def test_what_lies_beside_the_network_in_its_checkpoint_is_told(tmp_path: Path) -> None:
    whole = {f"net.{key}": value for key, value in OTHER.state_dict().items()}
    torch.save({**whole, "teacher.w": torch.ones(2), "perceptual_loss.w": torch.ones(1)}, tmp_path / "last.ckpt")
    source = resolve_network(_Training(), weights=tmp_path / "last.ckpt")
    assert source.notes[-1] == "last.ckpt: tensors beside 'net.' were left out: perceptual_loss, teacher"
    assert torch.equal(_logits(source), OTHER.eval()(IMAGE))


def test_an_average_beside_the_network_in_its_checkpoint_is_asked_about(tmp_path: Path) -> None:
    raw = {f"net.{key}": value for key, value in _Net(3).state_dict().items()}
    averaged = {f"net_ema.{key}": value for key, value in OTHER.state_dict().items()}
    torch.save({"state_dict": {**raw, **averaged}}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="'net', 'net_ema' fit alone: choose one with --weights-key"):
        resolve_network(_Training(), weights=tmp_path / "last.ckpt")
    source = resolve_network(_Training(), weights=tmp_path / "last.ckpt", weights_key="net_ema")
    assert torch.equal(_logits(source), OTHER.eval()(IMAGE))


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
@pytest.mark.parametrize("beside", [{}, {"loss.weight": torch.ones(4)}])
def test_a_checkpoint_of_a_module_with_a_forward(tmp_path: Path, prefix: str, beside: dict[str, Tensor]) -> None:
    state = {f"{prefix}{key}": value for key, value in OTHER.state_dict().items()}
    torch.save({"state_dict": {**state, **beside}}, tmp_path / "last.ckpt")
    source = resolve_network(_Forwarding(), weights=tmp_path / "last.ckpt")
    assert torch.equal(_logits(source), OTHER.eval()(IMAGE))
    loaded = beside and prefix == "model."  # as stored
    assert ("_Forwarding: what is of training alone stays as built: loss.weight" in source.notes) is not bool(loaded)


def test_a_checkpoint_of_another_network_is_refused_still(tmp_path: Path) -> None:
    torch.save({"net.other": torch.ones(2), "criterion.weight": torch.ones(4)}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="does not fit _Net"):
        resolve_network(_Training(), weights=tmp_path / "last.ckpt")


class _Fabric(nn.Module):
    """As lightning.fabric's wrapper, whose class says what it is."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._forward_module = module

    @property
    def module(self) -> nn.Module:
        return self._forward_module


_Fabric.__name__ = "_FabricModule"


@pytest.mark.parametrize("wrap", [AveragedModel, _Fabric, lambda net: nn.DataParallel(AveragedModel(net))])
def test_wrappers_that_hand_calls_on_are_left(wrap: Callable[[nn.Module], nn.Module]) -> None:
    source = resolve_network(wrap(_Net()))
    assert (source.origin, source.notes, type(source.module)) == ("_Net", (), _Net)
    assert torch.equal(_logits(source), WANTED)


def _doubled(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


def _times_three(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return 3 * output


def test_a_wrapper_with_a_hook_is_kept() -> None:
    wrapped = nn.DataParallel(_Net())
    wrapped.register_forward_hook(_doubled)
    assert torch.equal(_logits(resolve_network(wrapped)), 2 * WANTED)


def test_wrappers_inside_are_left_too() -> None:
    mine = nn.Sequential(_compiled(_Net()), nn.DataParallel(nn.Identity()))
    source = resolve_network(mine)
    assert [type(part) for part in source.module.children()] == [_Net, nn.Identity]
    assert torch.equal(_logits(source), WANTED)
    assert hasattr(mine[0], "_orig_mod")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_made_float32_and_told(dtype: torch.dtype, tmp_path: Path) -> None:
    mine = _Net().to(dtype)
    source = resolve_network(mine)
    name = str(dtype).removeprefix("torch.")
    assert source.notes == (
        f"_Net: its {name} parameters and buffers were made float32, which the export is compared in",
    )
    assert {value.dtype for value in source.module.parameters()} == {torch.float32}
    assert mine.conv.weight.dtype is dtype
    torch.save(OTHER.state_dict(), tmp_path / "w.pth")
    loaded = resolve_network(mine, weights=tmp_path / "w.pth")
    assert loaded.notes == ()
    assert torch.equal(_logits(loaded), OTHER.eval()(IMAGE))


def _lazy() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.LazyConv2d(4, 1), nn.LazyBatchNorm2d())


def test_lazy_parameters() -> None:
    with pytest.raises(UsageError, match=r"lazy parameters that were never given a shape \('0.weight', '0.bias', '1"):
        resolve_network(_lazy())
    ready = _lazy()
    ready(IMAGE)
    assert resolve_network(ready).module(IMAGE).shape == (1, 4, 8, 8)


def test_the_meta_device() -> None:
    with pytest.raises(UsageError, match=r"_Net is on the meta device, where 'conv.weight', .* build it on the CPU"):
        resolve_network(_Net().to("meta"))


def _sharded() -> nn.Module:
    kind = type("FullyShardedDataParallel", (nn.Sequential,), {})
    module: nn.Module = nn.Sequential(kind(_Net()))
    return module


def _quantised() -> Iterator[tuple[str, nn.Module]]:
    import torch.ao.quantization

    quantization: Any = torch.ao.quantization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
        plain.qconfig = quantization.get_default_qconfig("x86")
        watched: nn.Module = quantization.prepare(plain)
        watched(IMAGE)
        yield "prepared for PyTorch's quantisation", watched
        yield "was quantised by PyTorch", quantization.convert(watched)
        trained = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).train()
        trained.qconfig = quantization.get_default_qat_qconfig("x86")
        yield "prepared for PyTorch's quantisation", quantization.prepare_qat(trained)
        yield "was quantised by PyTorch", quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 3)))


def test_modules_in_pieces_or_of_integers() -> None:
    with pytest.raises(UsageError, match=r"is sharded over processes \('0'\).* gather its full state dict"):
        resolve_network(_sharded())
    for told, module in _quantised():
        with pytest.raises(UsageError, match=rf"{told} .*export the float network .*--precision int8"):
            resolve_network(module)


class _Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = _Net()


class _TextAndPicture(_Inner):
    def forward(self, input_ids: Tensor | None = None, pixel_values: Tensor | None = None) -> Any:
        assert input_ids is None
        return self.net(pixel_values)


class _NamedOnly(_Inner):
    def forward(self, *, images: Tensor, return_dict: bool = True) -> Any:
        return self.net(images)


class _PictureFirst(_Inner):
    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
        return self.net(pixel_values)


@pytest.mark.parametrize(
    ("module", "argument"), [(_TextAndPicture(), "pixel_values"), (_NamedOnly(), "images"), (_PictureFirst(), None)]
)
def test_the_picture_is_given_by_name_where_it_is_not_first(module: nn.Module, argument: str | None) -> None:
    source = resolve_network(module)
    told = f"{type(module).__name__} takes the picture as its argument '{argument}'"
    assert source.notes == ((told,) if argument else ())
    assert torch.equal(_logits(source), WANTED)
    assert not source.module.training


def _tied() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    net[1].weight = net[0].weight
    return net


def _hooked() -> nn.Module:
    net = _Net()
    net.conv.register_forward_hook(_times_three)
    net.register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1,))
    return net


def _learnt_buffer() -> nn.Module:
    net = _Net()
    net.register_buffer("scale", torch.ones(1).requires_grad_())
    return net


def _parametrised(function: Callable[[nn.Module], nn.Module]) -> nn.Module:
    net = _Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.conv = function(net.conv)  # type: ignore[assignment]
    return net


@pytest.mark.parametrize(
    "build",
    [
        _tied,
        _hooked,
        _learnt_buffer,
        lambda: torch.fx.symbolic_trace(_Net()),
        lambda: _parametrised(nn.utils.parametrizations.weight_norm),
        lambda: _parametrised(nn.utils.parametrizations.spectral_norm),
        lambda: _parametrised(nn.utils.spectral_norm),
    ],
)
def test_modules_that_are_more_than_their_parts(build: Callable[[], nn.Module]) -> None:
    """Their graphs are compared with them in `tests.export.test_own_networks`."""
    module = build().eval()
    source = resolve_network(module)
    assert torch.equal(_logits(source), module(IMAGE))
    assert [name for name, _ in source.module.named_parameters()] == [name for name, _ in module.named_parameters()]
