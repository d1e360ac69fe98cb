"""What a network does before it is exported: whether it is a function of its picture, in finite numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError, ExportError
from edgeseg.export.deploy import DeployNetwork
from edgeseg.export.output_range import OutputRange
from edgeseg.export.returned import Choice, check_logits, choose_logits
from edgeseg.export.to_onnx import first_reason, quiet
from edgeseg.export.trial import Trial
from edgeseg.export.user_code import Line, ReadingLines, listed
from edgeseg.models.modules import has_forward
from edgeseg.models.outputs import logits_at
from edgeseg.models.source import NetworkSource
from edgeseg.specs import InputSpec, Size

__all__ = ["Inspection", "inspect_network"]

_SAME = 1e-5
"""Largest difference between two forwards on the same picture, relative to the range of the logits."""

_ALONE = 1e-2
"""Largest difference between a picture alone and in a batch, relative to the range of the logits: kernels of another
batch round otherwise, and a deep network amplifies that."""

_NAMES = 5
"""Parameters and modules that a sentence names at most."""


@dataclass(frozen=True)
class Inspection:
    """What was seen of a network.

    Attributes:
        choice: Which of the tensors that it returns are the logits.
        channels: Of the logits.
        logit_size: Height x width of the logits.
        range: Of the logits on the two pictures.
        readings: Lines of the user's code that took values out of tensors, as branches do.
    """

    choice: Choice
    channels: int
    logit_size: Size
    range: OutputRange
    readings: tuple[Line, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences the user must see."""
        notes = (self.choice.note,) if self.choice.note else ()
        if not self.readings:
            return notes
        return (
            *notes,
            f"its forward takes values out of tensors into Python, at {listed(self.readings)}; a graph takes no "
            "branches, so what such a value decides must be the same for every picture",
        )


def inspect_network(source: NetworkSource, size: Size, take: str | None = None, *, cut: bool = False) -> Inspection:
    """Run the untouched module on two pictures, one after the other, again, and as one batch.

    A registered network runs once: what it returns is known.

    Args:
        source: The network.
        size: Height x width of its input.
        take: Path of the logits in what it returns, where the user gave one.
        cut: Whether the user gave the threshold of one channel, which may then hold whole numbers.

    Raises:
        ExportError: The module fails, what it returns is not logits of the picture, they are not finite, or they
            depend on more than the picture.
        UsageError: Which of several maps are the logits is not known, or `take` names none.
    """
    cut = cut or source.spec.postprocess.threshold != 0.0
    with quiet(), ReadingLines() as reading:
        choice, logits = _looked_at(source, size, take, reading.lines, cut=cut)
    height, width = logits.shape[2:]
    seen = OutputRange.of(logits.float().numpy())
    return Inspection(choice, int(logits.shape[1]), (height, width), seen, tuple(reading.lines))


def _looked_at(
    source: NetworkSource, size: Size, take: str | None, readings: Sequence[Line], *, cut: bool
) -> tuple[Choice, Tensor]:
    """Where the logits are, and those of the pictures; `readings` grows as the network runs."""
    if not has_forward(source.module):
        raise ExportError(f"{source.origin} has no forward; give the module whose forward takes images (N, 3, H, W)")
    pictures = _pictures(size, source.spec.input)
    first, second = pictures[:1], pictures[1:]
    before = _buffers(source.module)
    output = _forward(source, first.clone(), size)  # which it may work on in place
    choice = choose_logits(output, size, take)
    logits = logits_at(output, choice.take)
    _check_finite(source.module, logits)
    if source.registered:
        return choice, logits
    choice = choice.noting(check_logits(logits, size, asked=take is not None, cut=cut))
    run = _runner(source.module, choice.take)
    _check_repeatable(source.module, logits, run(first), before)
    other = run(second)
    _check_finite(source.module, other)
    _check_alone(source.module, torch.cat((logits, other)), run, pictures, readings)
    return choice, torch.cat((logits, other))


