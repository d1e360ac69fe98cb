"""Lower a graph: int8, fp16 or bf16, with in fp32 what must stay so to hold the budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.errors import ParityError
from edgeseg.export.job import ExportJob
from edgeseg.export.passes import engine_passes
from edgeseg.export.precision.acceptance import budget_words, holds
from edgeseg.export.precision.calibration import Picture, held_out_within, load_pictures
from edgeseg.export.precision.fp16 import measure_nodes
from edgeseg.export.precision.int8 import RECIPES, Recipe, quantise
from edgeseg.export.precision.report import KeptFloat, PrecisionReport
from edgeseg.export.precision.scoring import Score, Scorer
from edgeseg.export.precision.sensitivity import Found, own_noise, rank, search
from edgeseg.export.reference import ParitySet
from edgeseg.export.steps import step
from edgeseg.graph.half import halvable_nodes, marked, to_half
from edgeseg.graph.passes._base import apply_passes
from edgeseg.graph.qdq import as_int8, named, quantised_nodes, without_quantisers
from edgeseg.graph.roles import MOVES
from edgeseg.labelled import LabelledPictures
from edgeseg.runtimes import engine

__all__ = ["Lowered", "lower"]

_RANGE_PICTURES = _RECIPE_PICTURES = 4
"""Pictures that are enough to see ranges, and to choose between recipes."""

_FP16_NOTE = "fp16 was scored in ONNX Runtime on the CPU, which computes in fp32 between casts; verify it on the GPU"
_INT8_NOTE = (
    "int8 is not always faster than fp16 on a GPU, and an export without one cannot weigh them; export both and "
    "compare them on the device (edgeseg benchmark)"
)
_RTX_NOTE = "int8 is unproven for trt-rtx, whose support matrix names int8 for weights of products alone; prefer fp16"

Rebuild = Callable[[Collection[str]], onnx.ModelProto]


@dataclass(frozen=True)
class Lowered:
    """A graph in low precision.

    Attributes:
        model: In no engine's own form.
        expected: The held-out pictures and fp32 PyTorch's logits and labels of them.
        scorer: Scores on them.
        report: Without the targets' figures yet.
    """

    model: onnx.ModelProto
    expected: ParitySet
    scorer: Scorer
    report: PrecisionReport


def _own_pictures(job: ExportJob) -> tuple[Picture, ...]:
    pairs = [(picture, None) for picture in job.pictures]
    return load_pictures(pairs, job.size, job.spec.resize, channels=job.spec.input.image_channels)


def lower(model: onnx.ModelProto, job: ExportJob) -> Lowered:
    """Lower a verified fp32 graph to the precision of a job.

    Args:
        model: The graph after all rewrites.
        job: The export.

    Raises:
        ParityError: The budget cannot be held even with every operator that was lowered back in fp32; not with force.
        ExportError: The graph cannot be lowered.
        InputError: A picture cannot be read.
    """
    calibration = job.calibration
    held_out = calibration.held_out if calibration else _own_pictures(job)
    held_out = held_out_within(held_out, job.channels * job.logit_size[0] * job.logit_size[1])
    expected = job.expected([picture.path for picture in held_out], synthetic=False)
    reader = calibration.reader if calibration else None
    classes = len(job.labels.names if reader is None else reader.names)
    scorer = Scorer(
        held_out,
        expected,
        job.spec.postprocess,
        classes,
        form=_ort_form(job),
        batch=job.batch,
    )
    work = {"int8": _int8, "fp16": _fp16, "bf16": _bf16}[job.config.precision]
    made, report = work(named(model), job, scorer)
    notes = (*report.notes, *_notes(job, held_out, scorer))
    if calibration and calibration.shared:
        notes += ("the only calibration picture was also scored on; give several",)
    report = replace(
        report,
        calibration=len(calibration.pictures) if calibration else 0,
        held_out=len(held_out),
        miou_fp32=scorer.miou_fp32,
        notes=notes,
    )
    return Lowered(made, expected, scorer, report)


def _notes(job: ExportJob, held_out: Sequence[Picture], scorer: Scorer) -> tuple[str, ...]:
    """What is to be known of the pictures and label maps, each once."""
    calibration, data = job.calibration, job.config.calib
    notes = [note for picture in (*(calibration.pictures if calibration else ()), *held_out) for note in picture.notes]
    reader = calibration.reader if calibration else None
    if reader is not None and scorer.matrix_fp32 is not None:
        notes = [*reader.notes, *notes, *reader.suspicions(scorer.matrix_fp32)]
    if isinstance(data, LabelledPictures) and data.dataset is not None:
        notes.append(f"calibrated on pictures of {data.dataset} that eval --dataset scores; publish no figures of them")
    return tuple(dict.fromkeys(notes))


def _ort_form(job: ExportJob) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """The passes that ONNX Runtime's graph in this precision gets, without proof: a search tries many graphs."""
    config = job.config
    passes = engine_passes(engine("ort"), config.precision, rewrites=config.rewrites, skip=config.skip_passes)
    return lambda model: apply_passes(model, passes)


