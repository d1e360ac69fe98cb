"""Names that the examples in edgeseg's docstrings use beside those of their own module."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeseg.labels import label_set
from edgeseg.predictor import Predictor
from edgeseg.results import Result
from tests.runtimes.bundles import make_tiny_bundle, picture

__all__ = ["globs"]


@functools.cache
def globs() -> dict[str, Any]:
    """Make what examples use, once per process; the files are removed when the process ends.

    Returns:
        ``bundle``: a tiny bundle for ONNX Runtime. ``folder``: a folder with ``images`` and ``labels`` (as the bundle
        predicts them). ``result``: a `Result` of 2x2 pixels, three of them person. ``unsigned``: the folder of another
        bundle. ``keys``: a folder with ``private.pem`` and ``public.pem``.
    """
    folder = Path(tempfile.mkdtemp(prefix="edgeseg-doctest-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bundle = make_tiny_bundle(folder)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    shutil.copy(bundle.file("sample.png"), folder / "images" / "sample.png")
    with Predictor(bundle) as predictor:
        labels = predictor(folder / "images" / "sample.png").labels
    cv2.imwrite(str(folder / "labels" / "sample.png"), labels)
    unsigned = make_tiny_bundle(folder, name="unsigned").path
    _write_keys(folder)
    person = label_set("person", 2)
    result = Result(np.array([[1, 1], [1, 0]], np.uint8), person.names, person.palette, image=picture((2, 2)))
    return {"bundle": bundle, "folder": folder, "result": result, "unsigned": unsigned, "keys": folder}


def _write_keys(folder: Path) -> None:
    """Write a private key and its public half."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "private.pem").write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    (folder / "public.pem").write_bytes(key.public_key().public_bytes(pem, public))
