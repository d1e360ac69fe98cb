"""The settings of a Predictor, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from edgeseg.errors import SizeError, UsageError
from edgeseg.images import MAX_PIXELS, check_max_pixels
from edgeseg.manifest import Manifest
from edgeseg.runtimes import RuntimeOptions
from edgeseg.specs import Size, check_divisor

__all__ = ["Output", "PredictorConfig", "PredictorKeywords", "check_output"]

Output = Literal["source", "network"] | Size


class PredictorKeywords(TypedDict, total=False):
    """The keywords of `Predictor`: the fields of `PredictorConfig`."""

    output: Output
    scores: bool
    keep_image: bool
    check: bool
    trusted_keys: Sequence[str | Path]
    input_size: Size | None
    threads: int | None
    device: str | None
    options: RuntimeOptions | None
    max_pixels: int
    strict: bool


@dataclass(frozen=True)
class PredictorConfig:
    """The settings of a Predictor, which describes each.

    Raises:
        UsageError: An output that is no size, or `max_pixels` below 1.
    """

    output: Output = "source"
    scores: bool = False
    keep_image: bool = True
    check: bool = True
    trusted_keys: Sequence[str | Path] = ()
    input_size: Size | None = None
    threads: int | None = None
    device: str | None = None
    options: RuntimeOptions | None = None
    max_pixels: int = MAX_PIXELS
    strict: bool = False

    def __post_init__(self) -> None:
        check_output(self.output)
        check_max_pixels(self.max_pixels)

    def runtime_options(self) -> RuntimeOptions:
        """Merge `options` with `threads` and `device`.

        Raises:
            UsageError: They contradict one another.
        """
        merged = self.options or RuntimeOptions()
        for name, value in (("threads", self.threads), ("device", self.device)):
            if value is not None and getattr(merged, name) not in (None, value):
                raise UsageError(f"{name} is {value}, but options.{name} is {getattr(merged, name)}; give one of them")
            if value is not None:
                merged = dataclasses.replace(merged, **{name: value})  # type: ignore[arg-type]
        return merged

    def check_input_size(self, manifest: Manifest) -> None:
        """Refuse an `input_size` that the graph of a bundle does not take.

        Raises:
            SizeError: The graph has another fixed size, or `input_size` is no multiple of its divisor.
        """
        size = self.input_size
        if size is None:
            return
        check_divisor(manifest.name, size, manifest.divisor)
        if not manifest.dynamic and tuple(size) != manifest.input_size:
            fixed = "x".join(map(str, manifest.input_size))
            raise SizeError(
                f"bundle '{manifest.name}' takes only {fixed}, got {size[0]}x{size[1]}; leave input_size out, "
                "or export with free height and width"
            )


def check_output(output: object) -> None:
    """Refuse a size of labels that cannot be.

    Raises:
        UsageError: `output` is neither ``source``, ``network`` nor a size.
    """
    if isinstance(output, tuple) and len(output) == 2 and all(isinstance(x, int) and x > 0 for x in output):
        return
    if output not in ("source", "network"):
        raise UsageError(f"output is {output!r}; it must be 'source', 'network' or (height, width) in pixels")
