"""What the numbers on the parity pictures say of a network and its normalisation."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import ExportError, UsageError
from edgeseg.export.config import ExportConfig
from edgeseg.export.job import ExportJob, prepare_job
from edgeseg.export.ranges import Settled, channel_order_note, normalisation_note, range_notes, settle_activation
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


class _Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


class _Bands(nn.Module):
    """Three classes by red, which is expected in standard deviations of ImageNet."""

    def forward(self, image: Tensor) -> Tensor:
        centres = torch.tensor([-1.5, 0.0, 1.5]).view(1, 3, 1, 1)
        return -((image[:, :1] - centres) ** 2)


def _job(network: nn.Module | str, spec: InputSpec = RAW, *, postprocess: Any = None, **options: Any) -> ExportJob:
    conventions = custom_spec("mine", input=spec, postprocess=postprocess or PostprocessSpec())
    source = resolve_network(network, spec=None if isinstance(network, str) else conventions)
    return prepare_job(source, ExportConfig(size=(32, 48), **options))


def _settled(job: ExportJob, last: str = "") -> Settled:
    return settle_activation(job, job.expected(), last)


def _post(job: ExportJob) -> tuple[str, float]:
    return job.spec.postprocess.activation, job.spec.postprocess.threshold


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Hardsigmoid(), nn.Sequential(nn.Tanh(), nn.ReLU())])
def test_probabilities_of_one_channel_ask_for_a_threshold(activation: nn.Module) -> None:
    with pytest.raises(ExportError, match=r"on every picture, as probabilities do, .* give --threshold 0\.5"):
        _settled(_job(_Binary(activation)))


@pytest.mark.parametrize(
    ("activation", "last", "why"),
    [
        (nn.Sigmoid(), "Sigmoid", "the network ends in a sigmoid"),
        (nn.Hardsigmoid(), "HardSigmoid", "the network ends in a hard sigmoid"),
        (_Function(lambda x: torch.cat((-x, x), 1).softmax(1)[:, 1:]), "Softmax", "the network ends in a softmax"),
        (_Function(lambda x: 0.1 * x.sigmoid() + 0.45), "Sigmoid", "the network ends in a sigmoid"),
        (_Function(lambda x: 1.2 * x.sigmoid() - 0.1), "Sigmoid", "the network ends in a sigmoid"),
    ],
)
def test_an_activation_that_ends_the_network_needs_no_word(activation: nn.Module, last: str, why: str) -> None:
    found = _settled(_job(_Binary(activation)), last)
    assert _post(found.job) == ("sigmoid", 0.5)
    (note,) = found.notes
    assert why in note
    assert "label 1 is above 0.5, and scores are the values" in note
    pairs = zip(found.expected.logits, found.expected.labels, strict=True)
    assert all(np.array_equal(labels, values[0] > 0.5) and labels.any() for values, labels in pairs)


@pytest.mark.parametrize(
    ("network", "options", "expected", "told"),
    [
        (nn.Identity(), {}, ("none", 0.0), ""),
        (nn.Tanh(), {}, ("none", 0.0), "the one output channel (-1..1) looks like numbers within -1..1, as of a tanh"),
        (_Function(lambda x: 0.5 * x.tanh()), {}, ("none", 0.0), ""),
        (_Function(lambda x: (x > 0).float()), {"threshold": 0.5}, ("sigmoid", 0.5), "taken as a probability"),
        (_Function(lambda x: 255.0 * (x > 0)), {"threshold": 127.5}, ("none", 127.5), "scores are its sigmoid"),
        (_Function(lambda x: -(x**2)), {}, ("none", 0.0), ""),
        (nn.ReLU(), {"threshold": 0.0}, ("none", 0.0), ""),
        (nn.Sigmoid(), {"threshold": 0.0}, ("none", 0.0), ""),
        (nn.Sigmoid(), {"threshold": 0.5}, ("sigmoid", 0.5), "0.5 was given as the threshold"),
        (nn.Sigmoid(), {"threshold": 0.3}, ("sigmoid", 0.3), "label 1 is above 0.3"),
        (nn.Sigmoid(), {"postprocess": PostprocessSpec(threshold=0.5)}, ("sigmoid", 0.5), "taken as a probability"),
        (nn.Identity(), {"threshold": 2.0}, ("none", 2.0), "scores are its sigmoid"),
        (_Function(lambda x: 255 * x.sigmoid()), {"threshold": 127.5}, ("none", 127.5), "scores are its sigmoid"),
        (nn.Sigmoid(), {"activation": "sigmoid"}, ("sigmoid", 0.5), ""),
        (nn.Sigmoid(), {"activation": "sigmoid", "threshold": 0.7}, ("sigmoid", 0.7), ""),
        (nn.Sigmoid(), {"postprocess": PostprocessSpec(activation="sigmoid")}, ("sigmoid", 0.5), ""),
        (nn.Sigmoid(), {"activation": "none"}, ("none", 0.0), "looks like a probability: one channel within 0..1"),
        (nn.Identity(), {"activation": "none"}, ("none", 0.0), ""),
    ],
)
def test_one_channel_and_what_the_user_said(
    network: nn.Module, options: dict[str, Any], expected: tuple[str, float], told: str
) -> None:
    found = _settled(_job(_Binary(network), **options))
    assert _post(found.job) == expected
    assert told in " ".join(found.notes)
    assert bool(found.notes) == bool(told)
    labels = [values[0] > expected[1] for values in found.expected.logits]
    assert all(np.array_equal(a, b) for a, b in zip(found.expected.labels, labels, strict=True))


@pytest.mark.parametrize(
    ("activation", "told"),
    [
        (_Function(lambda x: 255 * x.sigmoid()), r"--threshold 127\.5 for values of 0\.\.255"),
        (_Function(lambda x: 100 * x.sigmoid()), r"never below; give the value between the two labels"),
        (_Function(lambda x: 1000 * x.sigmoid()), r"give the value between the two labels, or --threshold 0 if"),
        (nn.ReLU(), "or --threshold 0 if these are logits"),
        (nn.Softplus(), "or --threshold 0 if these are logits"),
        (nn.Softmax(1), "1 everywhere on every picture, as a softmax over one channel is"),
    ],
)
def test_one_channel_that_is_never_negative_asks(activation: nn.Module, told: str) -> None:
    with pytest.raises(ExportError, match=told):
        _settled(_job(_Binary(activation)))


def _several(function: Callable[[Tensor], Tensor], **options: Any) -> ExportJob:
    return _job(nn.Sequential(_Bands(), _Function(function)), InputSpec.imagenet(), **options)


def _one_hot(x: Tensor) -> Tensor:
    return nn.functional.one_hot(x.argmax(1), 3).permute(0, 3, 1, 2).float()


SEVERAL = [
    (lambda x: x, "", "none", ""),
    (lambda x: x.log_softmax(1), "", "none", ""),
    (lambda x: x.softmax(1), "", "softmax", "sum to 1 at every pixel; scores are the values"),
    (lambda x: (0.01 * x).softmax(1), "", "softmax", "sum to 1 at every pixel"),
    (lambda x: x.softmax(1).half().float(), "", "softmax", "sum to 1 at every pixel"),
    (lambda x: 1.4 * x.softmax(1) - 0.4 / 3, "Softmax", "softmax", "sum to 1 at every pixel"),
    (_one_hot, "", "softmax", "one-hot: 0 or 1, and one 1 at every pixel"),
    (lambda x: (8 * x + 4).sigmoid(), "", "sigmoid", "(multi-label), and its label is the one of the largest value"),
    (lambda x: (0.1 * x).sigmoid(), "Sigmoid", "sigmoid", "(multi-label)"),
    (lambda x: 1.2 * (8 * x + 4).sigmoid() - 0.1, "Sigmoid", "sigmoid", "(multi-label)"),
    (lambda x: x.softmax(1)[:, 1:], "Softmax", "sigmoid", "(multi-label)"),
    (lambda x: (x > -1).float(), "", "sigmoid", "(multi-label)"),
    (lambda x: 0.4 + 0.1 * x.softmax(1), "", "none", "taken for logits; --activation sigmoid takes them"),
    (lambda x: 255 * x.softmax(1), "", "none", "never negative: logits, or probabilities on another scale"),
    (lambda x: (4 * x + 2).tanh(), "", "none", "look like numbers within -1..1, as of a tanh"),
    (lambda x: 100 * x.sigmoid(), "", "none", "scores are the softmax of such numbers"),
]


@pytest.mark.parametrize(("function", "last", "activation", "told"), SEVERAL)
def test_several_channels(function: Callable[[Tensor], Tensor], last: str, activation: str, told: str) -> None:
    job = _several(function)
    found = _settled(job, last)
    assert found.job.spec.postprocess.activation == activation
    assert told in " ".join(found.notes)
    assert len(found.notes) == bool(told)
    labels = [values.argmax(0) for values in found.expected.logits]
    assert all(np.array_equal(a, b) for a, b in zip(found.expected.labels, labels, strict=True))


@pytest.mark.parametrize(
    ("function", "said", "told"),
    [
        (lambda x: x.softmax(1), "softmax", ""),
        (lambda x: x.softmax(1), "sigmoid", ""),
        (lambda x: (0.1 * x).sigmoid(), "sigmoid", ""),
        (lambda x: x, "none", ""),
        (lambda x: x.softmax(1), "none", "probabilities that sum to 1 at every pixel; scores are the softmax of it"),
        (lambda x: (8 * x + 4).sigmoid(), "none", "looks like a probability per class"),
        (_one_hot, "none", "looks like one-hot"),
        (lambda x: x.softmax(1)[:, 1:], "softmax", "activation softmax was given, but the channels of a pixel sum to"),
    ],
)
def test_what_the_user_says_is_taken(function: Callable[[Tensor], Tensor], said: str, told: str) -> None:
    found = _settled(_several(function, activation=said), "Softmax")
    assert found.job.spec.postprocess.activation == said
    assert told in " ".join(found.notes)
    assert len(found.notes) == bool(told)


@pytest.mark.parametrize("said", ["sigmoid", "softmax"])
@pytest.mark.parametrize("function", [lambda x: x, lambda x: 255 * x.softmax(1), lambda x: x.tanh()])
def test_values_that_are_no_probabilities_contradict_the_user(function: Callable[[Tensor], Tensor], said: str) -> None:
    with pytest.raises(UsageError, match=rf"activation {said} was given .* within 0\.\.1, and the network returns"):
        _settled(_several(function, activation=said))
    with pytest.raises(UsageError, match=f"activation {said} was given"):
        _settled(_several(function, postprocess=PostprocessSpec(activation=said)))  # type: ignore[arg-type]


def test_a_softmax_over_one_channel_and_thresholds_beyond_a_sigmoid_are_told_at_once() -> None:
    with pytest.raises(UsageError, match="softmax was given for one channel"):
        _job(_Binary(nn.Sigmoid()), activation="softmax")
    for threshold in (0.0, 1.0, -1.0, 127.5):
        with pytest.raises(UsageError, match="after a sigmoid, whose values lie between 0 and 1"):
            _job(_Binary(nn.Sigmoid()), activation="sigmoid", threshold=threshold)


def test_a_registered_network_is_not_looked_at_but_heard() -> None:
    found = _settled(_job("espnet_c_p2_q3"), "Softmax")
    assert (_post(found.job), found.notes) == (("none", 0.0), ())
    (note,) = _settled(_job("espnet_c_p2_q3", activation="softmax")).notes
    assert note.startswith("activation softmax was given, but the channels of a pixel sum to")


def test_the_pictures_of_the_first_look_count_too() -> None:
    """Zero on the parity pictures, whose pixels are whole numbers; negative on the others."""
    job = _job(_Binary(_Function(lambda x: x.clamp_min(0))), threshold=None)
    assert job.seen is not None
    with pytest.raises(ExportError, match="never below"):
        _settled(job)
    wider = replace(job, seen=replace(job.seen, low=-1.0))
    assert _post(_settled(wider).job) == ("none", 0.0)


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


@pytest.mark.parametrize(
    ("network", "options", "told"),
    [
        (nn.LogSigmoid(), {}, r"0 \(class 0\), .* its one channel lies within -\S+, and the threshold is 0 \(--thr"),
        (
            nn.Sigmoid(),
            {"threshold": 0.0},
            r"1 \(class 1\), .* its one channel lies within \S+, and the threshold is 0",
        ),
        (nn.Identity(), {"threshold": 99.0}, r"0 \(class 0\), .* and the threshold is 99 \(--threshold\); check the"),
    ],
)
def test_one_label_of_one_channel_tells_the_threshold(network: nn.Module, options: dict[str, Any], told: str) -> None:
    job = _job(_Binary(network), **options)
    (note,) = range_notes(job, job.expected())
    assert re.search(told, note)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (InputSpec("rgb", (103.53, 116.28, 123.675)), "with blue first, and the channel order is rgb: say --channel-o"),
        (InputSpec("rgb", (104.0, 117.0, 123.0), scale=0.017), "with blue first, and the channel order is rgb"),
        (
            InputSpec("bgr", (123.675, 116.28, 103.53), (58.4, 57.1, 57.4)),
            "with red first, and the channel order is bgr",
        ),
        (InputSpec("bgr", (122.68, 116.67, 104.0)), "else turn the numbers round"),
    ],
)
def test_a_mean_of_the_other_channel_order_is_told(spec: InputSpec, said: str) -> None:
    assert said in channel_order_note(spec)


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec.imagenet(),
        InputSpec("bgr", (103.53, 116.28, 123.675)),
        InputSpec("bgr", (104.0, 117.0, 123.0)),
        InputSpec("rgb", (127.5,) * 3, (127.5,) * 3),
        InputSpec("bgr"),
        InputSpec(mean=(100.0, 110.0, 120.0, 130.0), std=(1.0,) * 4),
    ],
)
def test_a_channel_order_that_may_be_right_is_not_doubted(spec: InputSpec) -> None:
    assert channel_order_note(spec) == ""


def test_the_other_order_than_the_published_weights_take_is_told() -> None:
    published = InputSpec.imagenet()
    assert "take rgb, and bgr was given (--channel-order)" in channel_order_note(InputSpec.imagenet("bgr"), published)
    assert channel_order_note(published, published) == ""
    assert channel_order_note(InputSpec("rgb", (1.0, 2.0, 3.0)), published) == ""


def test_a_published_normalisation_is_not_doubted() -> None:
    job = _job("espnet_c_p2_q3")
    assert all("standard deviations" not in note for note in range_notes(job, job.expected()))
