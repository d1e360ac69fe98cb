"""The names of the targets, and the words people use for them."""

from __future__ import annotations

import functools
from importlib import metadata

from edgeseg.errors import UnknownNameError

__all__ = ["ALIASES", "GRAPH_LABEL_TARGETS", "TARGETS", "registered_targets", "resolve_target"]

#: Canonical target name -> what it is, in words.
TARGETS: dict[str, str] = {
    "ort": "ONNX Runtime (CPU by default; CUDA and others by provider)",
    "openvino": "OpenVINO (CPU, Intel GPU and NPU)",
    "trt": "TensorRT (Jetson and data-centre GPUs; engine built on the device)",
    "trt-rtx": "TensorRT for RTX (desktop GPUs; engine built at export, without a GPU)",
    "torch": "plain PyTorch, the reference the others are compared with",
}

#: Targets whose graph ends in labels (resize and argmax on the GPU) as well as logits.
GRAPH_LABEL_TARGETS = frozenset({"trt", "trt-rtx"})

#: Other words for them.
ALIASES = {
    "onnxruntime": "ort",
    "onnx": "ort",
    "ov": "openvino",
    "tensorrt": "trt",
    "engine": "trt",
    "rtx": "trt-rtx",
    "tensorrt-rtx": "trt-rtx",
    "trt_rtx": "trt-rtx",
    "pytorch": "torch",
}


@functools.lru_cache(maxsize=1)
def registered_targets() -> frozenset[str]:
    """Names of the targets third parties registered through entry points."""
    return frozenset(entry.name for entry in metadata.entry_points(group="edgeseg.runtimes"))


def resolve_target(word: str) -> str:
    """Return the canonical target name for `word`.

    Args:
        word: A target name or alias, in any case: ``ort`` (``onnxruntime``, ``onnx``), ``openvino`` (``ov``),
            ``trt`` (``tensorrt``, ``engine``), ``trt-rtx`` (``rtx``), ``torch``.

    Raises:
        UnknownNameError: The word names no target; the message suggests the nearest.
    """
    lower = word.strip().lower()
    name = ALIASES.get(lower, lower)
    if name in TARGETS:
        return name
    for registered in sorted(registered_targets()):  # a third party may write its name with capitals
        if registered.lower() == lower:
            return registered
    raise UnknownNameError("target", word, {*TARGETS, *ALIASES, *registered_targets()})