def _pictures(size: Size, spec: InputSpec) -> Tensor:
    """Noise, and a ramp with noise, as the network's input (2, C, H, W); their pixels are not whole numbers."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((2, *size, spec.image_channels), generator=generator) * 255
    noise[1] = 0.25 * noise[1] + 0.75 * torch.linspace(0, 255, size[1])[:, None]
    return DeployNetwork(nn.Identity(), spec).normalise(noise)


def _forward(source: NetworkSource, image: Tensor, size: Size) -> object:
    demands = Trial(source.module).demands()
    if demands:
        raise ExportError(
            f"the forward of {source.origin} {demands}; give other arguments defaults, or wrap the network in a module "
            "whose forward takes a picture alone"
        )
    try:
        with torch.inference_mode(), quiet():
            return source.module(image)
    except EdgesegError:
        raise
    except Exception as error:
        raise ExportError(_why_it_fails(source, size, first_reason(error))) from error


def _why_it_fails(source: NetworkSource, size: Size, reason: str) -> str:
    """Say what the network takes instead, where a trial shows it, and else why it fails, and nothing that is not so."""
    trial, channels = Trial(source.module), source.spec.input.channels
    counts = [3] * trial.runs(size) + trial.counts(size) if channels != 3 or source.input_chosen else []
    if counts:
        several = " or ".join(map(str, counts))
        return (
            f"{source.origin} takes {several} channel{'s' * (several != '1')}, and {channels} were said (--channels, "
            f"or the numbers of mean and std); say {several}, with as many numbers, or one, as mean and std"
        )
    form = trial.form(size, channels)
    if form:
        return (
            f"{source.origin} takes {form}, and is given float32 (N, {channels}, height, width); wrap it in a module "
            "whose forward takes that and hands it on in its form"
        )
    fails = f"{source.origin} fails on an image of {size[0]}x{size[1]}: {reason.rstrip('.')}"
    sizes = trial.sizes(size, channels)
    if sizes:
        return f"{fails}; it runs at {' or '.join(f'{height}x{width}' for height, width in sizes)}, choose a --size"
    found = trial.elsewhere(size)
    if found:
        (height, width), count = found
        return (
            f"{fails}; it runs at {height}x{width} with {count} channel{'s' * (count != 1)}, say --size and --channels"
        )
    return f"{fails}; no other size that was tried runs either, so see to its forward"


def _runner(module: nn.Module, take: str) -> Callable[[Tensor], Tensor]:
    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            return logits_at(module(image.clone()), take)

    return run


def _check_finite(module: nn.Module, logits: Tensor) -> None:
    if bool(torch.isfinite(logits).all()):
        return
    values = [*module.named_parameters(), *module.named_buffers()]
    broken = [name for name, value in values if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    why = (
        f"NaN or infinity is in {_listed(broken)}; give a sound checkpoint"
        if broken
        else "its parameters are finite; check mean and std of the input, and divisions and logarithms in its forward"
    )
    raise ExportError(f"fp32 PyTorch gives logits that are not finite numbers: {why}")


def _check_repeatable(module: nn.Module, first: Tensor, again: Tensor, before: dict[str, Tensor]) -> None:
    if _differ(first, again) <= _SAME:
        return
    changed = [name for name, value in _buffers(module).items() if not torch.equal(value, before.get(name, value))]
    causes = _causes(module)
    if changed:
        causes.insert(0, f"a forward changes its buffer {_listed(changed)}")
    why = "; ".join(causes) or "it draws random numbers or keeps state between forwards"
    raise ExportError(
        f"the network gives other logits for the same picture at a second forward: {why}; make its forward a function "
        "of the picture alone (eval mode, no random numbers, no state)"
    )


def _check_alone(
    module: nn.Module, alone: Tensor, run: Callable[[Tensor], Tensor], pictures: Tensor, readings: Sequence[Line]
) -> None:
    """Compare two pictures alone with the batch of both; a module that takes no batch of two has nothing to mix."""
    try:
        batch = run(pictures)
    except EdgesegError:
        raise
    except Exception:
        return
    if batch.shape == alone.shape and _differ(alone, batch) <= _ALONE:
        return
    decides = [f"it decides by the values of a tensor at {listed(readings)}"] if readings else []
    why = "; ".join(_causes(module) or decides) or (
        "its forward mixes the pictures (a mean, softmax or reshape over dimension 0)"
    )
    raise ExportError(
        f"the logits of a picture depend on the other pictures of its batch: {why}; make its forward treat each "
        "picture alone (eval mode, running statistics)"
    )


def _causes(module: nn.Module) -> list[str]:
    """Name the modules that are random or use batch statistics as they stand."""
    parts = [(path or type(part).__name__, part) for path, part in module.named_modules()]
    training = [path for path, part in parts if part.training and isinstance(part, _TRAINED)]
    norms = [path for path, part in parts if isinstance(part, _NORMS) and part.running_mean is None]
    causes = []
    if training:
        causes.append(f"{_listed(training)} is in training mode")
    if norms:
        causes.append(f"{_listed(norms)} has no running statistics")
    return causes


_NORMS = (nn.modules.batchnorm._BatchNorm,)
_TRAINED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU)


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_buffers()}


def _differ(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the range of the first; infinite for other shapes or numbers that are none."""
    if one.shape != other.shape:
        return float("inf")
    difference = float((one - other).abs().max() / (one.max() - one.min()).clamp_min(1e-6 * one.abs().max() + 1e-30))
    return difference if difference == difference else float("inf")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMES]) + more
