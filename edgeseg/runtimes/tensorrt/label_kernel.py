"""Labels on the GPU: logits that lie there to labels of any size, by one kernel instead of a resize, a top-1 and casts.

The kernel is that of `edgeseg.postprocess`, compiled method, pixel by pixel (``kernels/labels.h``). Where each pixel
lies among the logits is computed on the host, in float64, once per size and region.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.labels import LabelMap, label_dtype
from edgeseg.postprocess import Region
from edgeseg.postprocess.axes import NOT_FINITE, Axis, places
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.specs import PostprocessSpec, Size

__all__ = ["PTX", "DeviceLogits", "LabelKernel", "as_places"]

PTX = Path(__file__).with_name("kernels") / "labels.ptx"
"""The kernel, for every GPU of compute capability 7.5 and newer; the driver compiles it at the first use."""

PLACE = np.dtype([("low", np.int32), ("high", np.int32), ("t", np.float32)])
"""``EdgesegPlace``."""

_KEPT = 8
"""Sizes and regions whose places are kept on the GPU."""


@dataclass(frozen=True)
class DeviceLogits:
    """Logits of a batch in the GPU's memory.

    Attributes:
        memory: Where they lie.
        shape: (N, classes, h, w).
        dtype: ``float32`` or ``float16``.
    """

    memory: cuda.Buffer
    shape: tuple[int, ...]
    dtype: str

    def address(self, picture: int) -> int:
        """Of one picture's logits."""
        _, classes, height, width = self.shape
        return self.memory.address + picture * classes * height * width * np.dtype(self.dtype).itemsize


class LabelKernel:
    """The kernel on the GPU of the current context, with the memory that it works in.

    Args:
        postprocess: The recorded postprocessing of the network.

    Raises:
        EdgesegError: The driver does not take the code.
    """

    def __init__(self, postprocess: PostprocessSpec) -> None:
        self._postprocess = postprocess
        self._module = cuda.Module(PTX.read_bytes())
        self._places: OrderedDict[tuple[Size, Size, Region | None], _Places] = OrderedDict()
        self._labels: cuda.Buffer | None = None
        self._host: cuda.PinnedArray | None = None

    def labels(
        self, logits: DeviceLogits, picture: int, size: Size, region: Region | None, stream: cuda.Stream
    ) -> LabelMap:
        """Label one picture, and wait for the labels.

        Args:
            logits: Of its batch; the stream may still be computing them.
            picture: Its index in the batch.
            size: Height x width of the labels.
            region: As `edgeseg.postprocess.labels_from_logits`.
            stream: That computes the logits.

        Returns:
            What `edgeseg.postprocess.labels_from_logits` gives for these logits; the caller's own.

        Raises:
            UsageError: As there.
            EdgesegError: The driver fails.
        """
        _, classes, height, width = logits.shape
        dtype = np.dtype(label_dtype(classes))
        at = self._placed((height, width), size, region, stream)
        memory, host = self._memory(size[0] * size[1] * dtype.itemsize)
        host[:_FLAG] = 0
        memory.write(host[:_FLAG], stream)
        arguments = (
            *(ctypes.c_void_p(logits.address(picture)), *map(ctypes.c_int, (classes, height, width))),
            ctypes.c_float(self._postprocess.threshold),
            *(ctypes.c_void_p(at.rows.address), ctypes.c_void_p(at.columns.address), *map(ctypes.c_int, size)),
            *(ctypes.c_void_p(memory.address + _FLAG), ctypes.c_void_p(memory.address)),
        )
        name = f"edgeseg_labels_f{8 * np.dtype(logits.dtype).itemsize}_u{8 * dtype.itemsize}"
        self._module.launch(name, size, arguments, stream)
        memory.read(host, stream)
        stream.wait()
        if host[:_FLAG].any():
            raise UsageError(NOT_FINITE)
        labels: LabelMap = host[_FLAG:].view(dtype).reshape(size).copy()
        return labels

    def _placed(self, shape: Size, size: Size, region: Region | None, stream: cuda.Stream) -> _Places:
        """Where the pixels lie, on the GPU; the least lately used of many goes."""
        key = shape, size, region
        found = self._places.get(key)
        if found is None:
            while len(self._places) >= _KEPT:
                self._places.popitem(last=False)[1].close()
            found = _Places(*places(shape, size, self._postprocess, region), stream)
            self._places[key] = found
        self._places.move_to_end(key)
        return found

    def _memory(self, size: int) -> tuple[cuda.Buffer, NDArray[np.uint8]]:
        """Memory for a flag and `size` bytes of labels, on the GPU and on the host."""
        total = _FLAG + size
        if self._labels is None or self._labels.size < total:
            _close(self._labels)
            self._labels = None
            self._labels = cuda.Buffer(total)
        if self._host is None or self._host.array.size != total:
            _close(self._host)
            self._host = None
            self._host = cuda.PinnedArray((total,), "uint8")
        return self._labels, self._host.array

    def close(self) -> None:
        """Free all; closing twice is harmless."""
        with ExitStack() as frees:
            frees.callback(self._module.close)
            for part in (self._labels, self._host, *self._places.values()):
                frees.callback(_close, part)
            self._places.clear()


_FLAG = 256
"""Bytes before the labels: the first four tell of NaN or infinity, and the labels begin at an aligned address."""


class _Places:
    """Where the rows and columns of one size lie, in the GPU's memory.

    The host's arrays are kept: the copies may still be under way.
    """

    def __init__(self, rows: Axis, columns: Axis, stream: cuda.Stream) -> None:
        self._host = as_places(rows), as_places(columns)
        with ExitStack() as undo:
            self.rows = cuda.Buffer(self._host[0].nbytes)
            undo.callback(self.rows.close)
            self.columns = cuda.Buffer(self._host[1].nbytes)
            undo.callback(self.columns.close)
            self.rows.write(self._host[0], stream)
            self.columns.write(self._host[1], stream)
            undo.pop_all()

    def close(self) -> None:
        try:
            self.rows.close()
        finally:
            self.columns.close()


def _close(part: cuda.Buffer | cuda.PinnedArray | _Places | None) -> None:
    if part is not None:
        part.close()


def as_places(axis: Axis) -> NDArray[np.void]:
    """An axis as the kernel reads it: one `PLACE` per output."""
    made = np.empty(len(axis.low), PLACE)
    made["low"], made["high"], made["t"] = axis.low, axis.high, axis.t
    return made
