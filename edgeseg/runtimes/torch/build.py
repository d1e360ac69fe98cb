"""Writing the weights that the ``torch`` target loads, at export."""

from __future__ import annotations

from edgeseg.files import storage_errors
from edgeseg.runtimes.engine import BuildRequest
from edgeseg.runtimes.torch import TORCH_WEIGHTS

__all__ = ["build"]


def build(request: BuildRequest) -> None:
    """Write the network's weights into ``torch/weights.safetensors``.

    Raises:
        StorageError: Writing failed.
    """
    from safetensors.torch import save

    file = request.folder / TORCH_WEIGHTS
    data = save({key: value.contiguous().clone() for key, value in request.network.state_dict().items()})
    with storage_errors(file):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
