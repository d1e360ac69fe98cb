"""Pictures as float planes on the host: the graphs' own normalisation, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from edgeseg.export.deploy import DeployNetwork
from edgeseg.runtimes.ncnn.planes import Planes
from edgeseg.specs import InputSpec

NUMBERS = st.floats(-300, 300, width=32)
STEPS = st.floats(1 / 64, 300)


def specs() -> st.SearchStrategy[InputSpec]:
    """Any specification of 1 to 6 channels."""
    channels = st.lists(st.tuples(NUMBERS, STEPS), min_size=1, max_size=6)
    return st.builds(_spec, channels, st.booleans(), st.sampled_from((1.0, 1 / 255, 0.017)))


def _spec(channels: list[tuple[float, float]], swapped: bool, scale: float) -> InputSpec:
    mean, std = zip(*channels, strict=True)
    return InputSpec("bgr" if swapped and len(channels) == 3 else "rgb", mean, std, scale)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**31))
def test_planes_are_what_the_graph_computes(spec: InputSpec, height: int, width: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, spec.image_channels), np.uint8)
    wanted = DeployNetwork(nn.Identity(), spec).normalise(torch.from_numpy(picture[None]))[0].numpy()
    got = Planes(spec)(picture)
    np.testing.assert_array_equal(got, wanted)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_every_value_of_every_channel(order: str) -> None:
    spec = InputSpec.imagenet(order)  # type: ignore[arg-type]
    picture = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    wanted = DeployNetwork(nn.Identity(), spec).normalise(torch.from_numpy(picture[None]))[0].numpy()
    np.testing.assert_array_equal(Planes(spec)(picture), wanted)
