"""The look at a network before its export: what comes back, and whether it is a function of its picture."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import EdgesegError, ExportError, UsageError
from edgeseg.export.config import ExportConfig
from edgeseg.export.inspect import Inspection, inspect_network
from edgeseg.export.job import prepare_job
from edgeseg.models.source import resolve_network
from edgeseg.specs import PostprocessSpec

SIZE = (32, 48)


class _Net(nn.Module):
    """A main map of 4 classes and an auxiliary one, returned as `form` says."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.main, self.aux, self.form = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1), form

    def forward(self, image: Tensor) -> Any:
        return self.form(self.main(image), self.aux(image))


class _Named(NamedTuple):
    logits: Tensor
    aux_logits: Tensor


def _inspected(form: Callable[[Tensor, Tensor], Any], take: str | None = None) -> Inspection:
    return inspect_network(resolve_network(_Net(form)), SIZE, take)


@pytest.mark.parametrize(
    ("form", "take"),
    [
        (lambda main, aux: main, ""),
        (lambda main, aux: [main], "0"),
        (lambda main, aux: (main.mean(), main), "1"),
        (lambda main, aux: {"aux": aux, "out": main}, "out"),
        (lambda main, aux: {"loss": main.mean(), "logits": main}, "logits"),
        (lambda main, aux: {"hidden": [aux, aux], "seg": main}, "seg"),
        (lambda main, aux: _Named(main, aux), "logits"),
        (lambda main, aux: SimpleNamespace(features=aux, pred=main), "pred"),
        (lambda main, aux: [{"aux": aux, "out": [main]}], "0.out.0"),
        (lambda main, aux: {"labels": main.argmax(1), "heat": main}, "heat"),
        (lambda main, aux: F.avg_pool2d(main, 8), ""),
        (lambda main, aux: main[..., ::5, ::5], ""),
        (lambda main, aux: F.interpolate(main, scale_factor=2), ""),
    ],
)
def test_the_logits_are_found(form: Callable[[Tensor, Tensor], Any], take: str) -> None:
    seen = _inspected(form)
    assert (seen.choice.take, seen.channels) == (take, 4)


def test_what_was_taken_of_several_maps_is_said() -> None:
    seen = _inspected(lambda main, aux: {"aux": aux, "out": main})
    assert seen.notes == (
        "the network returned several maps (aux (1, 5, 32, 48), out (1, 4, 32, 48)); 'out' was taken",
    )
    assert _inspected(lambda main, aux: {"loss": main.mean(), "out": main}).notes == ()


SEVERAL = [
    (lambda main, aux: [aux, main], "1"),
    (lambda main, aux: (main[:, :1], main), "1"),
    (lambda main, aux: {"first": aux, "second": main}, "second"),
    (lambda main, aux: {"out": main, "logits": aux}, "out"),
    (lambda main, aux: {"out": [aux, main]}, "out.1"),
    (lambda main, aux: {"aux": {"out": aux}, "main": main}, "main"),
    (lambda main, aux: [aux, main.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)], "1"),
]


@pytest.mark.parametrize(("form", "take"), SEVERAL)
def test_several_maps_are_asked_about(form: Callable[[Tensor, Tensor], Any], take: str) -> None:
    with pytest.raises(
        UsageError, match=r"2 of them may be the logits, so say which are the logits with --take"
    ) as said:
        _inspected(form)
    assert take in str(said.value)
    seen = _inspected(form, take)
    assert (seen.choice.take, seen.channels, seen.notes) == (take, 4, ())


def test_a_path_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"--take '7' is none .* 0 \(1, 5, 32, 48\), 1 \(1, 4, 32, 48\)"):
        _inspected(lambda main, aux: [aux, main], "7")


