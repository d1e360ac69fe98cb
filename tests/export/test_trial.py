"""What a failing module really takes: channels, arguments, forms and sizes; what is not so is not said."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import ExportError
from edgeseg.export.channels import settle_channels
from edgeseg.export.inspect import Inspection, inspect_network
from edgeseg.export.trial import Trial
from edgeseg.models.source import resolve_network
from edgeseg.specs import InputSpec
from tests.export.channel_networks import Classes

SIZE = (40, 56)


def _inspected(module: nn.Module, size: tuple[int, int] = SIZE, **conventions: Any) -> Inspection:
    source = resolve_network(module)
    source = source.but(**conventions) if conventions else source
    return inspect_network(settle_channels(source, size), size)


class _Wants(nn.Module):
    """A network of three channels behind a change of its argument."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.network, self.change = Classes(3), change

    def forward(self, image: Any) -> Any:
        return self.network(self.change(image))


class _Mask(nn.Module):
    def forward(self, image: Tensor, mask: Tensor, *, scale: float, bias: float = 0.0) -> Tensor:
        return image * mask * scale + bias


class _Defaults(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = Classes(3)

    def forward(self, image: Tensor, mask: Tensor | None = None, *rest: Any, targets: Any = None, **more: Any) -> Any:
        return self.network(image)


class _Nothing(nn.Module):
    def forward(self) -> Tensor:
        return torch.zeros(1, 2, 8, 8)


class _ByName(nn.Module):
    def forward(self, *, image: Tensor) -> Tensor:
        return image


def test_other_arguments_are_named() -> None:
    with pytest.raises(ExportError, match="the forward of _Mask requires 'mask', 'scale' besides the picture; give"):
        _inspected(_Mask())
    with pytest.raises(ExportError, match="takes no picture as its first argument"):
        _inspected(_Nothing())
    assert (_inspected(_Defaults()).channels, _inspected(_ByName()).channels) == (4, 3)


def test_arguments_of_a_script_module_are_named() -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor, mask: Tensor, bias: float = 0.0) -> Tensor:
            return image * mask + bias

    assert Trial(torch.jit.script(Two())).demands() == "requires 'mask' besides the picture"
    traced: Any = torch.jit.trace(Classes(5), torch.zeros(1, 5, 8, 8))  # type: ignore[no-untyped-call,unused-ignore]
    assert Trial(traced).demands() == ""
    assert Trial(traced).counts((8, 8)) == [5]


def _as_picture(images: Any) -> Tensor:
    if not isinstance(images, list):
        raise TypeError("expected a list of pictures")
    return torch.stack(images)


def _alone(image: Tensor) -> Tensor:
    _, _, _ = image.shape
    return image[None]


def _integer(image: Tensor) -> Tensor:
    return torch.bitwise_and(image, 255).float()


def _double(image: Tensor) -> Tensor:
    return torch.dot(image.flatten(), torch.ones(image.numel(), dtype=torch.float64)).float() + image.float()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: x.permute(0, 3, 1, 2), r"takes channels last, \(N, height, width, channels\)"),
        (_alone, r"takes a picture without a batch, \(channels, height, width\)"),
        (_as_picture, r"takes a list of pictures \(channels, height, width\)"),
        (lambda x: x["image"], "takes a dict with the picture under 'image'"),
        (lambda x: x["pixel_values"] + x.get("bias"), "takes a dict with the picture under 'pixel_values', 'bias'"),
        (_integer, "takes uint8"),
        (_double, "takes float64"),
        (lambda x: F.embedding(x, torch.eye(256))[..., 0], "takes int64"),
    ],
)
def test_other_forms_of_a_picture_are_named(change: Any, told: str) -> None:
    with pytest.raises(ExportError, match=rf"^_Wants {told}, and is given float32 \(N, 3, height, width\); wrap it"):
        _inspected(_Wants(change))


class _Divides(nn.Module):
    """A network that adds a map to its own, which fits at sizes that `by` divides only."""

    def __init__(self, by: int, channels: int = 3) -> None:
        super().__init__()
        self.network, self.by = Classes(channels), by

    def forward(self, image: Tensor) -> Any:
        low = F.interpolate(F.avg_pool2d(image, self.by)[:, :1], scale_factor=self.by)
        return self.network(image + low)


class _Fixed(nn.Module):
    """A position for every pixel of one size."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.place = Classes(3), nn.Parameter(torch.zeros(1, 1, *size))

    def forward(self, image: Tensor) -> Any:
        return self.network(image + self.place)


def test_a_size_is_advised_where_it_really_runs() -> None:
    with pytest.raises(
        ExportError, match=r"fails on an image of 40x56: .*; it runs at 32x32 or 64x64 or .*, choose a --s"
    ):
        _inspected(_Divides(32))
    with pytest.raises(ExportError, match=r"; it runs at 224x224, choose a --size"):
        _inspected(_Fixed((224, 224)))
    assert _inspected(_Divides(8)).channels == 4


def test_no_size_is_advised_where_none_runs() -> None:
    for module in (_Fixed((100, 100)), _Wants(lambda x: x.no_such_method())):
        with pytest.raises(
            ExportError, match="no other size that was tried runs either, so see to its forward"
        ) as said:
            _inspected(module)
        assert "--size" not in str(said.value)
    with pytest.raises(ExportError, match="no_such_method"):
        _inspected(_Wants(lambda x: x.no_such_method()))


@pytest.mark.parametrize(("channels", "told"), [(1, "with 1 channel, say"), (4, "with 4 channels, say")])
def test_other_channels_at_a_size_that_fails_are_both_told(channels: int, told: str) -> None:
    with pytest.raises(ExportError, match=rf"fails on an image of 40x56: .*; it runs at 32x32 {told} --size and --cha"):
        _inspected(_Divides(32, channels))


@pytest.mark.parametrize(("takes", "said"), [(1, 3), (4, 3), (3, 4), (13, 4)])
def test_numbers_for_another_count_are_told(takes: int, said: int) -> None:
    numbers = InputSpec(mean=tuple(range(said)), std=(9.0,) * said)
    with pytest.raises(
        ExportError, match=rf"^Classes takes {takes} channels?, and {said} were said .*; say {takes}, with"
    ):
        _inspected(Classes(takes), input=numbers)


class _Counts(nn.Module):
    """Counts its forwards, as a module with state does."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.seen = Classes(4), nn.Buffer(torch.zeros(1))

    def forward(self, image: Tensor) -> Any:
        self.seen.add_(1)
        return self.network(image)


def test_trials_leave_the_module_as_it_is() -> None:
    module = _Counts()
    before = torch.random.get_rng_state()
    assert Trial(module).counts(SIZE) == [4]
    assert Trial(module).sizes(SIZE, 4) != []
    assert float(module.seen) == 0.0
    assert torch.equal(before, torch.random.get_rng_state())


def test_warnings_of_a_forward_are_not_shown() -> None:
    def warn(image: Any) -> Any:
        warnings.warn("deprecated", UserWarning, stacklevel=1)
        return image["image"]

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(ExportError, match="a dict with the picture"):
            _inspected(_Wants(warn))
    assert seen == []
