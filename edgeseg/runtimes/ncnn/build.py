"""Writing ncnn's files of a bundle at export: torch.export, TorchScript, pnnx.

pnnx reads the module and not the ONNX graph: its ONNX reader got PIDNet silently wrong. The module goes through
torch.export first, which leaves no submodule that is used twice: pnnx makes the weights of such convolutions inputs,
and ncnn cannot load them. What of its operators pnnx or ncnn lacks is written with others (`passes`).
"""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeseg._optional import require
from edgeseg._signals import report_process
from edgeseg.errors import EdgesegError, ExportError
from edgeseg.files import scratch_folder, storage_errors
from edgeseg.manifest import Manifest
from edgeseg.runtimes.engine import BuildRequest
from edgeseg.runtimes.ncnn import NCNN_MODEL, NCNN_WEIGHTS, OUTPUT
from edgeseg.runtimes.ncnn.param import Layer, marked, read_layers, without_last_resize, write_layers
from edgeseg.runtimes.ncnn.session import load_net, run_net
from edgeseg.text import first_line, one_line

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build"]


def build(request: BuildRequest) -> None:
    """Convert the network into ``ncnn/model.param`` and ``ncnn/model.bin``.

    Raises:
        TargetUnavailableError: ncnn or pnnx is not installed.
        ExportError: The network cannot be converted; names the operator where one is the reason.
        StorageError: Writing failed.
    """
    manifest = request.manifest
    with scratch_folder("edgeseg-ncnn") as scratch:
        text, weights = _converted(request.folded, manifest, scratch)
        layers = _fitting(_read(text), weights, manifest, scratch)
    model = request.folder / NCNN_MODEL
    with storage_errors(model):
        model.parent.mkdir(exist_ok=True)
        model.write_text(write_layers(marked(layers, manifest.contract())), encoding="utf-8")
        (request.folder / NCNN_WEIGHTS).write_bytes(weights)


def _converted(network: nn.Module, manifest: Manifest, scratch: Path) -> tuple[str, bytes]:
    """Text of ncnn's graph and its weights, as pnnx makes them."""
    shape = (1, manifest.input.channels, *manifest.input_size)
    _save_traced(network, shape, scratch / "m.pt")
    pnnx = require("pnnx", extra="ncnn-export", why="exporting for the ncnn target")
    command = [pnnx.EXEC_PATH, "m.pt", f"inputshape=[{','.join(map(str, shape))}]", "fp16=0"]
    code, said = _run(command, scratch)
    param, values = scratch / "m.ncnn.param", scratch / "m.ncnn.bin"
    if code or not param.is_file() or not values.is_file():  # it mostly ends with 0 whatever happened
        why = f"it ended with {code}" + (f" after '{one_line(said[-1])}'" if said else "")
        raise ExportError(f"pnnx made no ncnn graph ({why}); leave the target ncnn out")
    with storage_errors(scratch):
        return param.read_text(encoding="utf-8"), values.read_bytes()


def _run(command: Sequence[str], folder: Path) -> tuple[int, list[str]]:
    """Run a program in a folder; returns its exit code and the lines it wrote."""
    with storage_errors(Path(command[0])):
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    with process:
        report_process("+", process.pid)
        try:
            said = process.communicate()[0]
        except BaseException:
            process.kill()
            raise
        finally:
            report_process("-", process.pid)
    return process.returncode, said.decode("utf-8", "replace").strip().splitlines()


def _save_traced(network: nn.Module, shape: tuple[int, ...], file: Path) -> None:
    import torch

    from edgeseg.runtimes.ncnn.passes import write_for_ncnn

    example = torch.zeros(shape)
    with storage_errors(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing; what matters is an error
        try:
            with torch.no_grad():
                program = torch.export.export(network, (example,)).module()
                write_for_ncnn(program)
                traced = torch.jit.trace(program, example, check_trace=False)  # type: ignore[no-untyped-call]
        except EdgesegError:
            raise
        except Exception as error:  # torch.export's errors share no base class
            raise ExportError(
                f"the network cannot be traced for ncnn ({first_line(error)}); leave the target ncnn out"
            ) from error
        torch.jit.save(traced, str(file))


def _read(text: str) -> tuple[Layer, ...]:
    """Read pnnx's graph, and refuse what ncnn has no layer for.

    pnnx writes operators that it cannot convert under PyTorch's names.
    """
    ncnn = require("ncnn", extra="ncnn-export", why="the ncnn target")
    try:
        layers = read_layers(text)
    except ValueError as error:
        raise ExportError(f"pnnx wrote a graph that cannot be read ({error}); leave the target ncnn out") from error
    foreign = sorted({layer.kind for layer in layers if ncnn.layer_to_index(layer.kind) < 0})
    if foreign:
        raise ExportError(f"ncnn has no layer for {', '.join(map(one_line, foreign))}; leave the target ncnn out")
    return layers


def _fitting(layers: Sequence[Layer], weights: bytes, manifest: Manifest, scratch: Path) -> Sequence[Layer]:
    """The graph that gives logits of the manifest's size: without the last resize where the export peeled it off."""
    peeled = without_last_resize(layers, OUTPUT, align_corners=manifest.postprocess.align_corners)
    wanted = (manifest.num_classes, *manifest.logit_size)
    found = []
    for form in (layers, peeled):
        if form is not None:
            found.append(_shape(form, weights, manifest, scratch))
            if found[-1] == wanted:
                return form
    given = " or ".join("x".join(map(str, shape)) for shape in found)
    raise ExportError(
        f"ncnn's graph gives logits {given}, expected {'x'.join(map(str, wanted))}; leave the target ncnn out"
    )


def _shape(layers: Sequence[Layer], weights: bytes, manifest: Manifest, scratch: Path) -> tuple[int, ...]:
    """Shape of what comes out of a graph, by running it: pnnx and ncnn tell nothing of a graph that fails."""
    ncnn = require("ncnn", extra="ncnn-export", why="the ncnn target")
    model, values = scratch / "trial.param", scratch / "trial.bin"
    with storage_errors(scratch):
        model.write_text(write_layers(layers), encoding="utf-8")
        values.write_bytes(weights)
    planes = np.zeros((manifest.input.channels, *manifest.input_size), np.float32)
    try:
        return run_net(ncnn, load_net(ncnn, model, values), planes).shape
    except EdgesegError as error:
        why = str(error).partition(";")[0]
        raise ExportError(f"ncnn does not run the graph that pnnx made ({why}); leave the target ncnn out") from error
