"""The ``torch`` target: plain PyTorch in float32, the reference the other engines are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg._optional import require
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, InputError, TargetUnavailableError, UsageError
from edgeseg.postprocess import undo_resize
from edgeseg.runtimes._base import CLOSED, RuntimeOptions, SessionBase, SessionInfo, TensorInfo
from edgeseg.runtimes._fork import start_engine
from edgeseg.runtimes.torch import TORCH_WEIGHTS
from edgeseg.specs import InputSpec, Size
from edgeseg.text import one_line

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["TorchSession", "open_session"]


def open_session(bundle: Bundle, options: RuntimeOptions) -> TorchSession:
    """Rebuild a bundle's network in PyTorch.

    Only a registered network is built because a bundle names it. One of the user's own is code, which a bundle's word
    never runs: the user names it.

    Args:
        bundle: A bundle of any network.
        options: `device` (``cpu``, ``cuda``, ``cuda:1``), `threads`, `weights` and `network` are used. `weights` goes
            before the bundle's own. The number of threads is PyTorch's for the whole process.

    Raises:
        TargetUnavailableError: PyTorch is not installed, finds no such device, or was started before this process was
            forked; or the network is not a registered one and was not named.
        BundleError: No weights, or a registered network that cannot be built as the bundle says.
        CheckpointError: The weights do not fit the network.
    """
    require("torch", extra="export", why="the torch target")
    start_engine("PyTorch")  # its OpenMP threads hang a forked child that runs it too
    weights = _weights(bundle, options)
    device = _device(options.device)
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    manifest = bundle.manifest
    size = (None, None) if manifest.dynamic else manifest.input_size
    module = _named_network(options.network, weights) if options.network else _network(bundle, weights)
    take = str(manifest.facts.get("take", ""))
    resized = None if manifest.dynamic else (manifest.logit_size, manifest.postprocess.align_corners)
    return TorchSession(module, manifest.input, size, device=device, batch=manifest.batch, take=take, resized=resized)


def _weights(bundle: Bundle, options: RuntimeOptions) -> str:
    if options.weights is not None:
        return options.weights
    if not bundle.has(TORCH_WEIGHTS):
        raise BundleError(
            f"bundle '{bundle.path}' holds no PyTorch weights; export it again with --target torch, or give the "
            "checkpoint as weights"
        )
    return str(bundle.file(TORCH_WEIGHTS))


def _network(bundle: Bundle, weights: str) -> nn.Module:
    from edgeseg.models import create_model, list_models

    manifest = bundle.manifest
    if manifest.network not in list_models():
        raise TargetUnavailableError(
            f"the network '{one_line(manifest.network)}' of bundle '{one_line(bundle.path)}' is none of edgeseg's own, "
            "and code that a bundle names is not run; name it yourself with --network package.module:factory"
        )
    try:
        return create_model(manifest.network, num_classes=manifest.num_classes, weights=weights)
    except UsageError as error:
        raise BundleError(f"bundle '{one_line(bundle.path)}' cannot be rebuilt in PyTorch: {error}") from error


def _named_network(network: str, weights: str) -> nn.Module:
    from edgeseg.models.source import resolve_network

    return resolve_network(network, weights=weights).module


def _device(word: str | None) -> str:
    """PyTorch's name of the device, checked."""
    import torch

    name = (word or "cpu").lower()
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device '{word}' is none of PyTorch's; use cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TargetUnavailableError(
            f"PyTorch {torch.__version__} finds {torch.cuda.device_count()} GPUs, asked for {name}; use the device "
            "cpu, or install a PyTorch built for this machine's driver"
        )
    return name


class TorchSession(SessionBase):
    """A PyTorch module behind the seam: uint8 pictures in, logits out; calls wait for one another.

    Args:
        module: Takes normalised float images (N, C, H, W), returns logits (N, C, h, w); it is put in eval mode.
        spec: How pixels are normalised.
        size: Height x width of the input; None where free.
        device: PyTorch's name of the device.
        batch: Of the input; None where free.
        take: Path of the logits in what the module returns; empty where that is the logits alone.
        resized: Height x width of the logits that the bundle's graphs give, and the align_corners of the resize that
            the module does itself where it returns others; it is undone, so that every target goes on from the same.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: InputSpec,
        size: tuple[int | None, int | None],
        *,
        device: str = "cpu",
        batch: int | None = 1,
        take: str = "",
        resized: tuple[Size, bool] | None = None,
    ) -> None:
        import torch

        self._module: nn.Module | None = module.eval().to(device=device, dtype=torch.float32)
        self._spec, self._torch_device, self._take, self._resized = spec, device, take, resized
        self.inputs = (TensorInfo("image", (batch, *size, spec.image_channels), "uint8"),)
        self.outputs = (TensorInfo("logits", (batch, None, None, None), "float32"),)
        name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
        self.info = SessionInfo(
            target="torch",
            engine=f"torch {torch.__version__}",
            device=name,
            precision="fp32",
            threads=None if device.startswith("cuda") else torch.get_num_threads(),
        )

    @classmethod
    def from_module(cls, module: nn.Module, input_spec: InputSpec, size: Size | None = None) -> TorchSession:
        """A session around a module that is not in a bundle, on the CPU.

        Args:
            module: As in the class.
            input_spec: How pixels are normalised.
            size: Height x width; None leaves it free.
        """
        return cls(module, input_spec, size or (None, None), batch=None)

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        import torch

        from edgeseg.models.outputs import logits_at

        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            if self._module is None:
                raise InputError(CLOSED)
            pixels = torch.from_numpy(image).to(self._torch_device)
            logits = logits_at(self._module(normalise(pixels, self._spec)), self._take)
            values = np.array(logits.float().cpu().numpy())
        if self._resized is not None and values.shape[2:] != self._resized[0]:
            values = undo_resize(values, self._resized[0], align_corners=self._resized[1])
        return dict.fromkeys(names, values)

    def _free(self) -> None:
        self._module = None


def normalise(pixels: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """``(pixel - mean) / std * scale`` in float32, exactly in this order.

    Args:
        pixels: uint8 (N, H, W, `InputSpec.image_channels`).
        spec: Channel order, mean, std and scale.

    Returns:
        float32 (N, C, H, W) in the network's channel order.
    """
    import torch

    from edgeseg.models.grey import grey_of

    x = pixels.permute(0, 3, 1, 2).to(torch.float32)
    if spec.channel_order == "bgr":
        x = x.flip(1)
    if spec.channels == 1:
        x = grey_of(x)
    mean, std = (torch.tensor(v, dtype=torch.float32, device=x.device).view(1, -1, 1, 1) for v in (spec.mean, spec.std))
    return ((x - mean) / std * spec.scale).contiguous()
