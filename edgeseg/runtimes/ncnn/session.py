"""The ``ncnn`` target: ``ncnn/model.param`` on the CPU.

ncnn rounds to half precision by default wherever the CPU has it; here all of that is switched off unless the user asks
for it, so that the masks are those of PyTorch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg._optional import require
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, EdgesegError, InputError, TargetUnavailableError, UnknownNameError, UsageError
from edgeseg.manifest import Manifest
from edgeseg.runtimes._base import CLOSED, RuntimeOptions, SessionBase, SessionInfo, TensorInfo
from edgeseg.runtimes._fork import start_engine
from edgeseg.runtimes.ncnn import INPUT, NCNN_MODEL, NCNN_WEIGHTS, OUTPUT
from edgeseg.runtimes.ncnn.planes import Planes

__all__ = ["NcnnSession", "load_net", "open_session", "run_net"]

_HALF = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic")
_ROUNDING = (*_HALF, "use_bf16_packed", "use_bf16_storage")
"""Options of ncnn that make it compute with less than fp32."""

_PRECISIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "f32": ("fp32", ()),
    "f16-storage": ("fp16 storage", _HALF[:2]),
    "f16": ("fp16", _HALF),
}
"""Word -> what is told of it, and the options that it switches on."""

_NO_BF16 = (
    "ncnn's bf16 gives infinities or garbage on some networks (SINet, RegSeg) and is not offered; leave precision out, "
    "or use f16-storage on Arm"
)


def open_session(bundle: Bundle, options: RuntimeOptions) -> NcnnSession:
    """Load ``ncnn/model.param`` of a bundle.

    Args:
        bundle: A bundle exported for ``ncnn``.
        options: `threads`, and `precision` (``f32``; on Arm also ``f16-storage`` and ``f16``).

    Raises:
        TargetUnavailableError: ncnn is not installed, started before this process was forked, or its CPU has no half
            precision.
        BundleError: The bundle was not exported for ncnn, or its graph cannot be read.
        UnknownNameError: A precision that ncnn does not have.
        UsageError: bf16.
    """
    ncnn = require("ncnn", extra="ncnn", why="the ncnn target")
    word = _precision(ncnn, options.precision)
    model, weights = bundle.file(NCNN_MODEL), bundle.file(NCNN_WEIGHTS)
    net = load_net(ncnn, model, weights, on=_PRECISIONS[word][1], threads=options.threads)
    return NcnnSession(net, bundle.manifest, word)


def _precision(ncnn: Any, asked: str | None) -> str:
    """The precision's word, checked against what ncnn computes in on this CPU."""
    word = (asked or "f32").lower()
    if word in ("bf16", "bf16-storage"):
        raise UsageError(_NO_BF16)
    if word not in _PRECISIONS:
        raise UnknownNameError("ncnn precision", asked or "", _PRECISIONS)
    has = {"f32": True, "f16-storage": ncnn.cpu_support_arm_vfpv4(), "f16": ncnn.cpu_support_arm_asimdhp()}
    if not has[word]:
        raise TargetUnavailableError(
            f"ncnn does not compute in {word} on this CPU, which needs an Arm CPU with half precision; leave precision "
            "out, and it computes in f32"
        )
    return word


def load_net(ncnn: Any, model: Path, weights: Path, *, on: tuple[str, ...] = (), threads: int | None = None) -> Any:
    """Load a graph into an ``ncnn.Net`` that computes in exact fp32, but for what is switched on.

    Args:
        ncnn: The module.
        model: The ``.param`` file.
        weights: The ``.bin`` file.
        on: Options that make it round, as ncnn calls them.
        threads: Of the engine; None is ncnn's default.

    Raises:
        TargetUnavailableError: ncnn was started before this process was forked.
        BundleError: ncnn does not read the files.
    """
    start_engine("ncnn")  # its OpenMP threads hang a forked child that runs it too
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    for option in _ROUNDING:
        setattr(net.opt, option, option in on)
    if threads is not None:
        net.opt.num_threads = threads
    for load, file in ((net.load_param, model), (net.load_model, weights)):
        if load(str(file)) != 0:
            raise BundleError(f"ncnn cannot read '{file}'; copy or export the bundle again")
    return net


def run_net(ncnn: Any, net: Any, planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a graph on one picture.

    Args:
        ncnn: The module.
        net: Of `load_net`.
        planes: float32 (C, H, W), C-contiguous.

    Returns:
        float32 (classes, h, w), the caller's own; 1x1 where the graph gives a number per class.

    Raises:
        EdgesegError: ncnn failed; it tells no reason but on standard error.
    """
    extractor = net.create_extractor()
    image = ncnn.Mat(planes)  # it does not hold the array, which lives in this call until the answer is there
    if extractor.input(INPUT, image) != 0:
        raise EdgesegError(f"ncnn failed to run the graph: it has no input {INPUT}; export the bundle again")
    failed, logits = extractor.extract(OUTPUT)
    if failed != 0 or logits.empty():
        raise EdgesegError(f"ncnn failed to run the graph (code {failed}), for want of memory or of a layer")
    values = np.array(logits)
    return values.reshape(values.shape + (1,) * (3 - values.ndim))


class NcnnSession(SessionBase):
    """A graph in ncnn; pictures of a batch run one after another, and calls wait for one another.

    Args:
        net: Of `load_net`.
        manifest: Of the bundle.
        precision: A word of `open_session`'s `precision`.
    """

    def __init__(self, net: Any, manifest: Manifest, precision: str) -> None:
        self._ncnn = require("ncnn", extra="ncnn", why="the ncnn target")
        self._net = net
        self._planes = Planes(manifest.input)
        self._shape = (manifest.num_classes, *manifest.logit_size)
        image = (manifest.batch, *manifest.input_size, manifest.input.image_channels)
        self.inputs = (TensorInfo("image", image, "uint8"),)
        self.outputs = (TensorInfo("logits", (manifest.batch, *self._shape), "float32"),)
        self.info = SessionInfo(
            target="ncnn",
            engine=f"ncnn {self._ncnn.__version__}",
            device="CPU",
            precision=_PRECISIONS[precision][0],
            threads=int(net.opt.num_threads),
        )

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        logits = np.empty((len(image), *self._shape), np.float32)
        for row, picture in zip(logits, image, strict=True):
            if self._net is None:
                raise InputError(CLOSED)
            values = run_net(self._ncnn, self._net, self._planes(picture))
            if values.shape != self._shape:
                raise EdgesegError(f"ncnn gave logits {values.shape}, expected {self._shape}; export the bundle again")
            row[:] = values
        return dict.fromkeys(names, logits)

    def _free(self) -> None:
        self._net = None
