"""Programs of TorchScript and of ``torch.export``: opened from their files, and in a form that the exporter takes.

A program is code, as a factory is: TorchScript's own operators run when its archive is opened, and what an exported
program holds beside its graph is read by PyTorch. Only files that the user names as the network are opened as programs;
a checkpoint never is.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgeseg.bundle import SUFFIX
from edgeseg.errors import CheckpointError, EdgesegError, UsageError
from edgeseg.models.checkpoints import open_checkpoint
from edgeseg.models.copying import copy_module
from edgeseg.specs import Size
from edgeseg.text import first_line, one_line

__all__ = ["Program", "is_program", "names_file", "open_program", "without_scripts"]

_CHECKPOINTS = (".bin", ".ckpt", ".onnx", ".pdparams", ".pkl", ".safetensors")
_FILES = frozenset((".jit", ".pt", ".pt2", ".pte", ".pth", ".torchscript", ".ts", SUFFIX, *_CHECKPOINTS))
"""Endings by which a word is the file of a network and not its name."""

_PROGRAMS = "a TorchScript archive (torch.jit.save) or an exported program (torch.export.save)"

_PLAIN_CONVOLUTION = "(%x, %w, %b, %stride, %padding, %dilation, %transposed, %out, %groups)"
_TRACED_CONVOLUTION = _PLAIN_CONVOLUTION[:-1] + ", %benchmark, %deterministic, %cudnn, %tf32)"


class Program(nn.Module):
    """An exported program as a module. It has no training mode: it stays as it was exported.

    Args:
        program: Takes images (N, C, H, W) alone, in float32.

    Attributes:
        shape: (N, C, H, W) that it takes; None where any will do.

    Raises:
        UsageError: It takes something else, a batch of several alone, or was exported in training mode.

    Shape:
        Float images (N, C, H, W) -> what the program returns.

    Example:
        >>> exported = torch.export.export(nn.Conv2d(3, 2, 1).eval(), (torch.zeros(1, 3, 32, 48),))
        >>> Program(exported).shape
        (1, 3, 32, 48)
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.shape = _only_shape(program)
        _check_inference(program)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.program = _on_cpu(program).module()
        self.training = self.program.training = False

    @property
    def size(self) -> Size | None:
        """Height x width, where both are fixed."""
        height, width = self.shape[2:]
        return None if height is None or width is None else (height, width)

    def train(self, mode: bool = True) -> Program:
        return self

    def forward(self, image: Tensor) -> Any:
        return self.program(image)

    def check_takes(self, name: str, size: Size, *, batch: int = 1, dynamic: bool = False) -> None:
        """Refuse images that the program was not exported for.

        Args:
            name: Of the program, for the message.
            size: Height x width.
            batch: Of the graph.
            dynamic: Whether height and width are to be free.

        Raises:
            UsageError: Says what it takes, and how to export it for more.
        """
        again = "export the program again with dynamic_shapes"
        fixed = " x ".join("any" if side is None else str(side) for side in self.shape[2:])
        if any(side not in (None, wanted) for side, wanted in zip(self.shape[2:], size, strict=True)):
            raise UsageError(
                f"{name} was exported for images of {fixed} (height x width) alone, and {size[0]}x{size[1]} was asked "
                f"for; give the --size it takes, or {again}"
            )
        if self.shape[0] not in (None, batch):
            raise UsageError(
                f"{name} was exported for a batch of {self.shape[0]} alone, and --fixed-batch {batch} was asked for; "
                f"leave it out, or {again}"
            )
        if dynamic and self.shape[2:] != (None, None):
            raise UsageError(f"{name} was exported for images of {fixed} alone; leave --dynamic out, or {again}")


def names_file(network: str) -> bool:
    """Whether a word for a network is the path of a file.

    Example:
        >>> names_file("runs/net.pt2"), names_file("regseg"), names_file("package.module:factory")
        (True, False, False)
    """
    path = Path(network)
    return path.suffix.lower() in _FILES or (os.sep in network and path.exists())


def is_program(module: nn.Module) -> bool:
    """Whether a module is, or holds, a program, which nothing folds and PyTorch's own rules copy.

    Example:
        >>> is_program(nn.ReLU()), is_program(nn.Sequential(torch.jit.script(nn.ReLU())))
        (False, True)
    """
    return any(isinstance(part, (Program, torch.jit.ScriptModule)) for part in module.modules())