def _int8(model: onnx.ModelProto, job: ExportJob, scorer: Scorer) -> tuple[onnx.ModelProto, PrecisionReport]:
    if job.calibration is None:
        raise ParityError("int8 without calibration pictures was not refused; report this")
    images = [picture.image for picture in job.calibration.pictures]

    def attempt(recipe: Recipe) -> tuple[float, Recipe, onnx.ModelProto]:
        with step(f"quantising ({recipe.name})"):
            made = quantise(model, images, recipe=recipe, batch=job.batch)
            readings = (made, as_int8(made))
            return max(scorer.error(reading, _RECIPE_PICTURES) for reading in readings), recipe, made

    _, recipe, made = min((attempt(recipe) for recipe in RECIPES), key=lambda entry: entry[0])
    rebuild = partial(without_quantisers, made, model)
    start = Found(made, (), scorer.graph(made), False)
    found = _searched(start, quantised_nodes(made), model, rebuild, job, scorer)
    report = PrecisionReport(
        precision="int8", recipe=recipe.name, lowered=len(quantised_nodes(found.model)), kept=_kept(found, model)
    )
    if not any("fp16" in engine(target).lowers_to for target in job.config.all_targets):
        return found.model, report
    floats = _fp32_nodes(model, images, job)  # beside int8 a GPU computes in half
    return marked(found.model, floats), replace(report, notes=_gpu_notes(job, floats))


def _gpu_notes(job: ExportJob, floats: Mapping[str, str]) -> tuple[str, ...]:
    """What is to be known of int8 for GPUs."""
    notes = [_INT8_NOTE]
    if floats:
        notes.append(f"on GPUs {len(floats)} operators stay fp32, all others beside int8 are half")
    if "trt-rtx" in job.config.all_targets:
        notes.append(_RTX_NOTE)
    return tuple(notes)


def _fp32_nodes(model: onnx.ModelProto, images: Sequence[NDArray[np.uint8]], job: ExportJob) -> dict[str, str]:
    """Operators that half arithmetic would spoil -> why, by what they did on pictures."""
    with step("measuring ranges"):
        measured = measure_nodes(model, images[:_RANGE_PICTURES], batch=job.batch)
    return {name: entry.reason for name, entry in measured.items() if entry.reason}


def _fp16(model: onnx.ModelProto, job: ExportJob, scorer: Scorer) -> tuple[onnx.ModelProto, PrecisionReport]:
    calibration = job.calibration.pictures if job.calibration else scorer.pictures
    images = [picture.image for picture in calibration[:_RANGE_PICTURES]]
    floats = _fp32_nodes(model, images, job)
    candidates = [name for name in halvable_nodes(model) if name not in floats]

    def rebuild(keep: Collection[str]) -> onnx.ModelProto:
        return to_half(model, {*floats, *keep})

    made = rebuild(())
    found = _searched(Found(made, (), scorer.graph(made), False), candidates, model, rebuild, job, scorer)
    ops = {node.name: node.op_type for node in model.graph.node}
    kept = tuple(KeptFloat(name, ops[name], why) for name, why in floats.items()) + _kept(found, model)
    report = PrecisionReport(
        precision="fp16",
        recipe=f"casts in the graph; ranges of {len(images)} pictures",
        lowered=len(candidates) - len(found.kept),
        kept=kept,
        notes=(_FP16_NOTE,),
    )
    return marked(found.model, {entry.node: entry.why for entry in kept}), report


def _bf16(model: onnx.ModelProto, job: ExportJob, scorer: Scorer) -> tuple[onnx.ModelProto, PrecisionReport]:
    """Nothing in the graph changes: OpenVINO is told to compute in bf16 when it opens the bundle."""
    return model, PrecisionReport(precision="bf16", recipe="an fp32 graph that OpenVINO runs in bf16 arithmetic")


def _searched(
    start: Found, names: Sequence[str], model: onnx.ModelProto, rebuild: Rebuild, job: ExportJob, scorer: Scorer
) -> Found:
    """`start` where it holds the budget, else with the worst operators back in fp32."""

    def enough(score: Score) -> bool:
        return holds(job.config, score, scorer.miou_fp32)

    moves = {node.name for node in model.graph.node if node.op_type in MOVES - {"Concat"}}
    names = [name for name in names if name not in moves]
    if enough(start.score) or not names:
        return replace(start, holds=enough(start.score))
    with step("finding noisy layers"):
        noise = own_noise(model, start.model, names, scorer.pictures[0].image, job.batch)
    with step("ranking layers"):
        ranking = rank(rebuild, names, noise, scorer)
    with step("keeping the worst in fp32"):
        found = search(rebuild, ranking, scorer, enough)
    if not found.holds and not job.config.force:
        raise ParityError(_too_low(job, start.score, found, scorer.miou_fp32))
    return found


def _too_low(job: ExportJob, start: Score, found: Found, miou_fp32: float | None) -> str:
    got = f"{start.agreement:.3%} of the labels equal fp32 PyTorch's"
    if start.miou is not None and miou_fp32 is not None:
        got += f", mIoU {start.miou:.2%} against {miou_fp32:.2%}"
    return (
        f"{job.config.precision} cannot hold its budget ({budget_words(job.config)}): {got}, and with "
        f"{len(found.kept)} operators back in fp32 {found.score.agreement:.3%}; calibrate on more pictures, change the "
        "budget, or use --force"
    )


def _kept(found: Found, model: onnx.ModelProto) -> tuple[KeptFloat, ...]:
    ops = {node.name: node.op_type for node in model.graph.node}
    why = "lowered, it alone makes {:.0%} of the error"
    return tuple(KeptFloat(entry.node, ops[entry.node], why.format(max(0.0, entry.gain))) for entry in found.kept)
