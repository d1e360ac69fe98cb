"""Trials of a module that fails: which channels, sizes and forms of a picture it really takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.export.to_onnx import first_reason, quiet
from edgeseg.models.copying import copy_module
from edgeseg.specs import MOST_CHANNELS, Size

__all__ = ["Trial"]

_LARGEST = 1 << 26
"""Numbers in a picture that is tried at the most."""

_COUNTS = (1, 2, 4)
_SIDES = (224, 256, 512)


class Trial:
    """Runs copies of a module on noise of other channels, sizes and forms; the module stays as it is.

    Args:
        module: In eval mode.

    Example:
        >>> trial = Trial(nn.Conv2d(4, 2, 1))
        >>> trial.runs((32, 48)), trial.counts((32, 48))
        (False, [4])
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def runs(self, size: Size, channels: int = 3) -> bool:
        """Whether a forward on float32 (1, channels, H, W) gives something."""
        return self.failure(_noise(size, channels)) is None

    def failure(self, image: Any) -> str | None:
        """Why a forward fails, in one line; None where it does not."""
        try:
            module = copy_module(self._module)
        except UsageError:  # a factory's module that cannot be copied
            module = self._module
        try:
            with torch.inference_mode(), torch.random.fork_rng(devices=[]), quiet():
                module(image)
        except Exception as error:  # the user's code
            return first_reason(error)
        return None

    def counts(self, size: Size) -> list[int]:
        """Numbers of channels other than 3 that it takes at a size, of those that its weights and errors suggest."""
        reason = self.failure(_noise(size, 3)) or ""
        named = [int(number) for number in re.findall(r"\d+", reason)]
        likely = dict.fromkeys((*named[:16], *self._first_weights, *_COUNTS))
        tried = [n for n in likely if n != 3 and 1 <= n <= MOST_CHANNELS and n * size[0] * size[1] <= _LARGEST]
        return sorted(count for count in tried if self.runs(size, count))

    @property
    def _first_weights(self) -> list[int]:
        """Channels that the first layers with weights take."""
        found = []
        for part in self._module.modules():
            for name in ("in_channels", "in_features", "num_features"):
                value = getattr(part, name, None)
                if isinstance(value, int):
                    found.append(value)
        weights = [value for value in self._module.parameters() if value.dim() == 4]
        return found[:3] + [int(value.shape[1]) for value in weights[:1]]

    def sizes(self, size: Size, channels: int) -> list[Size]:
        """Other sizes that it takes: those nearby with sides that 32 divides, and usual squares."""
        return [other for other in _others(size) if self.runs(other, channels)]

    def elsewhere(self, size: Size) -> tuple[Size, int] | None:
        """Another size and number of channels that it takes together; None where no pair that was tried runs."""
        found = ((other, count) for other in _others(size) for count in self.counts(other)[-1:])
        return next(found, None)

    def form(self, size: Size, channels: int) -> str:
        """What it takes instead of a float32 batch (1, C, H, W), in words; empty where no form that is tried runs."""
        image = _noise(size, channels)
        for words, changed in _FORMS:
            if self.failure(changed(image)) is None:
                return words
        asked = _Asked(image)
        if self.failure(asked) is None and asked.keys_asked:
            keys = ", ".join(f"'{key}'" for key in dict.fromkeys(asked.keys_asked))
            return f"a dict with the picture under {keys}"
        return ""

    def demands(self) -> str:
        """What its forward asks for that one picture does not give, in words; empty where that is nothing."""
        schema = getattr(self._module.forward, "schema", None)
        if schema is not None:  # a ScriptModule
            arguments = schema.arguments[1:]
            return _demand(bool(arguments), [a.name for a in arguments[1:] if not a.has_default_value()])
        try:
            parameters = list(inspect.signature(self._module.forward).parameters.values())
        except (TypeError, ValueError):
            return ""
        places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
        named = [p for p in parameters if p not in places[:1] and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        return _demand(bool(places), [p.name for p in named if p.default is p.empty])


def _demand(takes_picture: bool, others: list[str]) -> str:
    names = ", ".join(f"'{name}'" for name in others)
    if not takes_picture:
        return "takes no picture as its first argument"
    return f"requires {names} besides the picture" if names else ""


class _Asked(dict[Any, Any]):
    """A dict that gives the picture under any key, and remembers the keys."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self._image, self.keys_asked = image, list[object]()

    def __missing__(self, key: object) -> Tensor:
        self.keys_asked.append(key)
        return self._image

    def get(self, key: object, default: Any = None) -> Any:
        return self[key]


_FORMS: tuple[tuple[str, Callable[[Tensor], Any]], ...] = (
    ("channels last, (N, height, width, channels)", lambda x: x.permute(0, 2, 3, 1)),
    ("a picture without a batch, (channels, height, width)", lambda x: x[0]),
    ("a list of pictures (channels, height, width)", lambda x: [x[0]]),
    ("uint8", lambda x: (255 * x).to(torch.uint8)),
    ("int64", lambda x: (255 * x).to(torch.int64)),
    ("float64", lambda x: x.double()),
    ("float16", lambda x: x.half()),
    ("a video (N, channels, frames, height, width)", lambda x: x[:, :, None]),
)


def _noise(size: Size, channels: int) -> Tensor:
    return torch.rand((1, channels, *size), generator=torch.Generator().manual_seed(0))


def _others(size: Size) -> list[Size]:
    near: list[Size] = [(max(32, step(size[0])), max(32, step(size[1]))) for step in (_down, _up)]
    return [other for other in dict.fromkeys([*near, *((side, side) for side in _SIDES)]) if other != tuple(size)]


def _down(side: int) -> int:
    return side // 32 * 32


def _up(side: int) -> int:
    return -(-side // 32) * 32
