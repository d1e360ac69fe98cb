"""The precision step of an export: lower the graph, keep float what must stay so, and put the figures side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import onnx
from torch import nn

from edgeseg import bundle as layout
from edgeseg.bundle import Bundle, Manifest, Parity
from edgeseg.errors import ParityError, TargetUnavailableError
from edgeseg.export.compile import save_onnx, write_labels_graph, write_target
from edgeseg.export.deploy import DeployNetwork
from edgeseg.export.graph.qdq import as_int8, named, quantised_nodes, without_quantisers
from edgeseg.export.graph.roles import MOVES
from edgeseg.export.precision.acceptance import budget_words, holds, measure_pair
from edgeseg.export.precision.calibration import Calibration, load_pictures
from edgeseg.export.precision.config import PrecisionConfig
from edgeseg.export.precision.fp16 import halvable_nodes, measure_nodes, to_half
from edgeseg.export.precision.int8 import RECIPES, Recipe, quantise
from edgeseg.export.precision.report import KeptFloat, Latency, PrecisionReport, TargetFigures
from edgeseg.export.precision.scoring import Score, Scorer
from edgeseg.export.precision.sensitivity import Found, own_noise, rank, search
from edgeseg.export.reference import ParitySet, parity_set
from edgeseg.files import scratch_folder, sha256_of
from edgeseg.predictor import Predictor
from edgeseg.runtimes import Session, engine, open_session
from edgeseg.specs import PostprocessSpec, ResizeRule, Size

__all__ = ["Fp32", "Lowered", "Setup", "figures", "gpu_graph", "lower"]

T = TypeVar("T")


class Step(Protocol):
    """Tells what is done, and does it."""

    def __call__(self, what: str, work: Callable[[], T], /) -> T: ...


_SELF_TEST_SLACK = 0.01
"""Labels of the sample that another processor's kernels may move, as a share."""

_RANGE_PICTURES = _RECIPE_PICTURES = 4
"""Pictures that are enough to see ranges, and to choose between recipes."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the step needs to know of the export.

    Attributes:
        config: What is asked for.
        network: fp32 PyTorch, before fusion.
        size: Height x width of the graph's input.
        resize: The bundle's rule.
        postprocess: How logits become labels.
        classes: Number of labels.
        batch: Of the graph.
        pictures: Files to score by where no calibration pictures were given.
        calibration: Those that were.
    """

    config: PrecisionConfig
    network: DeployNetwork
    size: Size
    resize: ResizeRule
    postprocess: PostprocessSpec
    classes: int
    batch: int
    pictures: Sequence[Path]
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Lowered:
    """A graph in low precision.

    Attributes:
        model: For ``model.onnx``.
        expected: The held-out pictures and fp32 PyTorch's logits and labels of them.
        scorer: Scores on them.
        report: Without the targets' figures yet.
    """

    model: onnx.ModelProto
    expected: ParitySet
    scorer: Scorer
    report: PrecisionReport


@dataclass(frozen=True)
class Fp32:
    """The network in fp32, as an export of it would give it to the engines.

    Attributes:
        model: For every engine that is not named below.
        ort: For ONNX Runtime; `model` itself where that is no other.
    """

    model: onnx.ModelProto
    ort: onnx.ModelProto


def lower(model: onnx.ModelProto, setup: Setup, step: Step) -> Lowered:
    """Lower a verified fp32 graph.

    Args:
        model: The graph after all rewrites.
        setup: See `Setup`.
        step: Tells what is done and does it.

    Raises:
        ParityError: The budget cannot be held even with every operator that was lowered back in fp32; not with force.
        ExportError: The graph cannot be lowered.
        InputError: A picture cannot be read.
    """
    held = setup.calibration.held if setup.calibration else load_pictures(setup.pictures, setup.size, setup.resize)
    files = [picture.path for picture in held]
    expected = parity_set(setup.network, setup.size, setup.resize, setup.postprocess, files, synthetic=False)
    scorer = Scorer(
        held, expected, setup.postprocess, setup.classes, batch=setup.batch, ignore=setup.config.calib_ignore
    )
    model = named(model)
    work = {"int8": _int8, "fp16": _fp16, "bf16": _bf16}[setup.config.precision]
    made, report = work(model, setup, scorer, step)
    report.calibration = len(setup.calibration.pictures) if setup.calibration else 0
    report.held_out, report.miou_fp32 = len(held), scorer.miou_fp32
    if setup.calibration and setup.calibration.shared:
        report.notes.append("the only calibration picture was also scored on; give several")
    return Lowered(made, expected, scorer, report)


