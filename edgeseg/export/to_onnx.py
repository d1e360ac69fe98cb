"""From a module to a clean ONNX graph: torch.export, onnxsim, and the limits the devices set."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from torch import nn

from edgeseg.errors import ExportError, StorageError
from edgeseg.export.user_code import refusal
from edgeseg.files import scratch_folder
from edgeseg.specs import Size
from edgeseg.text import first_line

__all__ = ["IR_VERSION", "OPSET", "check_limits", "export_onnx", "first_reason", "quiet", "simplify"]

OPSET = 18
"""Newest opset that ONNX Runtime's CUDA provider resizes on the GPU, and JetPack 6's ONNX Runtime reads."""

IR_VERSION = 10
"""Newest IR version that ONNX Runtime 1.23, the last for JetPack 6, reads."""

_LIMIT = 2_000_000_000
"""Bytes a single ONNX file may hold (protobuf's limit)."""


def export_onnx(
    network: nn.Module, size: Size, *, batch: int = 1, dynamic: bool = False, divisor: int = 1, channels: int = 3
) -> onnx.ModelProto:
    """Export a deployed network (`DeployNetwork`) to ONNX.

    Args:
        network: uint8 (N, H, W, `channels`) in, logits out.
        size: Height x width of the graph, or the example's where `dynamic`.
        batch: Fixed batch.
        dynamic: Leave height and width free, as multiples of `divisor`.
        divisor: See `dynamic`.
        channels: Of the graph's input.

    Raises:
        ExportError: torch.export or its ONNX translation failed; quotes the first line of why.
        StorageError: No folder for temporary files can be written.
    """
    example = torch.zeros((batch, *size, channels), dtype=torch.uint8)
    shapes = ({1: _free("height", divisor), 2: _free("width", divisor)},) if dynamic else None
    try:
        with quiet(), _compiler_cache(), _no_prints(), torch.inference_mode():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=shapes,
                verbose=False,
            )
    except StorageError:
        raise
    except Exception as error:
        kind = "with free height and width" if dynamic else f"at {size[0]}x{size[1]}"
        raise ExportError(f"torch.onnx.export failed {kind}: {_why(error, dynamic=dynamic)}") from error
    if program is None:
        raise ExportError("torch.onnx.export returned no program")
    model: onnx.ModelProto = program.model_proto
    _check_runnable(model)
    return model


def _check_runnable(model: onnx.ModelProto) -> None:
    """Refuse what the translation takes and the engines do not: branches, and arithmetic in bfloat16.

    Raises:
        ExportError: Says what of the module makes it.
    """
    if any(node.op_type == "If" for node in model.graph.node):
        raise ExportError(
            "the network branches in its graph (torch.cond), which no engine promises; compute both sides and choose "
            "with torch.where, or leave one of them"
        )
    casts = (attribute.i for node in model.graph.node if node.op_type == "Cast" for attribute in node.attribute)
    if onnx.TensorProto.BFLOAT16 in casts:
        raise ExportError(
            "the network computes in bfloat16 (torch.autocast, or a cast in its forward), which no engine takes from a "
            "graph; leave the cast out of its forward, and choose a --precision"
        )


def _why(error: Exception, *, dynamic: bool) -> str:
    """Why the exporter refused, at which line of the user's, and what to do."""
    told = refusal(error)
    if told is not None:
        return f"{told} (at a fixed --size too)" if dynamic else told
    advice = "export a fixed --size instead" if dynamic else "see the chained error for the module to change"
    return f"{first_reason(error)}; {advice}"


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constant-fold and simplify with onnxsim.

    Raises:
        ExportError: onnxsim failed, or its own check found other numbers.
    """
    import onnxsim

    if model.ByteSize() > _LIMIT:
        raise ExportError(f"the graph is {model.ByteSize() / 1e9:.1f} GB; a single ONNX file holds at most 2 GB")
    try:
        simplified, same = onnxsim.simplify(model)
    except Exception as error:
        raise ExportError(f"onnxsim failed: {first_reason(error)}") from error
    if not same:
        raise ExportError("onnxsim changed the numbers of the graph; report the network")
    result: onnx.ModelProto = simplified
    return result


def check_limits(model: onnx.ModelProto) -> None:
    """Check a graph against what the devices read; lowers the IR version where that is only a number.

    Raises:
        ExportError: A newer opset, a foreign domain, or a graph the ONNX checker refuses.
    """
    model.ir_version = min(model.ir_version, IR_VERSION)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > OPSET:
            raise ExportError(f"the graph has opset {entry.version}; the devices read up to {OPSET}")
    foreign = sorted({node.domain for node in model.graph.node if node.domain not in ("", "ai.onnx")})
    if foreign:
        raise ExportError(f"the graph holds operators of the domains {', '.join(foreign)}, which no engine promises")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the exported graph is not valid ONNX: {first_reason(error)}") from error


def _free(name: str, divisor: int) -> Any:
    dim = torch.export.Dim(name, min=2)
    return divisor * dim if divisor > 1 else dim


def first_reason(error: BaseException) -> str:
    """`first_line` of the error that was there first."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return first_line(cause)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's notices (torchvision is not installed, deprecations, half a graph) from the user's terminal.

    A user who set PyTorch's own variable for its logs sees them.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if "TORCH_LOGS" not in os.environ:
            stack.enter_context(_silent_loggers())
        yield


@contextlib.contextmanager
def _no_prints() -> Iterator[None]:
    """Keep the exporter from printing the graph so far before it raises.

    Its module is imported here and not before: PyTorch's compiler, which comes with it, makes its cache folder then.
    """
    from torch.export import _trace

    _trace.print = _print_nothing  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del _trace.print  # type: ignore[attr-defined]


def _print_nothing(*_values: object, **_how: object) -> None:
    """Print nothing."""


@contextlib.contextmanager
def _silent_loggers() -> Iterator[None]:
    """Take the handlers that write from PyTorch's loggers; one that has none at all would write all the same."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "torch"]
    loggers = {logging.getLogger(name) for name in ("torch", *names)}
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        silent = [handler for handler in logger.handlers if not isinstance(handler, logging.StreamHandler)]
        logger.handlers = [*silent, logging.NullHandler()]
        logger.propagate = False
    try:
        yield
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate


@contextlib.contextmanager
def _compiler_cache(variable: str = "TORCHINDUCTOR_CACHE_DIR") -> Iterator[None]:
    """Give PyTorch's compiler, which makes a cache folder and keeps nothing in it, one that vanishes."""
    if variable in os.environ:
        yield
        return
    with scratch_folder("edgeseg-torch") as folder:
        os.environ[variable] = str(folder)
        try:
            yield
        finally:
            os.environ.pop(variable, None)
