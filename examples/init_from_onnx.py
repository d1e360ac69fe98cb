"""Start weights for pphumanseg_lite from an ONNX file whose batch norms are folded and whose tensors have no names.

    python examples/init_from_onnx.py --onnx portrait.onnx --data people --out runs/init.safetensors

PaddleSeg publishes PP-HumanSeg Lite this way. The convolutions are taken in the order in which they run. Each batch
norm gets the mean and variance that its input has on some photographs, and a scale and shift that undo them. The
network computes the same as the file, and can be trained on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeseg.images import read_image
from edgeseg.models import create_model, model_spec
from edgeseg.models.families.pphumanseg import PPHumanSegLite

PHOTOS = 256


def blocks_in_order(network: nn.Module) -> list[nn.Module]:
    """List the pairs of convolution and batch norm that run, in the order in which they run."""
    order: list[nn.Module] = []
    pairs = [part for part in network.modules() if hasattr(part, "_conv") and hasattr(part, "_batch_norm")]
    hooks = [pair.register_forward_hook(lambda module, _args, _output: order.append(module)) for pair in pairs]
    with torch.inference_mode():
        network(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return order


def put_folded(blocks: list[nn.Module], file: Path) -> None:
    """Load the file's folded convolutions: weight into the convolution, bias into an otherwise neutral batch norm."""
    graph = onnx.load(file).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = sorted((n for n in graph.node if n.op_type == "Conv"), key=lambda n: int(n.name.split("_")[1]))
    for block, node in zip(blocks, nodes, strict=True):
        conv, norm = block.get_submodule("_conv"), block.get_submodule("_batch_norm")
        conv.load_state_dict({"weight": torch.from_numpy(arrays[node.input[1]].copy())})
        bias = torch.from_numpy(arrays[node.input[2]].copy())
        set_norm(norm, mean=torch.zeros_like(bias), var=torch.ones_like(bias) - 1e-5, shift=bias)


def set_norm(norm: nn.Module, *, mean: Tensor, var: Tensor, shift: Tensor) -> None:
    """Set a batch norm's statistics, and the scale and shift with which it only adds `shift`."""
    state: dict[str, Tensor] = {"weight": torch.sqrt(var + 1e-5), "bias": shift + mean}
    norm.load_state_dict({**state, "running_mean": mean, "running_var": var}, strict=False)


def calibrate(network: nn.Module, blocks: list[nn.Module], batches: list[Tensor]) -> None:
    """Set the statistics of every batch norm to those of its input, without changing what the network computes."""
    sums: dict[nn.Module, list[Tensor]] = {}

    def gather(norm: nn.Module, args: Any, _output: Tensor) -> None:
        x = args[0].double()
        parts = [x.sum((0, 2, 3)), (x * x).sum((0, 2, 3)), torch.tensor(float(x.numel() / x.shape[1]))]
        sums[norm] = [a + b for a, b in zip(sums[norm], parts, strict=True)] if norm in sums else parts

    norms = [block.get_submodule("_batch_norm") for block in blocks]
    hooks = [norm.register_forward_hook(gather) for norm in norms]
    with torch.inference_mode():
        for batch in batches:
            network(batch)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        total, squares, count = sums[norm]
        mean = total / count
        var = (squares / count - mean * mean).clamp_min(1e-6)
        set_norm(norm, mean=mean.float(), var=var.float(), shift=norm.get_parameter("bias").detach().clone())


def photographs(folder: Path, count: int = PHOTOS) -> list[Tensor]:
    """Load batches of 16 normalised photographs at 192x192."""
    spec = model_spec("pphumanseg_lite")
    names = (folder / "train.txt").read_text(encoding="utf-8").split()[:count]
    images = [cv2.resize(read_image(folder / "images" / f"{name}.jpg"), (192, 192)) for name in names]
    x = (np.stack(images).astype(np.float32) - np.array(spec.input.mean)) / np.array(spec.input.std)
    inputs = torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2)
    return [inputs[start : start + 16] for start in range(0, len(names), 16)]


def main(arguments: list[str] | None = None) -> int:
    """Convert, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with images and train.txt")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    options = parser.parse_args(arguments)
    network = create_model("pphumanseg_lite", num_classes=2)
    if not isinstance(network, PPHumanSegLite):
        raise TypeError(type(network).__name__)
    blocks = blocks_in_order(network)
    put_folded(blocks, options.onnx)
    calibrate(network, blocks, photographs(options.data))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, options.out)
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
