"""Channel counts of networks that come in several widths."""

from __future__ import annotations

__all__ = ["make_divisible"]


def make_divisible(value: float, divisor: int) -> int:
    """Return the multiple of `divisor` nearest to `value`, not below `divisor` and not more than a tenth below `value`.

    Sandler et al., "MobileNetV2", CVPR 2018, arXiv 1801.04381 (the authors' code).
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
