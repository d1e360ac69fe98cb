"""Which of the tensors that a network returns are the logits, and whether they can be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgeseg.errors import ExportError, UsageError
from edgeseg.models.outputs import tensors_in
from edgeseg.specs import Size
from edgeseg.text import one_line

__all__ = ["Choice", "check_logits", "choose_logits"]

_LOGIT_KEYS = ("logits", "out", "output", "pred", "preds", "seg", "sem_seg", "segmentation", "semantic")
"""Keys, fields and attributes that frameworks give the logits of the result."""

_MOST_LISTED = 12

_ALONE = "."
"""Path that the user gives for a tensor that is returned alone."""


@dataclass(frozen=True)
class Choice:
    """Where the logits are in what a network returns.

    Attributes:
        take: Path of the logits; empty for a tensor alone.
        note: What was chosen among several maps, and what their size means, for the user; empty where that is nothing.
    """

    take: str
    note: str = ""

    def noting(self, sentence: str) -> Choice:
        """The same choice with one more thing to say of it."""
        return replace(self, note="; ".join(part for part in (self.note, sentence) if part))


def choose_logits(output: object, size: Size, take: str | None = None) -> Choice:
    """Find the logits in what a network returns for one picture.

    A tensor alone is taken, and so is the only map of a structure. Of several maps, the one under the only key that
    means logits is taken, else the user has to say which.

    Args:
        output: What the network returned.
        size: Height x width of the picture.
        take: Path that the user gave; ``"."`` for a tensor alone.

    Raises:
        ExportError: There is no map in it.
        UsageError: There are several, or none at `take`.
    """
    tensors = tensors_in(output)
    if not tensors:
        kind = type(output).__name__
        raise ExportError(f"the network returned {kind} without a tensor in it; expected logits (N, classes, h, w)")
    if take is not None:
        return _given(tensors, take)
    pool = _named(tensors)
    maps = [path for path in pool if _may_be_logits(pool[path], size)]
    if len(pool) == 1:
        chosen = next(iter(pool))
    elif len(maps) == 1:
        chosen = maps[0]
    else:
        raise _ambiguous(pool, maps)
    others = [path for path in tensors if path != chosen and _may_be_logits(tensors[path], size)]
    listed = _listing(tensors, [path for path in tensors if path in (chosen, *others)])
    return Choice(chosen, f"the network returned several maps ({listed}); '{chosen}' was taken" if others else "")


def check_logits(logits: Tensor, size: Size, *, asked: bool = False, cut: bool = False) -> str:
    """Check that a tensor (1, C, h, w) can be the logits of one picture whose pixels are not whole numbers.

    Args:
        logits: Of the picture.
        size: Height x width of the picture.
        asked: Whether the user said that these are the logits; then their size may be no stride of the picture's.
        cut: Whether the user gave the threshold of one channel, which may then be a mask of 0 and 1 or 0..255.

    Returns:
        What such a size means for the labels; empty where it is a stride's.

    Raises:
        ExportError: Another batch, classes last, height and width swapped, a size that is not the picture's over a
            stride, or labels.
    """
    shape, picture = tuple(logits.shape), f"{size[0]}x{size[1]}"
    if shape[0] != 1 or shape[1] == 0:
        raise ExportError(f"the network returned {shape} for one picture; expected logits (1, classes, height, width)")
    stretched = not _fits(shape[2:], size)
    if stretched and not (asked and _upright(shape, size)):
        raise ExportError(_misfit(shape, size, picture))
    if not cut and shape[1] == 1 and _whole_numbers(logits):
        raise ExportError(
            f"the network returned one channel {shape} of whole numbers only, which are labels, not logits; return the "
            "logits before argmax, round or threshold, or give --threshold for a mask (0.5 for 0 and 1, 127.5 for "
            "0..255)"
        )
    return _stretched(shape[2:], size) if stretched else ""


def _whole_numbers(logits: Tensor) -> bool:
    """Whether there are whole numbers only, and not one everywhere."""
    return bool((logits == logits.round()).all()) and bool((logits != logits.flatten()[0]).any())


def _misfit(shape: tuple[int, ...], size: Size, picture: str) -> str:
    returned = f"the network returned {shape} for a picture of {picture}"
    upright = _upright(shape, size)
    if _fits(shape[1:3], size) and not upright:
        return (
            f"{returned}: the classes stand last; expected (N, classes, height, width), so permute them in its forward"
        )
    if shape[3] * size[1] == shape[2] * size[0]:  # rounded sides could be anything's
        return (
            f"{returned}: height and width are swapped; expected (N, classes, height, width), so transpose them in its "
            "forward"
        )
    anyway = f"; or take them as they are (--take PATH, '{_ALONE}' for a tensor alone)" if upright else ""
    return (
        f"{returned}, whose height and width are not the picture's divided by a stride, so labels would not lie on "
        f"their pixels; pad, or resize to the picture's shape, in its forward{anyway}"
    )


def _upright(shape: Sequence[int], size: Size) -> bool:
    """Whether the last two sides have the picture's shape, more than those before them or they themselves swapped."""
    _, channels, height, width = shape
    as_is = _distortion((height, width), size)
    return as_is <= min(_distortion((channels, height), size), _distortion((width, height), size))


