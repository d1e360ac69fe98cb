"""Acceptance: refuse a precision that is slower, or below its budget, on a target it is for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeseg.bench.paired import alternate, run_block
from edgeseg.errors import EdgesegError, ExportError, ParityError
from edgeseg.export.config import ExportConfig
from edgeseg.export.precision.report import Latency, PrecisionReport, TargetFigures
from edgeseg.export.precision.scoring import Score
from edgeseg.runtimes import Session, engine

__all__ = ["aimed_targets", "budget_words", "holds", "measure_pair", "next_precisions", "objections"]

MARGIN = 0.03
"""A precision within three per cent of fp32's time is not called slower."""

_BLOCKS, _BLOCK_S, _GAP_S = 5, 0.2, 0.05


def measure_pair(
    fp32: Session, low: Session, image: NDArray[np.uint8], *, clock: Callable[[], float] = time.perf_counter
) -> Latency:
    """Run two sessions in alternating blocks and compare their medians.

    In this process, unlike `edgeseg.bench.paired`'s contenders: the sessions are open already, and the gap before each
    block lets the other's spinning threads come to rest.

    Args:
        fp32: The session to compare with.
        low: The session in low precision.
        image: uint8 (N, H, W, C).
        clock: Seconds.
    """

    def turns(session: Session) -> Callable[[float], list[float]]:
        return lambda seconds: run_block(lambda: session.run(image), seconds, clock=clock)

    samples = alternate({"fp32": turns(fp32), "low": turns(low)}, blocks=_BLOCKS, seconds=_BLOCK_S, gap=_GAP_S)
    pairs = zip(samples["fp32"], samples["low"], strict=True)
    slower = sum(float(np.median(after)) > float(np.median(before)) for before, after in pairs)
    before, after = (float(np.median(np.concatenate(samples[name]))) for name in ("fp32", "low"))
    return Latency(before, after, slower, _BLOCKS)


def aimed_targets(config: ExportConfig) -> tuple[str, ...]:
    """Targets that the precision is for: those asked for that gain from it, less those that are never lowered.

    A precision that none of them gains from (fp16 without a GPU target) is for all of them.
    """
    asked = tuple(target for target in config.targets if engine(target).lowers_to)
    gaining = tuple(target for target in asked if config.precision in engine(target).lowers_to)
    return gaining or asked


def holds(config: ExportConfig, score: Score, miou_fp32: float | None) -> bool:
    """Whether a score holds the budget of the precision that was asked for."""
    return not _below(config, config.precision, score.agreement, score.miou, miou_fp32)


def objections(config: ExportConfig, report: PrecisionReport) -> dict[str, list[EdgesegError]]:
    """Find out why a low precision is not to be used on targets that it is for.

    Returns:
        Target -> reasons with their figures. Targets without a reason, and those that have fp32, are left out.
    """
    aims = aimed_targets(config)
    entries = [entry for entry in report.targets if entry.target in aims and entry.precision != "fp32"]
    found = {entry.target: _reasons(config, report, entry) for entry in entries}
    return {target: reasons for target, reasons in found.items() if reasons}


def _reasons(config: ExportConfig, report: PrecisionReport, entry: TargetFigures) -> list[EdgesegError]:
    reasons: list[EdgesegError] = []
    below = _below(config, entry.precision, entry.agreement, entry.miou, report.miou_fp32)
    if below:
        reasons.append(ParityError(f"{entry.precision} is below its budget on {entry.target}: {below}"))
    slow = _slower(entry)
    if slow:
        reasons.append(ExportError(slow))
    if entry.precision == "bf16" != config.precision and "bf16" not in entry.arithmetic:
        reasons.append(ExportError(f"{entry.target} computes in {entry.arithmetic} here, not in bf16"))
    return reasons


def next_precisions(
    config: ExportConfig, report: PrecisionReport, precisions: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Decide which precision each target gets, from what was measured of those it has.

    Where the precision is slower than fp32 or below its budget on one of several targets it is for, that target gets
    the next in the order of speed; where that is so on all of them, the export is refused.

    Args:
        config: The options.
        report: Figures of every target.
        precisions: Target -> precision, as measured.

    Returns:
        Target -> precision; equal to `precisions` where all is well. And the sentences that tell of changes.

    Raises:
        ParityError: Below the budget on every target it is for.
        ExportError: Slower than fp32 on every target it is for.
    """
    found = objections(config, report)
    if not found:
        return dict(precisions), ()
    reasons = [reason for entry in found.values() for reason in entry]
    if config.force:
        return dict(precisions), tuple(f"forced: {reason}" for reason in reasons)
    if not any(precisions[target] != "fp32" for target in aimed_targets(config) if target not in found):
        raise _refusal(reasons)
    changed = {target: slower for target in found for target, slower in _next(target, precisions).items()}
    notes = tuple(
        f"{target} has {changed[target]} in this bundle: {'; '.join(map(str, entry))}"
        for target, entry in found.items()
    )
    return {**precisions, **changed}, notes


def _next(target: str, precisions: Mapping[str, str]) -> dict[str, str]:
    """The next slower precision for a target, and for those that share its graph."""
    record = engine(target)
    slower = "bf16" if "bf16" in record.lowers_to and precisions[target] == "int8" else "fp32"
    sharing = [other for other in precisions if record.graph and engine(other).graph == record.graph]
    return dict.fromkeys([target, *sharing], slower)


def _refusal(reasons: Sequence[EdgesegError]) -> EdgesegError:
    kind = ParityError if any(isinstance(reason, ParityError) for reason in reasons) else ExportError
    words = "; ".join(map(str, reasons))
    return kind(f"{words}; the bundle was not written (export fp32, change the budget, or write it with --force)")


def budget_words(config: ExportConfig) -> str:
    """The budget in words."""
    parts = []
    if config.max_miou_drop is not None:
        parts.append(f"mIoU at most {100 * config.max_miou_drop:g} points below fp32's")
    budget = config.budget(config.precision)
    if budget:
        parts.append(f"at least {budget:.2%} of the labels equal to fp32's")
    return " and ".join(parts)


def _below(config: ExportConfig, precision: str, share: float, miou: float | None, miou_fp32: float | None) -> str:
    """What is below the budget of a precision, in words; empty where nothing is."""
    lacking = []
    budget = config.budget(precision)
    if share < budget:
        lacking.append(f"{share:.3%} of the labels equal fp32 PyTorch's, at least {budget:.2%} must")
    drop = config.max_miou_drop
    if drop is not None and miou is not None and miou_fp32 is not None and not miou_fp32 - miou <= drop:
        lost = 100 * (miou_fp32 - miou)
        lacking.append(
            f"mIoU is {miou:.2%} against fp32's {miou_fp32:.2%}, {lost:.2f} points lower, at most {100 * drop:g} may be"
        )
    return " and ".join(lacking)


def _slower(entry: TargetFigures) -> str:
    latency = entry.latency
    if latency is None or latency.low <= (1.0 + MARGIN) * latency.fp32:
        return ""
    if 2 * latency.slower_blocks <= latency.blocks:
        return ""
    return (
        f"{entry.precision} is slower than fp32 on {entry.target} here: {latency.low:.2f} against {latency.fp32:.2f} "
        f"ms (medians; slower in {latency.slower_blocks} of {latency.blocks} alternating blocks)"
    )
