"""The label kernel: its functions on the host, bit for bit those of the host's postprocessing, and the PTX of today."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray

from benchmarks.matrix import lively
from edgeseg.errors import UsageError
from edgeseg.export.deploy import DeployNetwork
from edgeseg.models import create_model, model_spec
from edgeseg.postprocess import Region, labels_from_logits
from edgeseg.postprocess.axes import NOT_FINITE, places
from edgeseg.postprocess.compiled import is_usable
from edgeseg.runtimes.tensorrt.label_kernel import PTX, as_places
from edgeseg.specs import PostprocessSpec, Size
from tests.logit_cases import logit_cases
from tests.make_label_kernel import FOLDER, compile_kernel, find_nvrtc, source_digest

pytestmark = pytest.mark.skipif(not is_usable(), reason="needs the compiled postprocessing")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernel's functions, compiled for the host."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    library = tmp_path_factory.mktemp("kernel") / "liblabels.so"
    source = Path(__file__).parents[1] / "labels_host.cpp"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC", "-I", str(FOLDER)]
    subprocess.run([compiler, *flags, "-o", str(library), str(source)], check=True)
    return ctypes.CDLL(str(library))


def kernel_labels(
    host: ctypes.CDLL, logits: NDArray[Any], size: Size, postprocess: PostprocessSpec, region: Region | None
) -> NDArray[Any]:
    """The labels of the kernel for one picture, as the GPU would be asked."""
    classes, h, w = logits.shape
    rows, columns = map(as_places, places((h, w), size, postprocess, region))
    wide = classes > 255
    labels, broken = np.full(size, 0xEE, np.uint16 if wide else np.uint8), np.zeros(1, np.int32)
    data = np.ascontiguousarray(logits)
    at = [ctypes.c_void_p(array.ctypes.data) for array in (data, rows, columns, labels, broken)]
    whole = [ctypes.c_int(number) for number in (classes, h, w, *size)]
    arguments = (at[0], *whole[:3], ctypes.c_float(postprocess.threshold), at[1], at[2], *whole[3:], at[3], at[4])
    pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
    name = f"edgeseg_labels_f{8 * data.itemsize}_u{8 * labels.itemsize}"
    getattr(host, name)(pointers, 1)
    if broken[0]:
        raise UsageError(NOT_FINITE)
    return labels


@settings(max_examples=400, deadline=None)
@given(case=logit_cases())
def test_the_kernel_s_labels_are_those_of_the_postprocessing(
    host: ctypes.CDLL, case: tuple[NDArray[Any], Size, PostprocessSpec, Region | None]
) -> None:
    logits, size, postprocess, region = case
    wanted = labels_from_logits(logits, size, postprocess=postprocess, region=region, method="compiled")
    got = kernel_labels(host, logits, size, postprocess, region)
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_is_not_finite_has_no_label(host: ctypes.CDLL, bad: float, dtype: type) -> None:
    logits: NDArray[Any] = np.zeros((3, 4, 5), dtype)
    logits[2, 1, 2] = bad
    with pytest.raises(UsageError, match="the logits hold NaN or infinity"):
        kernel_labels(host, logits, (16, 20), PostprocessSpec(), None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pidnet_s", "fast_scnn", "mmseg_segformer_b0", "ddrnet_23_slim"])
def test_no_label_of_a_network_differs(host: ctypes.CDLL, name: str) -> None:
    """Networks at 512x1024, labels at 720x1280."""
    network = DeployNetwork(lively(create_model(name)), model_spec(name).input)
    image = np.random.default_rng(0).integers(0, 256, (1, 512, 1024, 3), dtype=np.uint8)
    with torch.inference_mode():
        logits = network(torch.from_numpy(image))[0].numpy()
    for dtype in (np.float32, np.float16):
        for postprocess in (PostprocessSpec(False), PostprocessSpec(True)):
            field = logits.astype(dtype)
            wanted = labels_from_logits(field, (720, 1280), postprocess=postprocess, method="compiled")
            got = kernel_labels(host, field, (720, 1280), postprocess, None)
            assert np.count_nonzero(got != wanted) == 0


def test_the_ptx_is_of_today_s_sources() -> None:
    assert f"// sources {source_digest()}\n" in PTX.read_text()


def test_the_ptx_rounds_every_product_and_keeps_denormals() -> None:
    code = "\n".join(line for line in PTX.read_text().splitlines() if not line.startswith("//"))
    assert not re.findall(r"\bfma\b|\.ftz|\bmad\.(?:rn|f32)|\.approx", code)
    assert re.search(r"^\.version 7\.\d$", code, re.MULTILINE)  # drivers of CUDA 11.8 and newer read it
    assert len(re.findall(r"\.visible \.entry edgeseg_labels_f(?:16|32)_u(?:8|16)\(", code)) == 4


def test_the_ptx_is_what_nvrtc_makes() -> None:
    nvrtc = find_nvrtc()
    if nvrtc is None:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc-cu11")
    assert compile_kernel(nvrtc) == PTX.read_text()
