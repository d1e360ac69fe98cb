"""Writing the weights that the ``torch`` target loads, at export."""

from __future__ import annotations

from edgeseg.errors import UsageError
from edgeseg.files import storage_errors
from edgeseg.runtimes.engine import BuildRequest
from edgeseg.runtimes.torch import TORCH_WEIGHTS

__all__ = ["build"]


def build(request: BuildRequest) -> None:
    """Write the network's weights into ``torch/weights.safetensors``.

    Raises:
        UsageError: The network has no weights that could be loaded into it again.
        StorageError: Writing failed.
    """
    from safetensors.torch import save

    file = request.folder / TORCH_WEIGHTS
    state = {key: value.contiguous().clone() for key, value in request.network.state_dict().items()}
    if not state:
        raise UsageError(
            "the torch target keeps the network's weights in a file, and this network has none beside its code (a "
            "frozen TorchScript, or no parameters); leave the target torch out"
        )
    data = save(state)
    with storage_errors(file):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