def test_the_choice_holds_in_the_whole_job() -> None:
    job = prepare_job(resolve_network(_Net(lambda main, aux: [aux, main])), ExportConfig(size=SIZE, take="1"))
    image = torch.from_numpy(job.noise)
    wanted = job.source.module.main(job.reference.normalise(image))  # type: ignore[operator,unused-ignore]
    assert (job.take, job.channels) == ("1", 4)
    torch.testing.assert_close(job.reference(image), wanted)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (lambda main, aux: main.permute(0, 2, 3, 1), "classes stand last"),
        (lambda main, aux: F.avg_pool2d(main, 4).permute(0, 2, 3, 1), "classes stand last"),
        (lambda main, aux: [main.permute(0, 2, 3, 1)], "classes stand last"),
        (lambda main, aux: main.transpose(2, 3), "height and width are swapped"),
        (lambda main, aux: F.avg_pool2d(main, 4).transpose(2, 3), "height and width are swapped"),
        (lambda main, aux: main[..., 2:-2, 2:-2], r"\(1, 4, 28, 44\) for a picture of 32x48, whose height and width"),
        (lambda main, aux: F.pad(main, (0, 16, 0, 0)), "not the picture's divided by a stride"),
        (lambda main, aux: F.avg_pool2d(main, (4, 8)), "not the picture's divided by a stride"),
        (lambda main, aux: main.argmax(1, keepdim=True), r"torch\.int64; .* before any argmax"),
        (lambda main, aux: main.argmax(1), "before any argmax"),
        (lambda main, aux: main[:, :1] > 0, r"torch\.bool; .* before any argmax"),
        (lambda main, aux: main.argmax(1, keepdim=True).float(), "whole numbers only, which are labels"),
        (lambda main, aux: (main[:, :1] > 0).float(), "whole numbers only, which are labels"),
        (lambda main, aux: torch.round(10 * main[:, :1]), "whole numbers only, which are labels"),
        (lambda main, aux: main[:, 0], "a single channel that was squeezed"),
        (lambda main, aux: torch.cat([main, main]), "for one picture"),
        (lambda main, aux: main[:, 4:], r"\(1, 0, 32, 48\) for one picture"),
        (lambda main, aux: "text", "returned str without a tensor"),
        (lambda main, aux: {}, "returned dict without a tensor"),
        (lambda main, aux: main * float("nan"), "its parameters are finite; check mean and std"),
    ],
)
def test_what_cannot_be_logits(form: Callable[[Tensor, Tensor], Any], told: str) -> None:
    with pytest.raises(ExportError, match=told):
        _inspected(form)


