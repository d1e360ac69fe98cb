"""The postprocessing in C++, compiled when edgeseg was installed (``cpp/include/edgeseg/postprocess.hpp``).

It is called by ctypes, which releases the interpreter lock. Products and sums are rounded one by one, so every
processor gives the same labels. Where it was not compiled, numpy runs the postprocessing.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import TargetUnavailableError, UsageError
from edgeseg.labels import LabelMap, label_dtype
from edgeseg.postprocess.axes import F32, Region
from edgeseg.specs import PostprocessSpec, Size
from edgeseg.text import first_line

LIBRARY = Path(__file__).with_name("_labels.so")

_SAID = 256
_WAY = "install a C++ compiler (Debian: apt install g++), then edgeseg again"


def is_usable() -> bool:
    """Tell whether the compiled postprocessing is here and loads."""
    return not why_not()


@functools.cache
def why_not() -> str:
    """Say in a sentence why numpy runs the postprocessing; empty where it is compiled."""
    try:
        load()
    except TargetUnavailableError as error:
        return str(error)
    return ""


@functools.cache
def load() -> ctypes.CDLL:
    """Load the library that edgeseg was installed with.

    Raises:
        TargetUnavailableError: It was not compiled, or does not load on this machine.
    """
    if not LIBRARY.is_file():
        raise TargetUnavailableError(f"the compiled postprocessing is not in this installation; {_WAY}")
    return open_library(LIBRARY)


def open_library(path: Path) -> ctypes.CDLL:
    """Load a library of ``cpp/library/labels.cpp``.

    Raises:
        TargetUnavailableError: It does not load on this machine.
    """
    try:
        library = ctypes.CDLL(str(path))
        functions, sources = (library.edgeseg_labels_u8, library.edgeseg_labels_u16), library.edgeseg_sources
    except (OSError, AttributeError) as error:
        raise TargetUnavailableError(
            f"the compiled postprocessing does not load here ({first_line(error, 120)}); {_WAY}"
        ) from error
    sources.restype = ctypes.c_char_p
    for function in functions:
        function.argtypes = [
            *(ctypes.c_void_p, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int), ctypes.c_int),
            *(ctypes.c_float, ctypes.POINTER(ctypes.c_double), ctypes.c_void_p, ctypes.c_char_p),
        ]
    return library


def compiled_labels(field: F32, size: Size, postprocess: PostprocessSpec, region: Region | None) -> LabelMap:
    """Label (H, W) pixels from float32 (C, h, w) logits that are C-contiguous.

    Raises:
        TargetUnavailableError: As `load`.
        UsageError: NaN or infinity among the logits; a size or region that cannot be; not enough memory.
    """
    library, dtype = load(), label_dtype(len(field))
    labels: NDArray[np.uint8] | NDArray[np.uint16] = np.empty(size, dtype)
    cut = None
    if region is not None:
        numbers = (*region.net_size, region.top, region.left, region.height, region.width)
        cut = (ctypes.c_double * 6)(*numbers)
    said = ctypes.create_string_buffer(_SAID)
    fill = library.edgeseg_labels_u8 if dtype == np.uint8 else library.edgeseg_labels_u16
    shape, wanted = (ctypes.c_int * 3)(*field.shape), (ctypes.c_int * 2)(*size)
    aligned, threshold = int(postprocess.align_corners), postprocess.threshold
    if fill(field.ctypes.data, shape, wanted, aligned, threshold, cut, labels.ctypes.data, said):
        raise UsageError(said.value.decode(errors="replace"))
    return labels