def _distortion(sides: Size, size: Size) -> float:
    """How much more one side of a picture is scaled than the other; 1 where both are alike."""
    ratio = sides[0] * size[1] / (sides[1] * size[0])
    return max(ratio, 1 / ratio)


def _stretched(sides: Sequence[int], size: Size) -> str:
    """Say where labels lie whose logits are no stride of the picture."""
    stride = max(1, min(whole // side for whole, side in zip(size, sides, strict=True)))
    off = [
        f"{abs(whole - stride * side) / 2:g} {name}"
        for whole, side, name in zip(size, sides, ("rows", "columns"), strict=True)
        if whole != stride * side
    ]
    return (
        f"the logits are {sides[0]}x{sides[1]} for a picture of {size[0]}x{size[1]}, which is no stride of it; they "
        f"are stretched over it as by F.interpolate(logits, {size}), so where only borders were cut off or added, "
        f"labels lie up to {' and '.join(off)} beside their pixels"
    )


def _fits(sides: Iterable[int], size: Size) -> bool:
    """Whether sides are a picture's divided by a common stride, rounded either way, or multiplied by a number."""
    height, width = sides
    if height % size[0] == 0 and width % size[1] == 0 and height // size[0] == width // size[1]:
        return True
    return any(
        height in (size[0] // stride, -(-size[0] // stride)) and width in (size[1] // stride, -(-size[1] // stride))
        for stride in range(1, max(size) + 1)
    )


def _may_be_logits(tensor: Tensor, size: Size) -> bool:
    """Whether a tensor of a structure is a map: 4-D, or (N, H, W) of the picture's size, and no integers."""
    if not tensor.dtype.is_floating_point or tensor.numel() == 0:
        return False
    return tensor.ndim == 4 or (tensor.ndim == 3 and tuple(tensor.shape[1:]) == size)


def _given(tensors: Mapping[str, Tensor], take: str) -> Choice:
    if take == _ALONE and "" in tensors:
        return Choice("")
    if take not in tensors:
        raise UsageError(f"--take '{one_line(take)}' is none of what the network returned: {_listing(tensors)}")
    return Choice(take)


def _named(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors under the only key that means logits; all of them where there is no such key, or several."""
    paths = {path: path.split(".") for path in tensors}
    depth = _shared_depth(list(paths.values()))
    keys = {parts[depth] for parts in paths.values()} & set(_LOGIT_KEYS)
    if len(keys) != 1:
        return tensors
    return {path: tensors[path] for path, parts in paths.items() if parts[depth] in keys}


def _shared_depth(paths: list[list[str]]) -> int:
    """How many keys all paths begin with: a structure that holds one structure is looked at inside."""
    depth = 0
    while all(len(parts) > depth + 1 for parts in paths) and len({parts[depth] for parts in paths}) == 1:
        depth += 1
    return depth


def _ambiguous(tensors: Mapping[str, Tensor], maps: list[str]) -> UsageError:
    what = f"{len(maps)} of them may be the logits" if maps else "none of them is (N, classes, height, width)"
    return UsageError(
        f"the network returned {_listing(tensors)}; {what}, so say which are the logits with --take KEY_OR_INDEX "
        f"({', '.join((maps or list(tensors))[:_MOST_LISTED])})"
    )


def _listing(tensors: Mapping[str, Tensor], paths: list[str] | None = None) -> str:
    chosen = list(tensors) if paths is None else paths
    more = f" and {len(chosen) - _MOST_LISTED} more" if len(chosen) > _MOST_LISTED else ""
    return ", ".join(_described(path, tensors[path]) for path in chosen[:_MOST_LISTED]) + more


def _described(path: str, tensor: Tensor) -> str:
    kind = "" if tensor.dtype is torch.float32 else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{one_line(path) or 'a tensor alone'} {tuple(tensor.shape)}{kind}"
