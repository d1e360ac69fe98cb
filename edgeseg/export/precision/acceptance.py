"""Acceptance: refuse a precision that is slower, or below its budget, on a target it is for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeseg.bench.paired import alternate, run_block
from edgeseg.errors import EdgesegError, ExportError, ParityError
from edgeseg.export.precision.config import PrecisionConfig
from edgeseg.export.precision.report import Latency, PrecisionReport, TargetFigures
from edgeseg.export.precision.scoring import Score
from edgeseg.runtimes import Session, engine

__all__ = ["aimed_targets", "budget_words", "hold", "holds", "measure_pair", "objections"]

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
        image: uint8 (N, H, W, 3).
        clock: Seconds.
    """

    def turns(session: Session) -> Callable[[float], list[float]]:
        return lambda seconds: run_block(lambda: session.run(image), seconds, clock=clock)

    samples = alternate({"fp32": turns(fp32), "low": turns(low)}, blocks=_BLOCKS, seconds=_BLOCK_S, gap=_GAP_S)
    pairs = zip(samples["fp32"], samples["low"], strict=True)
    slower = sum(float(np.median(after)) > float(np.median(before)) for before, after in pairs)
    before, after = (float(np.median(np.concatenate(samples[name]))) for name in ("fp32", "low"))
    return Latency(before, after, slower, _BLOCKS)


def aimed_targets(config: PrecisionConfig, targets: Sequence[str]) -> tuple[str, ...]:
    """Targets that a precision is for: those asked for that gain from it, less those that are never lowered.

    A precision that none of them gains from (fp16 without a GPU target) is for all of them.
    """
    asked = tuple(target for target in (config.aims or targets) if engine(target).lowers_to)
    gaining = tuple(target for target in asked if config.precision in engine(target).lowers_to)
    return gaining or asked


def holds(config: PrecisionConfig, score: Score, miou_fp32: float | None) -> bool:
    """Whether a score holds the budget."""
    return not _below(config, score.agreement, score.miou, miou_fp32)


def objections(config: PrecisionConfig, report: PrecisionReport, targets: Sequence[str]) -> list[EdgesegError]:
    """Why the precision is not to be used on the targets it is for, with the figures; empty where there is nothing."""
    found: list[EdgesegError] = []
    aims = aimed_targets(config, targets)
    for entry in report.targets:
        if entry.target not in aims:
            continue
        below = _below(config, entry.agreement, entry.miou, report.miou_fp32)
        if below:
            found.append(ParityError(f"{config.precision} is below its budget on {entry.target}: {below}"))
        slow = _slower(config, entry)
        if slow:
            found.append(ExportError(slow))
    return found


def hold(config: PrecisionConfig, report: PrecisionReport, targets: Sequence[str]) -> None:
    """Refuse, or with ``force`` note, what `objections` finds.

    Raises:
        ParityError: Below the budget.
        ExportError: Slower than fp32.
    """
    found = objections(config, report, targets)
    if config.force:
        report.notes.extend(f"forced: {error}" for error in found)
    elif found:
        kind = ParityError if any(isinstance(error, ParityError) for error in found) else ExportError
        told = "; ".join(map(str, found))
        raise kind(f"{told}; the bundle was not written (export fp32, change the budget, or write it with --force)")


def budget_words(config: PrecisionConfig) -> str:
    """The budget in words."""
    parts = []
    if config.max_miou_drop is not None:
        parts.append(f"mIoU at most {100 * config.max_miou_drop:g} points below fp32's")
    if config.agreement_budget:
        parts.append(f"at least {config.agreement_budget:.2%} of the labels equal to fp32's")
    return " and ".join(parts)


def _below(config: PrecisionConfig, share: float, miou: float | None, miou_fp32: float | None) -> str:
    told = []
    if share < config.agreement_budget:
        told.append(f"{share:.3%} of the labels equal fp32 PyTorch's, at least {config.agreement_budget:.2%} must")
    drop = config.max_miou_drop
    if drop is not None and miou is not None and miou_fp32 is not None and not miou_fp32 - miou <= drop:
        lost = 100 * (miou_fp32 - miou)
        told.append(
            f"mIoU is {miou:.2%} against fp32's {miou_fp32:.2%}, {lost:.2f} points lower, at most {100 * drop:g} may be"
        )
    return " and ".join(told)


def _slower(config: PrecisionConfig, entry: TargetFigures) -> str:
    latency = entry.latency
    if latency is None or latency.low <= (1.0 + MARGIN) * latency.fp32:
        return ""
    if 2 * latency.slower_blocks <= latency.blocks:
        return ""
    return (
        f"{config.precision} is slower than fp32 on {entry.target} here: {latency.low:.2f} against {latency.fp32:.2f} "
        f"ms (medians; slower in {latency.slower_blocks} of {latency.blocks} alternating blocks)"
    )