class _Head(nn.Module):
    """A convolution, then another part."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.conv, self.part = nn.Conv2d(3, 4, 1), part

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.part(self.conv(image))
        return logits


class _StaysInTraining(_Head):
    def train(self, mode: bool = True) -> _StaysInTraining:
        super().train(True)
        return self


class _Part(nn.Module):
    """A function as a module, with a buffer that counts forwards."""

    steps: Tensor

    def __init__(self, function: Callable[[Tensor], Tensor], *, drift: float = 0.0) -> None:
        super().__init__()
        self.function, self.drift = function, drift
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, logits: Tensor) -> Tensor:
        self.steps += 1
        return self.function(logits) + self.drift * self.steps


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (_StaysInTraining(nn.Dropout(0.5)), "second forward: 'part' is in training mode"),
        (_StaysInTraining(nn.Sequential(nn.ReLU(), nn.Dropout2d(0.5))), "'part.1' is in training mode"),
        (_Head(_Part(lambda x: F.dropout(x, 0.5))), "second forward: .*random numbers"),
        (_Head(_Part(lambda x: x + torch.rand_like(x))), "second forward"),
        (_Head(_Part(lambda x: x, drift=1.0)), "second forward: a forward changes its buffer 'part.steps'"),
    ],
)
def test_a_second_forward_gives_something_else(network: nn.Module, told: str) -> None:
    with pytest.raises(ExportError, match=told):
        inspect_network(resolve_network(network), SIZE)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (_StaysInTraining(nn.BatchNorm2d(4)), "other pictures of its batch: 'part' is in training mode"),
        (_Head(nn.BatchNorm2d(4, track_running_stats=False)), "'part' has no running statistics"),
        (_Head(_Part(lambda x: x - x.mean(0))), "mixes the pictures"),
        (_Head(_Part(lambda x: x.softmax(0))), "mixes the pictures"),
        (_Head(_Part(lambda x: x + x.flip(0))), "mixes the pictures"),
    ],
)
def test_a_picture_depends_on_its_batch(network: nn.Module, told: str) -> None:
    with pytest.raises(ExportError, match=told):
        inspect_network(resolve_network(network), SIZE)


@pytest.mark.parametrize(
    "network",
    [
        _Head(nn.BatchNorm2d(4)),
        _Head(nn.Dropout(0.5)),
        _Head(nn.InstanceNorm2d(4)),
        _Head(_Part(lambda x: x)),
        _Head(_Part(lambda x: x.reshape(1, 4, *SIZE))),
    ],
)
def test_a_function_of_its_picture(network: nn.Module) -> None:
    assert inspect_network(resolve_network(network), SIZE).logit_size == SIZE


@pytest.mark.parametrize("name", ["conv.weight", "conv.bias", "part.running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_named(name: str, value: float) -> None:
    network = _Head(nn.BatchNorm2d(4))
    values = dict([*network.named_parameters(), *network.named_buffers()])
    values[name].data.view(-1)[0] = value if name != "part.running_var" else float("nan")
    with pytest.raises(ExportError, match=rf"not finite numbers: NaN or infinity is in '{name}'; give"):
        inspect_network(resolve_network(network), SIZE)


def test_a_picture_that_a_network_works_on_in_place() -> None:
    network = _Head(nn.Identity())
    network.register_forward_pre_hook(lambda _module, inputs: (inputs[0].add_(1.0),))
    assert inspect_network(resolve_network(network), SIZE).logit_size == SIZE


VALID = [
    (lambda main, aux: main[..., 2:-2, 2:-2], "28x44", "2 rows and 2 columns"),
    (lambda main, aux: main[..., 1:], "32x47", "0.5 columns"),
    (lambda main, aux: F.pad(main, (0, 0, 3, 3)), "38x48", "3 rows"),
    (lambda main, aux: F.avg_pool2d(main, 4)[..., :-1, :-1], "7x11", "2 rows and 2 columns"),
]


@pytest.mark.parametrize(("form", "size", "off"), VALID)
def test_a_size_that_is_no_stride_is_stretched_where_the_user_says_so(
    form: Callable[[Tensor, Tensor], Any], size: str, off: str
) -> None:
    with pytest.raises(ExportError, match=r"or take them as they are \(--take PATH, '\.' for a tensor alone\)"):
        _inspected(form)
    for seen in (_inspected(form, "."), _inspected(lambda main, aux: [aux, form(main, aux)], "1")):
        (note,) = seen.notes
        assert note.startswith(f"the logits are {size} for a picture of 32x48, which is no stride of it; they are")
        assert note.endswith(f"labels lie up to {off} beside their pixels")


@pytest.mark.parametrize(
    "form",
    [
        lambda main, aux: main[..., 2:-2, 2:-2].permute(0, 2, 3, 1),
        lambda main, aux: main[..., 2:-2, 2:-2].transpose(2, 3),
        lambda main, aux: torch.cat([main, main]),
    ],
)
def test_what_stands_on_its_side_is_refused_all_the_same(form: Callable[[Tensor, Tensor], Any]) -> None:
    with pytest.raises(ExportError, match="the network returned"):
        _inspected(form, ".")


@pytest.mark.parametrize("module", [nn.Module(), nn.ModuleList(), nn.ModuleDict({"relu": nn.ReLU()})])
def test_a_module_that_does_nothing(module: nn.Module) -> None:
    with pytest.raises(ExportError, match=rf"^{type(module).__name__} has no forward; give the module whose forward"):
        inspect_network(resolve_network(module), SIZE)


class _Fails(nn.Module):
    def forward(self, image: Tensor) -> NoReturn:
        raise EdgesegError("mine")


def test_an_error_of_edgeseg_is_left_as_it_is() -> None:
    with pytest.raises(EdgesegError, match="mine"):
        inspect_network(resolve_network(_Fails()), SIZE)


@pytest.mark.parametrize(
    "options", [{"threshold": 127.5}, {"threshold": 0.5}, {"threshold": 0.0}, {"activation": "sigmoid"}]
)
def test_a_mask_of_whole_numbers_is_taken_with_a_word(options: dict[str, Any]) -> None:
    top = 255.0 if options.get("threshold") == 127.5 else 1.0
    source = resolve_network(_Net(lambda main, aux: top * (main[:, :1] > 0)))
    with pytest.raises(ExportError, match=r"or give --threshold for a mask \(0\.5 for 0 and 1, 127\.5 for 0\.\.255\)"):
        prepare_job(source, ExportConfig(size=SIZE))
    job = prepare_job(source, ExportConfig(size=SIZE, **options))
    assert (job.channels, job.seen is not None and job.seen.high) == (1, top)
    wanted = source.but(postprocess=PostprocessSpec(threshold=top / 2))
    assert prepare_job(wanted, ExportConfig(size=SIZE)).spec.postprocess.threshold == top / 2


def test_a_threshold_is_for_one_channel() -> None:
    with pytest.raises(UsageError, match="one output channel, and this one has 4"):
        prepare_job(resolve_network(nn.Conv2d(3, 4, 1)), ExportConfig(size=SIZE, threshold=0.5))
    job = prepare_job(resolve_network(nn.Conv2d(3, 1, 1)), ExportConfig(size=SIZE, threshold=0.5))
    assert job.spec.postprocess.threshold == 0.5
    with pytest.raises(UsageError, match="finite"):
        ExportConfig(threshold=float("nan"))
