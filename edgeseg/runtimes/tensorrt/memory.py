"""Memory of an engine's inputs and outputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError
from edgeseg.runtimes._base import TensorInfo
from edgeseg.runtimes.tensorrt import cuda

__all__ = ["Tensor"]


class Tensor:
    """One input or output of an engine with its memory, which grows when a larger shape comes.

    Args:
        info: The tensor.
        mapped: It lies in the host's memory, where the GPU uses it: nothing is copied. For a GPU that shares that
            memory.

    Attributes:
        info: The tensor.
        shape: That the memory is for now.
    """

    def __init__(self, info: TensorInfo, *, mapped: bool = False) -> None:
        self.info = info
        self.shape: tuple[int, ...] = ()
        self._mapped = mapped
        self._device: cuda.Buffer | None = None
        self._host: cuda.PinnedArray | None = None

    def fit(self, shape: tuple[int, ...]) -> int:
        """Give the address on the GPU of memory for at least `shape`.

        Where that fails there is none, and the next call tries again.

        Raises:
            EdgesegError: Not enough memory.
        """
        if self._host is not None and self._host.array.shape != shape:
            self._free_host()
        self.shape = shape
        if self._mapped:
            if self._host is None:
                self._host = cuda.PinnedArray(shape, self.info.dtype, mapped=True)
            return self._host.address
        size = math.prod(shape) * np.dtype(self.info.dtype).itemsize
        if self._device is None or self._device.size < size:
            self._free_device()
            self._device = cuda.Buffer(size)
        return self._device.address

    def on_host(self) -> NDArray[Any]:
        """The page-locked array of this shape; made when it is first asked for.

        Raises:
            EdgesegError: Not enough memory.
        """
        if self._host is None:
            self._host = cuda.PinnedArray(self.shape, self.info.dtype, mapped=self._mapped)
        return self._host.array

    def taken(self) -> NDArray[Any]:
        """Copy the host's array for a caller, who gets float32 where the engine computes in half."""
        array = self.on_host()
        return array.astype(np.float32 if array.dtype == np.float16 else array.dtype)

    def on_device(self) -> cuda.Buffer:
        """The memory on the GPU.

        Raises:
            EdgesegError: There is none.
        """
        if self._device is None:
            raise EdgesegError("the session has no memory on the GPU; open it again")
        return self._device

    def upload(self, stream: cuda.Stream) -> None:
        """Start copying the host's array onto the GPU, where it does not lie there already."""
        if not self._mapped:
            self.on_device().write(self.on_host(), stream)

    def download(self, stream: cuda.Stream) -> None:
        """Start copying into the host's array, where it does not lie there already."""
        if not self._mapped:
            self.on_device().read(self.on_host(), stream)

    def close(self) -> None:
        """Free the memory; closing twice is harmless."""
        try:
            self._free_device()
        finally:
            self._free_host()

    def _free_device(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.close()

    def _free_host(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            host.close()
