"""What the numbers on the parity pictures say of a network and its normalisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import ExportError
from edgeseg.export.config import ExportConfig
from edgeseg.export.job import ExportJob, prepare_job
from edgeseg.export.ranges import check_threshold, normalisation_note, range_notes
from edgeseg.models import custom_spec
from edgeseg.models.source import resolve_network
from edgeseg.specs import InputSpec, PostprocessSpec

RAW = InputSpec()


class _Binary(nn.Module):
    """One channel, 0 where red is 127.5, through an activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.activation(0.1 * image[:, :1] - 12.75)
        return result


class _Bands(nn.Module):
    """Three classes by red, which is expected in standard deviations of ImageNet."""

    def forward(self, image: Tensor) -> Tensor:
        centres = torch.tensor([-1.5, 0.0, 1.5]).view(1, 3, 1, 1)
        return -((image[:, :1] - centres) ** 2)


def _job(network: nn.Module | str, spec: InputSpec = RAW, *, postprocess: Any = None, **options: Any) -> ExportJob:
    conventions = custom_spec("mine", input=spec, postprocess=postprocess or PostprocessSpec())
    source = resolve_network(network, spec=None if isinstance(network, str) else conventions)
    return prepare_job(source, ExportConfig(size=(32, 48), **options))


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Hardsigmoid(), nn.Sequential(nn.Tanh(), nn.ReLU())])
def test_probabilities_of_one_channel_ask_for_a_threshold(activation: nn.Module) -> None:
    job = _job(_Binary(activation))
    with pytest.raises(ExportError, match=r"on every picture, as probabilities do, .* give --threshold 0\.5"):
        check_threshold(job, job.expected())


@pytest.mark.parametrize(
    ("activation", "options"),
    [
        (nn.Identity(), {}),
        (nn.Tanh(), {}),
        (nn.ReLU(), {}),
        (nn.Sigmoid(), {"threshold": 0.0}),
        (nn.Sigmoid(), {"threshold": 0.5}),
        (nn.Sigmoid(), {"postprocess": PostprocessSpec(threshold=0.5)}),
    ],
)
def test_logits_and_a_given_threshold_pass(activation: nn.Module, options: dict[str, Any]) -> None:
    job = _job(_Binary(activation), **options)
    check_threshold(job, job.expected())


def test_a_probability_above_half_is_foreground() -> None:
    logits, probabilities = _job(_Binary(nn.Identity())), _job(_Binary(nn.Sigmoid()), threshold=0.5)
    pairs = zip(logits.expected().labels, probabilities.expected().labels, strict=True)
    assert all((a == b).all() and set(a.flat) == {0, 1} for a, b in pairs)


UNIT = [
    InputSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    InputSpec(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    InputSpec(mean=(-0.5, 0.0, 0.5), std=(0.25, 0.25, 0.25), channel_order="bgr"),
]


@pytest.mark.parametrize("spec", UNIT)
def test_numbers_of_the_unit_scale_are_said_whatever_the_labels(spec: InputSpec) -> None:
    job = _job(_Bands(), spec)
    (note,) = range_notes(job, job.expected())
    right = " ".join(f"{255 * x:g}" for x in spec.mean)
    assert f"likely right are --mean {right} --std" in note


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec.imagenet(),
        InputSpec.imagenet("bgr"),
        RAW,
        InputSpec(mean=(104.0, 117.0, 123.0)),
        InputSpec(scale=1 / 255),
        InputSpec(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)),
        InputSpec(mean=(0.485, 0.456, 0.406), std=(1.0, 1.0, 1.0), scale=1 / 255),
    ],
)
def test_usual_normalisations_pass(spec: InputSpec) -> None:
    assert normalisation_note(spec) == ""


def test_pixels_divided_twice_are_nearly_constant() -> None:
    spec = InputSpec(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), scale=1 / 255)
    job = _job(_Bands(), spec)
    (note,) = range_notes(job, job.expected())
    assert note.startswith("fp32 PyTorch gives one label everywhere, 1 (")
    assert "span only 0.018 standard deviations" in note


class _Constant(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image.mean(1, keepdim=True) * 0, image.mean(1, keepdim=True) * 0 + 1], 1)


def test_one_label_everywhere_is_said() -> None:
    job = _job(_Constant(), InputSpec.imagenet())
    (note,) = range_notes(job, job.expected())
    assert note.startswith("fp32 PyTorch gives one label everywhere, 1 (")
    assert note.endswith(
        "on all 3 parity pictures: check the weights, and mean, std, scale and channel order of the input"
    )
    job = _job(_Bands(), InputSpec.imagenet())
    assert range_notes(job, job.expected()) == ()


def test_a_published_normalisation_is_not_doubted() -> None:
    job = _job("espnet_c_p2_q3")
    assert all("standard deviations" not in note for note in range_notes(job, job.expected()))
