"""Options on label maps: of ``edgeseg eval`` as they stand, of ``edgeseg export`` with ``--calib-`` before them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from edgeseg.labelled import LabelledPictures

__all__ = ["label_option", "labelled_pictures"]

_HELP = {
    "labels": "Folder of label maps, same stem: PNG with class indices, a colour table, or the classes' colours.",
    "dataset": (
        "A data set as downloaded, instead of two folders: cityscapes, ade20k, voc, camvid, coco-stuff or binary."
    ),
    "ignore": "Label value of void pixels.",
    "positive_label": "Label value of class 1, such as 255.",
    "reduce_zero_label": "Label 0 is void and k + 1 means class k, as in ADE20K.",
    "label_map": "JSON or CSV: label value or #RRGGBB to class or void.",
    "label_suffix": "End of label maps' names after the stem.",
    "recursive": "Also pictures of subfolders; their label maps lie in the same subfolders.",
}

_VALUES: dict[str, Any] = {
    "ignore": None,
    "positive_label": None,
    "reduce_zero_label": False,
    "label_map": None,
    "label_suffix": ".png",
}
"""Options that concern label maps alone, and their defaults."""


def label_option(name: str, *, flags: str = "--", ending: str = "", **more: Any) -> Any:
    """Make an option.

    Args:
        name: Field of `LabelledPictures`.
        flags: How the option begins.
        ending: Added to the help.
        more: Of `typer.Option`.
    """
    return typer.Option(f"{flags}{name.replace('_', '-')}", help=_HELP[name] + ending, **more)


def labelled_pictures(
    images: Path | None,
    labels: Path | None,
    dataset: tuple[str, Path] | None,
    options: Mapping[str, Any],
    *,
    flags: str = "--",
) -> LabelledPictures | None:
    """Make one object of what a command was given; None where that is no label map at all.

    Args:
        images: Folder of pictures.
        labels: Folder of label maps.
        dataset: Name and root of a data set, instead of both.
        options: Value of each other option, by the field of `LabelledPictures`; more may be among them.
        flags: How the command's options begin.

    Raises:
        UsageError: Options that cancel one another, or that concern label maps where there are none.
    """
    from edgeseg.errors import UsageError
    from edgeseg.labelled import LabelledPictures

    values = {name: options[name] for name in (*_VALUES, "recursive")}
    first = flags.rstrip("-") or f"{flags}images"
    if dataset is not None:
        if images is not None or labels is not None:
            raise UsageError(f"{flags}dataset NAME ROOT finds both folders itself; leave {first} and {flags}labels out")
        return LabelledPictures(dataset[1], dataset[1], dataset=dataset[0], flags=flags, **values)
    if labels is not None and images is not None:
        return LabelledPictures(images, labels, flags=flags, **values)
    given = [name for name, default in _VALUES.items() if options[name] != default]
    if labels is not None or given:
        what = f"{flags}{given[0].replace('_', '-')}" if labels is None else f"{flags}labels"
        wanted = " and ".join(flag for flag, value in ((first, images), (f"{flags}labels", labels)) if value is None)
        raise UsageError(f"{what} concerns label maps of pictures; give {wanted} too, or {flags}dataset NAME ROOT")
    return None
