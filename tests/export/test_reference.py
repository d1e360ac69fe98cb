"""The judge of exports: it must see every difference, not a number close to nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edgeseg.errors import ExportError, InputError
from edgeseg.export.deploy import DeployNetwork
from edgeseg.export.reference import ParitySet, compare_outputs, logit_error, parity_set, shipped_sample
from edgeseg.postprocess import labels_from_logits
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule
from tests.export.networks import Tiny

SIZE = (32, 48)
POSTPROCESS = PostprocessSpec()


@pytest.fixture(scope="module")
def network() -> DeployNetwork:
    return DeployNetwork(Tiny().eval(), InputSpec.imagenet()).eval()


@pytest.fixture(scope="module")
def expected(network: DeployNetwork) -> ParitySet:
    return parity_set(network, SIZE, ResizeRule(), POSTPROCESS, [shipped_sample()])


Run = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]


def _run(network: nn.Module, change: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda x: x) -> Run:
    def run(images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            return {"logits": change(network(torch.from_numpy(images)).numpy())}

    return run


def test_parity_set_holds_the_sample_and_two_edge_cases(expected: ParitySet) -> None:
    assert len(expected.images) == len(expected.logits) == len(expected.labels) == 3
    for image, logits, labels in zip(expected.images, expected.logits, expected.labels, strict=True):
        assert image.shape == (*SIZE, 3)
        assert image.dtype == np.uint8
        assert logits.shape == (5, 8, 12)
        assert np.array_equal(labels, labels_from_logits(logits, SIZE, postprocess=POSTPROCESS))
    ramp = expected.images[2]
    assert ramp.min() == 0
    assert ramp.max() == 255
    assert expected.logit_range > 1.0
    assert len(np.unique(expected.labels[0])) > 1


def test_a_rule_that_refuses_other_sizes_still_takes_the_sample(network: DeployNetwork) -> None:
    found = parity_set(network, SIZE, ResizeRule("none"), POSTPROCESS, [shipped_sample()])
    assert found.images[0].shape == (*SIZE, 3)


def test_missing_picture(network: DeployNetwork, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.png"):
        parity_set(network, SIZE, ResizeRule(), POSTPROCESS, [tmp_path / "nothing.png"])


def test_logits_that_are_no_numbers_are_refused() -> None:
    broken = Tiny()
    broken.head.weight.data[0, 0] = math.nan
    with pytest.raises(ExportError, match="not finite numbers"):
        parity_set(DeployNetwork(broken.eval(), InputSpec()), SIZE, ResizeRule(), POSTPROCESS, [shipped_sample()])


def test_the_same_network_agrees(network: DeployNetwork, expected: ParitySet) -> None:
    for batch in (1, 2, 4):
        found = compare_outputs("ort", _run(network), "engine", expected, POSTPROCESS, batch=batch)
        assert found.pixels == 3 * batch * SIZE[0] * SIZE[1]
        assert found.differing == 0
        assert found.max_logit_error <= 1e-5 * found.logit_range
        assert (found.target, found.engine, found.images, found.ran) == ("ort", "engine", 3, True)


def test_differences_are_counted(network: DeployNetwork, expected: ParitySet) -> None:
    found = compare_outputs("ort", _run(network, lambda x: -x), "", expected, POSTPROCESS)
    assert found.agreement < 0.5
    shifted = compare_outputs("ort", _run(network, lambda x: x + np.float32(0.25)), "", expected, POSTPROCESS)
    assert shifted.differing == 0
    assert shifted.max_logit_error == pytest.approx(0.25, abs=1e-4)


def test_a_batch_mixed_up_is_seen(network: DeployNetwork, expected: ParitySet) -> None:
    found = compare_outputs("ort", _run(network, lambda x: x[::-1].copy()), "", expected, POSTPROCESS, batch=2)
    assert found.agreement < 0.9


def test_labels_of_the_device_are_compared_as_they_come(network: DeployNetwork, expected: ParitySet) -> None:
    def wrong(images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {**_run(network)(images), "labels": np.zeros((len(images), *SIZE), np.uint8)}

    share_of_others = sum(int((labels != 0).sum()) for labels in expected.labels)
    assert compare_outputs("trt", wrong, "", expected, POSTPROCESS).differing == share_of_others


def test_logit_error() -> None:
    small = np.random.default_rng(0).normal(size=(1, 2, 4, 6)).astype(np.float32)
    for align in (False, True):
        big = torch.nn.functional.interpolate(
            torch.from_numpy(small), (8, 12), mode="bilinear", align_corners=align
        ).numpy()
        assert logit_error(small, big[0], PostprocessSpec(align)) <= 1e-6
        assert logit_error(small, big[0], PostprocessSpec(not align)) > 1e-2
    assert logit_error(small + 1.0, small[0], POSTPROCESS) == pytest.approx(1.0, abs=1e-6)
    assert logit_error(np.full_like(small, np.nan), small[0], POSTPROCESS) == math.inf
