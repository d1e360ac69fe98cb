"""What a file is that is no checkpoint, judged by its first bytes or by what an archive holds."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath

from edgeseg.models.readers.refusals import AGAIN, UnreadableError

__all__ = ["check_archive", "check_head", "looks_like_text"]

HEAD = 1024
"""Bytes of a file that `check_head` looks at."""

_UNPACK = "unpack it and give the weights file in it"
_PACKED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "zstd",
}  # fmt: skip
_OTHERS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes them",
    b"\x93NUMPY": "a single numpy array",
    b"GGUF": "a GGUF file",
    b"\x7fELF": "a program",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".pdparams", ".onnx", ".bin")
_EXPORTED = ("serialized_exported_program.json", "archive_format", "archive_version")


def check_head(head: bytes) -> None:
    """Refuse a file that is known to be something else.

    Args:
        head: Its first `HEAD` bytes, or all where it is shorter.

    Raises:
        UnreadableError: It is; says what it is and what to do.
    """
    words = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if words.startswith(b"version https://git-lfs"):
        raise UnreadableError("is a Git LFS pointer and not the file itself", f"run git lfs pull, or {AGAIN}")
    if words.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")):
        raise UnreadableError("is a web page and not a weights file", f"open the address in a browser, or {AGAIN}")
    for magic, kind in _PACKED.items():
        if head.startswith(magic):
            raise UnreadableError(f"is a {kind} archive", _UNPACK)
    for magic, kind in _OTHERS.items():
        if head.startswith(magic):
            raise UnreadableError(f"is {kind} and not a checkpoint", "give a PyTorch, safetensors, Paddle or ONNX file")
    if head[4:8] == b"TFL3":
        raise UnreadableError("is a TensorFlow Lite model", "give the checkpoint that it was made from")
    if head[257:262] == b"ustar":
        raise UnreadableError(
            "is a tar archive: one of weights, or a checkpoint of PyTorch before 0.1.10",
            "unpack it, or load it with an old PyTorch and save its state dict again",
        )


def looks_like_text(head: bytes) -> bool:
    """Check whether these bytes are something to read, such as a configuration or a message."""
    return len(head) > 0 and all(byte in b"\t\n\r\x0c" or 32 <= byte < 127 or byte >= 0xA0 for byte in head)


def check_archive(names: Collection[str]) -> None:
    """Refuse a zip that is known to be something else than a PyTorch checkpoint.

    Args:
        names: Of its entries.

    Raises:
        UnreadableError: It is; says what it is and what to do.
    """
    last = {PurePosixPath(name).name for name in names}
    if not names:
        raise UnreadableError("is an empty zip archive")
    if "constants.pkl" in last:
        raise UnreadableError(
            "is a TorchScript archive, which holds code besides weights",
            "save its weights where you trust it: torch.save(torch.jit.load(file).state_dict(), 'weights.pth'), or "
            "give it as the network itself (edgeseg export FILE)",
        )
    if last & set(_EXPORTED):
        raise UnreadableError(
            "is an exported program (.pt2)",
            "save its weights where you trust it: torch.save(torch.export.load(file).state_dict, 'weights.pth'), or "
            "give it as the network itself (edgeseg export FILE)",
        )
    if all(name.endswith(".npy") for name in names):
        raise UnreadableError("is an archive of numpy arrays (.npz)", "save them with safetensors.numpy.save_file")
    if "data.pkl" not in last:
        inside = any(name.endswith(_WEIGHTS) for name in names)
        raise UnreadableError("is a zip archive and not a checkpoint", _UNPACK if inside else AGAIN)
