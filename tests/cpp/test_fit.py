"""cpp/include/edgeseg/fit.hpp: the network's input, bit for bit as Python makes it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.images import fit_image
from edgeseg.manifest import SCHEMA_VERSION
from edgeseg.specs import ResizeMode, ResizeRule, Size
from tests.cpp.compilers import CPP, compile_library, json_headers


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    source = Path(__file__).with_name("fit.cpp")
    return compile_library(source, tmp_path_factory.mktemp("cpp") / "libfit.so", "-isystem", str(json_headers()))


def cpp_fit(
    library: ctypes.CDLL, image: NDArray[np.uint8], size: Size, rule: ResizeRule
) -> tuple[NDArray[np.uint8], list[float]]:
    """The fitted picture of the header, and top, left, height and width of the region (zeros where there is none)."""
    out = np.full((*size, image.shape[2]), 0xEE, np.uint8)
    region, said = (ctypes.c_double * 4)(), ctypes.create_string_buffer(256)
    failed = library.fit(
        ctypes.c_void_p(image.ctypes.data),
        (ctypes.c_int * 3)(*image.shape),
        (ctypes.c_int * 2)(*size),
        rule.mode.encode(),
        rule.filter.encode(),
        rule.padding(image.shape[2])[0],
        ctypes.c_void_p(out.ctypes.data),
        region,
        said,
    )
    if failed:
        raise ValueError(said.value.decode())
    return out, list(region)


@settings(max_examples=300, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 90)] * 4),
    channels=st.sampled_from((1, 3, 4)),
    mode=st.sampled_from(("stretch", "letterbox")),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_pixel_differs_from_python_s(
    library: ctypes.CDLL, sizes: tuple[int, int, int, int], channels: int, mode: ResizeMode, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*sizes[:2], channels), dtype=np.uint8)
    rule = ResizeRule(mode, "linear", pad_value=114)
    wanted, region = fit_image(image, sizes[2:], rule)
    got, where = cpp_fit(library, image, sizes[2:], rule)
    np.testing.assert_array_equal(got, wanted)
    assert where == ([region.top, region.left, region.height, region.width] if region else [0.0] * 4)


def test_a_rule_that_it_does_not_know_is_said(library: ctypes.CDLL) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="resized by 'area', this program knows 'linear'"):
        cpp_fit(library, image, (4, 4), ResizeRule("stretch", "area"))
    with pytest.raises(ValueError, match="pictures of its own size only"):
        cpp_fit(library, image, (4, 4), ResizeRule("none"))


def test_the_manifest_s_version_is_today_s() -> None:
    header = (CPP / "include" / "edgeseg" / "manifest.hpp").read_text(encoding="utf-8")
    assert f"schema_version = {SCHEMA_VERSION};" in header
