"""Picture files in memory."""

from __future__ import annotations

import io
from typing import Any

import pytest
from numpy.typing import NDArray

Image = pytest.importorskip("PIL.Image")


def encoded(array: NDArray[Any], kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()
