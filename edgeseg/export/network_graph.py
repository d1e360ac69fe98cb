"""From a module to the ONNX graph of the network in fp32: fold, export, simplify, rewrite."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from edgeseg.errors import ExportError, UsageError
from edgeseg.export.deploy import DeployNetwork
from edgeseg.export.fusion import FusionReport, fuse
from edgeseg.export.job import ExportJob, noise
from edgeseg.export.passes import ROUNDS, default_passes
from edgeseg.export.reference import edge_pictures
from edgeseg.export.steps import step
from edgeseg.export.to_onnx import check_limits, export_onnx, first_reason, simplify
from edgeseg.export.user_code import SizeDecision, listed, recorded_size_decisions
from edgeseg.graph.passes import PassReport, run_passes
from edgeseg.graph.passes._base import Exact
from edgeseg.graph.passes.peel import peel_trailing_resize
from edgeseg.graph.run import run_graph
from edgeseg.models.copying import copy_module
from edgeseg.models.outputs import logits_at
from edgeseg.models.programs import is_program, without_scripts
from edgeseg.specs import Size

__all__ = ["NetworkGraph", "exact_logits", "network_graph"]

_FUSION_SIZE = (128, 192)
"""Largest height x width at which folding is checked: it does not depend on the size, and float64 takes long."""

_NOT_FOLDED = "the module cannot be copied, so its batch norms were left to the exporter"

_SAME_BRANCH = 1e-3
"""Largest mean difference of a graph's logits from PyTorch's, relative to their range, that rounding may explain."""

_MOST_NUMBERS = 3
"""Numbers in decisions by the size that are tried."""

_PEELED = "the network's last resize was peeled off; the exact postprocessing does it"


@dataclass(frozen=True)
class NetworkGraph:
    """A network's graph in fp32.

    Attributes:
        model: uint8 (N, H, W, channels) in, float logits (N, C, h, w) out.
        job: The job; its postprocessing is other than it was where the network's last resize was peeled off.
        folded: The module that the graph was made of, which returns the logits alone.
        fusion: What was folded on the module; None where nothing was to be.
        passes: One report per pass.
        notes: Sentences the user must see.
    """

    model: onnx.ModelProto
    job: ExportJob
    folded: nn.Module
    fusion: FusionReport | None = None
    passes: tuple[PassReport, ...] = ()
    notes: tuple[str, ...] = ()


def network_graph(job: ExportJob) -> NetworkGraph:
    """Make the fp32 graph of a job's network.

    Raises:
        ExportError: It cannot be exported, or is right at one size only where height and width are to be free.
        UnknownNameError: A pass to skip that does not exist.
    """
    passes = default_passes(rewrites=job.config.rewrites, skip=job.config.skip_passes)
    module, fusion = _folded(job)
    with recorded_size_decisions() as decisions:
        model = _exported(module, job)
    told: tuple[str, ...] = ()
    if not job.source.registered:
        with step("checking what branches may have left out"):
            told = _other_branches(model, job)
    peeled = None if job.config.dynamic else peel_trailing_resize(model, job.size)
    if peeled is not None:
        model, align_corners = peeled
        job = job.with_postprocess(replace(job.spec.postprocess, align_corners=align_corners))
    with step("rewriting"):
        model, reports = run_passes(model, passes, {"image": job.noise}, rounds=ROUNDS, exact=exact_logits(job))
    check_limits(model)
    if job.config.dynamic:
        with step("checking another size"):
            for size in _other_sizes(job, decisions):
                _check_another_size(model, job, size, decisions)
    unfolded = job.config.fuse and fusion is None and not is_program(job.source.module)
    notes = (_PEELED,) * (peeled is not None) + (_NOT_FOLDED,) * unfolded + told
    return NetworkGraph(model, job, module, fusion, tuple(reports), notes)


def exact_logits(job: ExportJob) -> Exact:
    """A function that gives the logits of the job's noise in float64, computed once and only where they are needed.

    It gives None where the module does not run in float64.
    """
    return functools.cache(lambda: _in_float64(job))


def _in_float64(job: ExportJob) -> NDArray[np.float64] | None:
    try:
        network = copy_module(job.source.module).double()
    except UsageError:  # a factory's module that cannot be copied
        return None
    normalise = DeployNetwork(network, job.spec.input).normalise
    try:
        with torch.inference_mode():
            logits = logits_at(network(normalise(torch.from_numpy(job.noise)).double()), job.take)
    except Exception:  # a module of the user's own may make float32 constants
        return None
    return np.asarray(logits, np.float64)


def _folded(job: ExportJob) -> tuple[nn.Module, FusionReport | None]:
    """The module with its batch norms and branches folded, where that is asked for."""
    network = _Logits(job.source.module, job.take)
    if not job.config.fuse or is_program(network):
        return without_scripts(network), None
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(1, job.spec.input.channels, *_fusion_size(job), generator=generator)
    with step("folding batch norms"):
        return _fused_or_as_is(network, probe)


def _fused_or_as_is(network: nn.Module, probe: torch.Tensor) -> tuple[nn.Module, FusionReport | None]:
    """Fold a copy of the network; one that cannot be copied (a factory's) is exported as it is."""
    try:
        copy_module(network)
    except UsageError:
        return network, None
    return fuse(network, probe)


def _fusion_size(job: ExportJob) -> Size:
    """A small size that the network takes."""
    divisor = job.spec.divisor
    if ":" in job.source.origin or divisor == 1:
        return job.size
    height, width = (
        min(side, max(divisor, most // divisor * divisor)) for side, most in zip(job.size, _FUSION_SIZE, strict=True)
    )
    return height, width


class _Logits(nn.Module):
    """A module that returns logits only."""

    def __init__(self, network: nn.Module, take: str) -> None:
        super().__init__()
        self.network, self.take = network, take

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return logits_at(self.network(image), self.take)


def _exported(module: nn.Module, job: ExportJob) -> onnx.ModelProto:
    deployed = DeployNetwork(module, job.spec.input).eval()
    channels, dynamic = job.spec.input.image_channels, job.config.dynamic
    with step("exporting to ONNX"):
        exported = export_onnx(
            deployed, job.size, batch=job.batch, dynamic=dynamic, divisor=job.spec.divisor, channels=channels
        )
    with step("simplifying"):
        return simplify(exported)


def _other_branches(model: onnx.ModelProto, job: ExportJob) -> tuple[str, ...]:
    """Compare the graph with PyTorch on pictures that take other branches: a graph may hold one side of each alone.

    Returns:
        A sentence where it differs, and the network was not seen to decide by values: ties of a picture of one colour
        may fall otherwise too.

    Raises:
        ExportError: It differs on one of them, and the network decides by values.
    """
    pictures = edge_pictures(job.size, job.spec.input.image_channels)
    if not job.readings:  # the proof has the others
        pictures = dict(list(pictures.items())[:2])
    wanted = {name: _in_pytorch(job, np.stack([image] * job.batch)) for name, image in pictures.items()}
    span = float(max(x.max() for x in wanted.values()) - min(x.min() for x in wanted.values()))
    for name, image in pictures.items():
        got = run_graph(model, {"image": np.stack([image] * job.batch)})[0]
        error = float(np.abs(got - wanted[name]).mean()) if got.shape == wanted[name].shape else np.inf
        if error <= _SAME_BRANCH * span:
            continue
        differs = f"the exported graph gives other logits than PyTorch on {name}"
        if not job.readings:
            return (f"{differs}: check that {job.source.origin} computes all pictures alike, without state",)
        raise ExportError(
            f"{differs}, since {job.source.origin} decides by the values of a tensor, at {listed(job.readings)}, and a "
            "graph takes no branches; compute both sides and choose with torch.where, or leave one of them"
        )
    return ()


def _in_pytorch(job: ExportJob, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: NDArray[np.float32] = job.reference(torch.from_numpy(image)).numpy()
    return logits


def _other_sizes(job: ExportJob, decisions: Sequence[SizeDecision]) -> list[Size]:
    """Sizes to try a graph of free height and width at: larger, half, and on the other side of numbers in its code."""
    divisor, smallest = job.spec.divisor, max(job.spec.min_side, job.spec.divisor)
    multiple = -(-32 // divisor) * divisor
    sizes = [(job.size[0] + multiple, job.size[1] + 2 * multiple)]
    height, width = (max(smallest, side // 2 // divisor * divisor) for side in job.size)
    sizes.append((height, width))
    numbers = sorted({number for decision in decisions for number in decision.numbers if number > smallest})
    for number in numbers[:_MOST_NUMBERS]:
        side = number // divisor * divisor
        sizes += [(side, side), (side + divisor, side + divisor)]
    return list(dict.fromkeys(sizes))


def _fixed(model: onnx.ModelProto, error: Exception) -> str:
    """Why a graph fails at another size than its example's."""
    sides = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3]]
    return f"the exporter could not leave {sides[0]}x{sides[1]} free" if all(sides) else first_reason(error)


def _check_another_size(model: onnx.ModelProto, job: ExportJob, size: Size, decisions: Sequence[SizeDecision]) -> None:
    """Compare the graph with PyTorch at another size: sizes that a module computes with in Python stay in the graph.

    A smaller size that the network does not take itself says nothing.

    Raises:
        ExportError: The graph works at some sizes only.
    """
    image = noise((job.batch, *size, job.spec.input.image_channels))
    lines = listed(decision.line for decision in decisions)
    why = f" ({job.source.origin} decides by its picture's size at {lines})" if decisions else ""
    advice = f"export {job.source.origin} at a fixed --size instead"
    shown = f"{size[0]}x{size[1]}"
    try:
        wanted = _in_pytorch(job, image)
    except Exception as error:
        if min(size) < min(job.size):
            return
        raise ExportError(f"{job.source.origin} fails at {shown} ({first_reason(error)}); {advice}") from error
    try:
        got = run_graph(model, {"image": image})[0]
    except Exception as error:
        raise ExportError(
            f"with free height and width the graph fails at {shown}{why or f' ({_fixed(model, error)})'}; {advice}"
        ) from error
    if got.shape != wanted.shape or not np.abs(got - wanted).max() <= 1e-3 * np.ptp(wanted):
        raise ExportError(f"with free height and width the graph is wrong at {shown}{why}; {advice}")
