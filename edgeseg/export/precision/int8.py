"""int8: NNCF's post-training quantisation of the ONNX graph, on real pictures, in the one form every engine takes.

Weights have a scale per output channel, activations one per tensor (TensorRT takes no other). Biases are corrected for
the mean error that quantised weights leave (NNCF's fast bias correction). Normalisation of pixels stays float.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg._optional import require
from edgeseg.errors import ExportError
from edgeseg.export.to_onnx import check_limits, first_reason
from edgeseg.graph.qdq import check_symmetric, quantised_nodes, seven_bits, tidy
from edgeseg.graph.roles import untouched_nodes

__all__ = ["RECIPES", "Recipe", "quantise", "require_nncf"]


@dataclass(frozen=True)
class Recipe:
    """How ranges of activations are found.

    Attributes:
        name: In words.
        outliers: Share of numbers at either end that may lie outside; 0 takes each picture's extremes. Either way the
            ends are averaged over the pictures.
    """

    name: str
    outliers: float = 0.0


RECIPES = (
    Recipe("ranges: extremes, averaged over the pictures"),
    Recipe("ranges: all but 1 number in 10000 at either end, averaged over the pictures", 1e-4),
)


def require_nncf() -> Any:
    """NNCF's module.

    Raises:
        TargetUnavailableError: Not installed.
    """
    return require("nncf", extra="export", why="--precision int8")


def quantise(
    model: onnx.ModelProto, images: Sequence[NDArray[np.uint8]], *, recipe: Recipe = RECIPES[0], batch: int = 1
) -> onnx.ModelProto:
    """Quantise a graph.

    Args:
        model: Float graph with input ``image``; every node has a name of its own (`qdq.named`).
        images: uint8 (H, W, C) at the graph's size.
        recipe: How ranges are found.
        batch: Of the graph.

    Raises:
        ExportError: NNCF failed, quantised nothing, or made a graph that an engine does not take.
    """
    nncf = require_nncf()
    feeds = [{"image": np.stack([images[(i + k) % len(images)] for k in range(batch)])} for i in range(len(images))]
    try:
        with _quiet(nncf):
            made: onnx.ModelProto = nncf.quantize(
                model,
                nncf.Dataset(feeds),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(feeds),
                fast_bias_correction=True,
                ignored_scope=nncf.IgnoredScope(names=untouched_nodes(model), validate=False),
                advanced_parameters=_parameters(nncf, recipe),
            )
    except Exception as error:  # NNCF's errors are of many kinds
        raise ExportError(f"NNCF cannot quantise the graph: {first_reason(error)}; export it as fp32") from error
    made = seven_bits(tidy(made))
    if not quantised_nodes(made):
        raise ExportError("NNCF found nothing to quantise in the graph; export it as fp32")
    check_symmetric(made)
    check_limits(made)
    return made


def _parameters(nncf: Any, recipe: Recipe) -> Any:
    from nncf.quantization import advanced_parameters as advanced
    from nncf.quantization import range_estimator as ranges

    symmetric = advanced.QuantizationParameters(mode=advanced.QuantizationMode.SYMMETRIC, per_channel=False)
    chosen = ranges.RangeEstimatorParameters()
    if recipe.outliers:
        ends = ranges.StatisticsCollectorParameters(
            statistics_type=ranges.StatisticsType.QUANTILE,
            aggregator_type=ranges.AggregatorType.MEAN,
            quantile_outlier_prob=recipe.outliers,
        )
        chosen = ranges.RangeEstimatorParameters(min=ends, max=ends)
    return advanced.AdvancedQuantizationParameters(
        overflow_fix=advanced.OverflowFix.DISABLE,  # seven_bits keeps sums from overflowing
        activations_quantization_params=symmetric,
        activations_range_estimator_params=chosen,
    )


@contextlib.contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """Keep NNCF's progress bars and notices out of the user's terminal.

    The bars go to rich's shared console, which alone is quiet meanwhile: standard output is everybody's, and stays.
    """
    import rich

    logger, console = logging.getLogger("nncf"), rich.get_console()
    level, quiet = logger.level, console.quiet
    nncf.set_log_level(logging.ERROR)
    console.quiet = True
    try:
        yield
    finally:
        logger.setLevel(level)
        console.quiet = quiet
