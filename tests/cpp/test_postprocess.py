"""cpp/include/edgeseg/postprocess.hpp: the same labels however it is compiled, and the library that Python loads.

That the labels are right is in tests/test_postprocess.py, and that the GPU's kernel gives the same ones in
tests/runtimes/tensorrt/test_label_kernel.py.
"""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from edgeseg.postprocess import Region, compiled
from edgeseg.specs import PostprocessSpec, Size
from tests.cpp.compilers import CPP, compile_library
from tests.logit_cases import logit_cases

SOURCE = CPP / "library" / "labels.cpp"
FUSED = ("-mfma", "-mavx2", "-ffp-contract=fast", '-DEDGESEG_SOURCES="none"')


def _has_fma() -> bool:
    try:
        return "fma" in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


def _builder() -> ModuleType:
    """``cpp/build_library.py`` as a module."""
    spec = importlib.util.spec_from_file_location("build_library", CPP / "build_library.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library compiled for a processor that could fuse products and sums, by a compiler that was told to."""
    if not _has_fma():
        pytest.skip("needs a processor with FMA")
    path = tmp_path_factory.mktemp("cpp") / "libfused.so"
    compile_library(SOURCE, path, *FUSED)
    return path


@settings(max_examples=300, deadline=None)
@given(case=logit_cases())
def test_no_label_depends_on_the_compiler_s_flags(
    fused: Path, case: tuple[NDArray[Any], Size, PostprocessSpec, Region | None]
) -> None:
    if not compiled.is_usable():
        pytest.skip(compiled.why_not())
    logits, size, postprocess, region = case
    field = np.ascontiguousarray(logits, np.float32)
    wanted = compiled.compiled_labels(field, size, postprocess, region)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "load", lambda: compiled.open_library(fused))
        got = compiled.compiled_labels(field, size, postprocess, region)
    np.testing.assert_array_equal(got, wanted)


def test_no_product_is_fused_with_a_sum(fused: Path) -> None:
    code = subprocess.run(["objdump", "-d", str(fused)], capture_output=True, text=True, check=True).stdout
    assert "vmulps" in code
    assert "vfm" not in code


def test_the_library_is_of_today_s_sources() -> None:
    if not compiled.is_usable():
        pytest.skip(compiled.why_not())
    assert compiled.load().edgeseg_sources().decode() == _builder().sources_digest()


def test_a_compiler_that_is_missing_or_fails_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    builder, library = _builder(), tmp_path / "_labels.so"
    monkeypatch.setenv("CXX", "false --version")
    with pytest.raises(RuntimeError, match=r"false --version cannot compile '.*labels\.cpp'"):
        builder.compile_library(library)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler was found; install one"):
        builder.compile_library(library)
    assert list(tmp_path.iterdir()) == []
