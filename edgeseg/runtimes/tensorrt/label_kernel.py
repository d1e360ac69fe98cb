"""Labels on the GPU: logits that lie there to labels of any size, by one kernel instead of a resize, a top-1 and casts.

The kernel is that of `edgeseg.postprocess`, compiled method, pixel by pixel (``kernels/labels.h``). Where each pixel
lies among the logits is computed on the host, in float64, once per size and region.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.labels import LabelMap, label_dtype
from edgeseg.postprocess import Region
from edgeseg.postprocess.axes import NOT_FINITE, Axis, places
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.specs import PostprocessSpec, Size

if TYPE_CHECKING:
    from edgeseg.runtimes._base import LabelRequest

__all__ = ["PTX", "DeviceLogits", "LabelKernel", "Labelling", "as_places"]

PTX = Path(__file__).with_name("kernels") / "labels.ptx"
"""The kernel, for every GPU of compute capability 7.5 and newer; the driver compiles it at the first use."""

PLACE = np.dtype([("low", np.int32), ("high", np.int32), ("t", np.float32)])
"""``EdgesegPlace``."""


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
    """The kernel on the GPU of the current context.

    Args:
        postprocess: The recorded postprocessing of the network.

    Raises:
        EdgesegError: The driver does not take the code.
    """

    def __init__(self, postprocess: PostprocessSpec) -> None:
        self.postprocess = postprocess
        self._module = cuda.Module(PTX.read_bytes())

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
        with closing(Labelling(self, logits, [(size, region)], stream, first=picture)) as work:
            work.enqueue(stream)
            stream.wait()
            return work.take()[0]

    def launch(self, name: str, size: Size, arguments: Sequence[Any], stream: cuda.Stream) -> None:
        """Start the kernel of this name on one picture."""
        self._module.launch(name, size, arguments, stream)

    def close(self) -> None:
        """Free the code; closing twice is harmless."""
        self._module.close()


class Labelling:
    """Labels of the pictures of a batch, with the memory that making them takes. The memory stays where it is.

    Args:
        kernel: Makes them.
        logits: Of the batch.
        wanted: Height x width and region of each picture's labels, as `LabelKernel.labels`.
        stream: Where the places of the pixels are copied.
        first: Index in the batch of the first picture.
        mapped: The labels lie in the host's memory, where the GPU writes them.

    Raises:
        UsageError: As `LabelKernel.labels`.
        EdgesegError: Not enough memory.
    """

    def __init__(
        self,
        kernel: LabelKernel,
        logits: DeviceLogits,
        wanted: Sequence[LabelRequest],
        stream: cuda.Stream,
        *,
        first: int = 0,
        mapped: bool = False,
    ) -> None:
        self._kernel, self._logits, self._first = kernel, logits, first
        _, classes, height, width = logits.shape
        self._dtype = np.dtype(label_dtype(classes))
        self._sizes = [size for size, _ in wanted]
        self._offsets, total = _offsets([size[0] * size[1] * self._dtype.itemsize for size in self._sizes])
        placed = [places((height, width), size, kernel.postprocess, region) for size, region in wanted]
        self._places: list[_Places] = []
        self._device: cuda.Buffer | None = None
        self._host: cuda.PinnedArray | None = None
        with ExitStack() as undo:
            undo.callback(self.close)
            for rows, columns in placed:
                self._places.append(_Places(rows, columns, stream))
            self._host = cuda.PinnedArray((total,), "uint8", mapped=mapped)
            if not mapped:
                self._device = cuda.Buffer(total)
            undo.pop_all()

    def enqueue(self, stream: cuda.Stream) -> None:
        """Start making the labels of what lies in the logits then; nothing is allocated.

        Raises:
            EdgesegError: The driver fails.
        """
        base = self._address()
        for index, (at, offset) in enumerate(zip(self._places, self._offsets, strict=True)):
            cuda.clear_word(base + offset, stream)
            self._launch(self._first + index, self._sizes[index], at, base + offset, stream)
        if self._device is not None:
            self._device.read(self._array(), stream)

    def take(self) -> list[LabelMap]:
        """Copy the labels, for which the stream was waited.

        Raises:
            UsageError: The logits of a picture hold NaN or infinity.
        """
        array, found = self._array(), []
        for size, offset in zip(self._sizes, self._offsets, strict=True):
            if array[offset : offset + 4].any():
                raise UsageError(NOT_FINITE)
            count = size[0] * size[1] * self._dtype.itemsize
            labels: LabelMap = array[offset + _FLAG : offset + _FLAG + count].view(self._dtype).reshape(size).copy()
            found.append(labels)
        return found

    def _launch(self, picture: int, size: Size, at: _Places, memory: int, stream: cuda.Stream) -> None:
        shape = self._logits.shape[1:]
        arguments = (
            *(ctypes.c_void_p(self._logits.address(picture)), *map(ctypes.c_int, shape)),
            ctypes.c_float(self._kernel.postprocess.threshold),
            *(ctypes.c_void_p(at.rows.address), ctypes.c_void_p(at.columns.address), *map(ctypes.c_int, size)),
            *(ctypes.c_void_p(memory + _FLAG), ctypes.c_void_p(memory)),
        )
        name = f"edgeseg_labels_f{8 * np.dtype(self._logits.dtype).itemsize}_u{8 * self._dtype.itemsize}"
        self._kernel.launch(name, size, arguments, stream)

    def _address(self) -> int:
        if self._device is not None:
            return self._device.address
        return 0 if self._host is None else self._host.address

    def _array(self) -> NDArray[np.uint8]:
        array: NDArray[np.uint8] = np.empty(0, np.uint8) if self._host is None else self._host.array
        return array

    def close(self) -> None:
        """Free the memory; closing twice is harmless."""
        with ExitStack() as frees:
            for part in (self._device, self._host, *self._places):
                if part is not None:
                    frees.callback(part.close)
            self._device = self._host = None
            self._places = []


_FLAG = 256
"""Bytes before each picture's labels: the first four tell of NaN or infinity, and the labels begin at an aligned
address."""


def _offsets(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where each picture's flag and labels begin, and the bytes of all."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += _FLAG + -(-size // _FLAG) * _FLAG
    return offsets, end


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


def as_places(axis: Axis) -> NDArray[np.void]:
    """An axis as the kernel reads it: one `PLACE` per output."""
    made = np.empty(len(axis.low), PLACE)
    made["low"], made["high"], made["t"] = axis.low, axis.high, axis.t
    return made
