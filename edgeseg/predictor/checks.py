"""Refusals of a graph or a sample that contradicts the bundle's manifest."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from edgeseg.bundle import SAMPLE_LABELS, Bundle
from edgeseg.decoding import decode
from edgeseg.errors import BundleError, InputError
from edgeseg.runtimes import Session
from edgeseg.text import one_line

__all__ = ["check_graph", "read_sample_labels"]

Shape = tuple[int | None, ...]


def check_graph(bundle: Bundle, session: Session) -> None:
    """Compare a graph's input and logits with the manifest, and close the session where they differ.

    Raises:
        BundleError: Names what differs.
    """
    manifest = bundle.manifest
    image, outputs = session.inputs[0], {tensor.name: tensor.shape for tensor in session.outputs}
    free = (None, None)
    size, logits = (free, free) if manifest.dynamic else (manifest.input_size, manifest.logit_size)
    tensors = [
        ("image", image.shape, (manifest.batch, *size, manifest.input.image_channels)),
        ("logits", outputs.get("logits"), (manifest.batch, manifest.num_classes, *logits)),
    ]
    for name, got, expected in tensors:
        if not _agree(got, expected):
            session.close()
            raise BundleError(
                f"the graph of bundle '{bundle.path}' has {name} of {_words(got) or 'no shape'}, its manifest says "
                f"{_words(expected)}; copy or export the bundle again"
            )


def _agree(got: Shape | None, expected: Shape) -> bool:
    """Compare two shapes; a free axis agrees with any."""
    if got is None or len(got) != len(expected):
        return False
    return all(None in (a, b) or a == b for a, b in zip(got, expected, strict=True))


def _words(shape: Shape | None) -> str:
    return " x ".join("?" if n is None else str(n) for n in shape or ())


def read_sample_labels(bundle: Bundle) -> NDArray[Any]:
    """Read the labels of the bundle's sample picture.

    Raises:
        BundleError: The bundle holds none, or they cannot be read.
    """
    try:
        return decode(bundle.read(SAMPLE_LABELS), SAMPLE_LABELS, stored=True).image
    except InputError as error:
        raise BundleError(f"bundle '{one_line(bundle.path)}': {error}; export it again") from error