def gpu_graph(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The graph as TensorRT is given it: the same numbers, every quantiser written as int8."""
    return as_int8(model) if precision == "int8" else model


def _int8(model: onnx.ModelProto, setup: Setup, scorer: Scorer, step: Step) -> tuple[onnx.ModelProto, PrecisionReport]:
    if setup.calibration is None:
        raise ParityError("int8 without calibration pictures was not refused; report this")
    images = [picture.image for picture in setup.calibration.pictures]

    def attempt(recipe: Recipe) -> tuple[float, Recipe, onnx.ModelProto]:
        made = quantise(model, images, recipe=recipe, batch=setup.batch)
        readings = (made, gpu_graph(made, "int8"))
        return max(scorer.error(reading, _RECIPE_PICTURES) for reading in readings), recipe, made

    tried = [step(f"quantising ({recipe.name})", partial(attempt, recipe)) for recipe in RECIPES]
    _, recipe, made = min(tried, key=lambda entry: entry[0])
    rebuild = partial(without_quantisers, made, model)
    found = _searched(
        Found(made, (), scorer.graph(made), False), quantised_nodes(made), model, rebuild, setup, scorer, step
    )
    report = PrecisionReport("int8", recipe.name, lowered=len(quantised_nodes(found.model)), kept=_kept(found, model))
    return found.model, report


def _fp16(model: onnx.ModelProto, setup: Setup, scorer: Scorer, step: Step) -> tuple[onnx.ModelProto, PrecisionReport]:
    calibration = setup.calibration.pictures if setup.calibration else scorer.pictures
    images = [picture.image for picture in calibration[:_RANGE_PICTURES]]
    measured = step("measuring ranges", lambda: measure_nodes(model, images, batch=setup.batch))
    floats = {name: entry.reason for name, entry in measured.items() if entry.reason}
    candidates = [name for name in halvable_nodes(model) if name not in floats]

    def rebuild(keep: Collection[str]) -> onnx.ModelProto:
        return to_half(model, {*floats, *keep})

    made = rebuild(())
    start = Found(made, (), scorer.graph(made), False)
    found = _searched(start, candidates, model, rebuild, setup, scorer, step)
    ops = {node.name: node.op_type for node in model.graph.node}
    kept = tuple(KeptFloat(name, ops[name], why) for name, why in floats.items()) + _kept(found, model)
    recipe = f"casts in the graph; ranges of {len(images)} pictures"
    report = PrecisionReport("fp16", recipe, lowered=len(candidates) - len(found.kept), kept=kept)
    report.notes.append(
        "fp16 was scored in ONNX Runtime on the CPU, which computes in fp32 between casts; verify it on the GPU"
    )
    return found.model, report


def _bf16(model: onnx.ModelProto, setup: Setup, scorer: Scorer, step: Step) -> tuple[onnx.ModelProto, PrecisionReport]:
    """Nothing in the graph changes: OpenVINO is told to compute in bf16 when it opens the bundle."""
    return model, PrecisionReport("bf16", "an fp32 graph that OpenVINO runs in bf16 arithmetic")


def _searched(
    start: Found,
    names: Sequence[str],
    model: onnx.ModelProto,
    rebuild: Callable[[Collection[str]], onnx.ModelProto],
    setup: Setup,
    scorer: Scorer,
    step: Step,
) -> Found:
    """`start` where it holds the budget, else with the worst operators back in fp32."""

    def fits(score: Score) -> bool:
        return holds(setup.config, score, scorer.miou_fp32)

    moves = {node.name for node in model.graph.node if node.op_type in MOVES - {"Concat"}}
    names = [name for name in names if name not in moves]
    if fits(start.score) or not names:
        return replace(start, holds=fits(start.score))
    noise = step(
        "finding noisy layers", lambda: own_noise(model, start.model, names, scorer.pictures[0].image, setup.batch)
    )
    ranking = step("ranking layers", lambda: rank(rebuild, names, noise, scorer))
    found: Found = step("keeping the worst in fp32", lambda: search(rebuild, ranking, scorer, fits))
    if not found.holds and not setup.config.force:
        raise ParityError(_short(setup.config, start.score, found, scorer.miou_fp32))
    return found


def _short(config: PrecisionConfig, start: Score, found: Found, miou_fp32: float | None) -> str:
    got = f"{start.agreement:.3%} of the labels equal fp32 PyTorch's"
    if start.miou is not None and miou_fp32 is not None:
        got += f", mIoU {start.miou:.2%} against {miou_fp32:.2%}"
    return (
        f"{config.precision} cannot hold its budget ({budget_words(config)}): {got}, and with {len(found.kept)} "
        f"operators back in fp32 {found.score.agreement:.3%}; calibrate on more pictures, change the budget, "
        "or use --force"
    )


def _kept(found: Found, model: onnx.ModelProto) -> tuple[KeptFloat, ...]:
    ops = {node.name: node.op_type for node in model.graph.node}
    why = "lowered, it alone makes {:.0%} of the error"
    return tuple(KeptFloat(entry.node, ops[entry.node], why.format(max(0.0, entry.gain))) for entry in found.kept)


def figures(
    lowered: Lowered,
    fp32: Fp32,
    folder: Path,
    manifest: Manifest,
    parity: Sequence[Parity],
    module: nn.Module,
) -> PrecisionReport:
    """The report with every target's figures: agreement, mIoU, latency against fp32, size.

    Args:
        lowered: The graph that the bundle holds.
        fp32: The graphs before it.
        folder: The bundle, all targets written.
        manifest: Its manifest.
        parity: What was verified.
        module: fp32 PyTorch.
    """
    report = lowered.report
    bundle = Bundle(folder, manifest)
    rows, least = [], 1.0
    with scratch_folder("edgeseg-fp32") as temporary:
        baseline = _Fp32Baseline(temporary, fp32, manifest, module)
        for entry in parity:
            if engine(entry.target).lowers_to:
                row, sample = _target_figures(entry, bundle, baseline, lowered)
                rows.append(row)
                least = min(least, sample)
    report.targets = tuple(rows)
    report.self_test = max(0.0, least - _SELF_TEST_SLACK)
    return report


class _Fp32Baseline:
    """An fp32 export beside the bundle, made target by target as it is needed."""

    def __init__(self, folder: Path, fp32: Fp32, manifest: Manifest, module: nn.Module) -> None:
        self._folder, self._model, self._manifest, self._module = folder, fp32.model, manifest, module
        save_onnx(fp32.model, folder / layout.MODEL)
        if fp32.ort is not fp32.model:
            save_onnx(fp32.ort, folder / layout.ORT_MODEL)

    def bundle(self, target: str) -> Bundle:
        """The baseline, ready for a target."""
        if engine(target).ends_in_labels:
            size = self._manifest.label_size or self._manifest.input_size
            write_labels_graph(self._model, self._folder, size, self._manifest.postprocess)
        write_target(target, self._folder, replace(self._manifest, precision="fp32"), self._module)
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        hashes = {path.relative_to(self._folder).as_posix(): sha256_of(path) for path in files}
        return Bundle(self._folder, replace(self._manifest, precision="fp32", files=hashes))


def _target_figures(
    entry: Parity, bundle: Bundle, baseline: _Fp32Baseline, lowered: Lowered
) -> tuple[TargetFigures, float]:
    """One target's row, and the share of the sample's labels that are fp32 PyTorch's."""
    size = engine(entry.target).size_in(bundle)
    row = TargetFigures(entry.target, entry.engine, lowered.report.precision, entry.agreement, size=size, ran=entry.ran)
    try:
        low = open_session(bundle, entry.target)
    except TargetUnavailableError:
        return row, 1.0
    try:
        fp32_bundle = baseline.bundle(entry.target)
        fp32 = open_session(fp32_bundle, entry.target)
        try:
            latency, miou = _measured(fp32, low, lowered)
        finally:
            fp32.close()
        arithmetic = low.info.precision
    finally:
        low.close()
    with Predictor(bundle, entry.target, keep_image=False) as predictor:
        sample = predictor.self_test().agreement
    size_fp32 = engine(entry.target).size_in(fp32_bundle)
    return replace(row, arithmetic=arithmetic, miou=miou, latency=latency, size_fp32=size_fp32), sample


def _measured(fp32: Session, low: Session, lowered: Lowered) -> tuple[Latency, float | None]:
    scorer = lowered.scorer
    batch = low.inputs[0].shape[0] or 1
    image = np.stack([scorer.pictures[0].image] * batch)
    latency = measure_pair(fp32, low, image)
    if not scorer.labelled:
        return latency, None
    return latency, scorer.logits(lambda one: low.run(np.stack([one] * batch), ("logits",))["logits"][0]).miou