def open_program(path: str | Path) -> nn.Module:
    """Open the file of a program on the CPU.

    Args:
        path: TorchScript archive or exported program, whatever its name. It is code, and must be trusted as such.

    Returns:
        A `torch.jit.ScriptModule` or a `Program`.

    Raises:
        UsageError: There is no such file, it holds weights alone, or its program takes no images.
        CheckpointError: It is damaged, of another kind, or of a PyTorch that writes it otherwise.

    Example:
        >>> torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(1, 3, 8, 8),)), "relu.pt2")
        >>> open_program("relu.pt2")(-torch.ones(1, 3, 8, 8)).sum()
        tensor(0.)
    """
    file, shown = Path(path), one_line(path)
    if not file.is_file():
        what = "is not there"
        if file.is_dir():
            what = "is a bundle, exported already" if file.suffix == SUFFIX else "is a folder"
        raise UsageError(f"'{shown}' {what}; give {_PROGRAMS}, a registered name or package.module:factory")
    names = _entries(file)
    if not names & {"constants.pkl", "archive_format", "serialized_exported_program.json"}:
        raise _no_program(file, shown)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if "constants.pkl" in names:
                script: nn.Module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
                return script
            program = torch.export.load(file)
    except Exception as error:  # whatever PyTorch says of a damaged file, or of operators it lacks
        raise CheckpointError(
            f"'{shown}' cannot be opened as a program ({first_line(error)}); save it again with the PyTorch that is "
            f"installed here ({torch.__version__})"
        ) from error
    return Program(program)


def without_scripts(module: nn.Module) -> nn.Module:
    """Put TorchScript in a form that ``torch.export`` records: frozen, its weights constants of its graph.

    Args:
        module: In eval mode; it is not changed.

    Returns:
        The module where it holds no TorchScript, else a copy that holds none.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return _Recorded(module)
    if not is_program(module):
        return module
    copied = copy_module(module)
    for part in [part for part in copied.modules() if not isinstance(part, torch.jit.ScriptModule)]:
        for name, child in list(part.named_children()):
            if isinstance(child, torch.jit.ScriptModule):
                part._modules[name] = _Recorded(child)
    return copied


class _Recorded(nn.Module):
    """TorchScript, hidden from what lists a module's parts: its parameters are none that an exporter knows.

    Shape:
        As the script's.
    """

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frozen = torch.jit.freeze(copy_module(script).eval(), optimize_numerics=False)
        torch._C._jit_pass_custom_pattern_based_rewrite_graph(
            _returning("aten::_convolution", _TRACED_CONVOLUTION, _TRACED_CONVOLUTION),
            _returning("aten::convolution", _TRACED_CONVOLUTION, _PLAIN_CONVOLUTION),
            frozen.graph,
        )
        vars(self)["script"] = frozen
        self.eval()

    def forward(self, *inputs: Any) -> Any:
        return vars(self)["script"](*inputs)


def _returning(operator: str, inputs: str, used: str) -> str:
    """A graph of TorchScript of one operator; a trace's convolution has arguments that no exporter knows."""
    return f"graph{inputs}:\n  %y : Tensor = {operator}{used}\n  return (%y)"


def _entries(file: Path) -> set[str]:
    """Last components of what an archive holds; nothing for what is none."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError):
        return set()


def _no_program(file: Path, shown: str) -> EdgesegError:
    """Say what a file is that was given as the network."""
    if file.suffix.lower() == ".onnx":
        return UsageError(f"'{shown}' is a graph already; give the network of PyTorch that it was made from")
    try:
        count = len(open_checkpoint(file).state)
    except CheckpointError as error:
        return CheckpointError(f"'{shown}' is not {_PROGRAMS}: {error}")
    return UsageError(
        f"'{shown}' holds {count} tensors and no program; give the network's name or package.module:factory, and the "
        "file as the weights (--weights)"
    )


def _only_shape(program: ExportedProgram) -> tuple[int | None, ...]:
    """Shape of the one input of a program, None for sides that are free."""
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    if len(values) != 1 or not isinstance(values[0], Tensor) or values[0].ndim != 4:
        shapes = [tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__ for value in values]
        raise UsageError(f"the program takes {shapes}; expected images (N, channels, height, width) alone")
    image = values[0]
    if image.dtype is not torch.float32:
        kind = str(image.dtype).removeprefix("torch.")
        raise UsageError(f"the program takes {kind} images; export it again for float32, normalised images")
    sides: tuple[object, ...] = tuple(image.shape)  # SymInt where a side is free
    shape = tuple(side if isinstance(side, int) else None for side in sides)
    if shape[0] not in (None, 1):
        raise UsageError(
            f"the program takes a batch of {shape[0]} alone; export it again for one image, or with dynamic_shapes"
        )
    return shape


def _check_inference(program: ExportedProgram) -> None:
    """Refuse a program whose dropout or batch norm is the one of training."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema is not None else []
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        if given.get("training", given.get("train")) is True:
            raise UsageError(
                f"the program was exported in training mode ({node.target}); call eval() before torch.export.export"
            )


def _on_cpu(program: ExportedProgram) -> ExportedProgram:
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, "cpu")
