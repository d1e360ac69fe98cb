"""Refusals of a graph, a sample or a machine that contradicts the bundle's manifest."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg._optional import package_version
from edgeseg.bundle import SAMPLE_LABELS, Bundle
from edgeseg.decoding import decode
from edgeseg.errors import BundleError, InputError, ParityError
from edgeseg.images import input_digest
from edgeseg.runtimes import Session
from edgeseg.text import one_line

__all__ = ["check_graph", "check_sample_input", "read_sample_labels"]

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


def check_sample_input(bundle: Bundle, fitted: NDArray[np.uint8]) -> None:
    """Compare what the bundle's sample became here, as the network's input, with what it became at export.

    Raises:
        ParityError: They differ: this machine decodes or resizes otherwise, and so for every picture.
    """
    expected, found = bundle.manifest.sample_input, input_digest(fitted)
    if expected not in ("", found):
        raise ParityError(
            f"the sample of bundle '{one_line(bundle.path)}' becomes another network input here than at export "
            f"(SHA-256 {found[:12]} instead of {expected[:12]}): this machine decodes or resizes pictures otherwise, "
            f"so that its masks differ whatever the engine; use OpenCV and edgeseg as at export ({_versions(bundle)})"
        )


def _versions(bundle: Bundle) -> str:
    """OpenCV and edgeseg, at export and here."""
    at_export = bundle.manifest.versions
    opencv = next((version for name, version in at_export.items() if name.startswith("opencv")), "unknown")
    return one_line(
        f"there OpenCV {opencv} and edgeseg {at_export.get('edgeseg', 'unknown')}, here OpenCV {cv2.__version__} and "
        f"edgeseg {package_version('edgeseg') or 'unknown'}"
    )


def read_sample_labels(bundle: Bundle) -> NDArray[Any]:
    """Read the labels of the bundle's sample picture.

    Raises:
        BundleError: The bundle holds none, or they cannot be read.
    """
    try:
        return decode(bundle.read(SAMPLE_LABELS), SAMPLE_LABELS, stored=True).image
    except InputError as error:
        raise BundleError(f"bundle '{one_line(bundle.path)}': {error}; export it again") from error
