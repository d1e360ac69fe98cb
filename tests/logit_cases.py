"""Logits, sizes and regions of every kind for the twins of the postprocessing in other languages."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.postprocess import Region
from edgeseg.specs import PostprocessSpec, Size

__all__ = ["logit_cases"]


@st.composite
def logit_cases(draw: st.DrawFn) -> tuple[NDArray[Any], Size, PostprocessSpec, Region | None]:
    """Logits with ties, flat areas and wide ranges; sizes and regions of any kind."""
    classes = draw(st.one_of(st.integers(1, 20), st.sampled_from((150, 255, 256, 300))))
    h, w = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(("normal", "ties", "smooth", "huge", "denormal", "zeros")))
    field = generator.normal(size=(classes, h, w)) * {"huge": 1e30, "denormal": 1e-42}.get(kind, 3.0)
    if kind == "ties":
        field = np.round(field)
    elif kind == "smooth":
        field = np.cumsum(np.cumsum(field, 1), 2)
    elif kind == "zeros":
        field[:] = generator.choice((0.0, -0.0), field.shape)
    logits = field.astype(draw(st.sampled_from((np.float32, np.float16))) if kind not in ("huge",) else np.float32)
    threshold = draw(st.sampled_from((0.0, 0.5, -1.0)))
    region = None
    if draw(st.booleans()):
        net = 8 * h, 8 * w
        top, left = draw(st.integers(0, net[0] - 1)), draw(st.integers(0, net[1] - 1))
        height, width = draw(st.integers(1, net[0] - top)), draw(st.integers(1, net[1] - left))
        region = Region(net, float(top), float(left), float(height), float(width))
    return logits, size, PostprocessSpec(draw(st.booleans()), threshold), region
