"""Compile the label kernel for the GPU: ``python -m tests.make_label_kernel [LIBNVRTC]``. It needs no GPU.

Writes ``edgeseg/runtimes/tensorrt/kernels/labels.ptx``, which ships. NVRTC comes from the wheel
``nvidia-cuda-nvrtc-cu11`` (11.8): the PTX of a newer one needs a newer driver than a Jetson of JetPack 6 has. The PTX
says in its first lines which sources it was made of, so that a test sees one that is stale.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import sys
from importlib import metadata
from pathlib import Path

from edgeseg.files import write_text

__all__ = ["FOLDER", "OPTIONS", "compile_kernel", "find_nvrtc", "source_digest"]

FOLDER = Path(__file__).resolve().parents[1] / "edgeseg" / "runtimes" / "tensorrt" / "kernels"
OPTIONS = ("--gpu-architecture=compute_75", "--fmad=false", "--ftz=false", "--std=c++14")
_PACKAGE = "nvidia-cuda-nvrtc-cu11"


def source_digest() -> str:
    """SHA-256 of the sources and the options."""
    parts = [(FOLDER / name).read_bytes() for name in ("labels.h", "labels.cu")]
    return hashlib.sha256(b"\0".join([*parts, " ".join(OPTIONS).encode()])).hexdigest()


def find_nvrtc() -> Path | None:
    """NVRTC of the installed wheel."""
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    found = [file.locate() for file in files if re.fullmatch(r"libnvrtc\.so\.[\d.]+|nvrtc64_\d+_0\.dll", file.name)]
    return Path(str(found[0])) if found else None


def compile_kernel(nvrtc: Path) -> str:
    """The PTX of the kernel.

    Raises:
        RuntimeError: NVRTC refuses it; quotes its log.
    """
    library = ctypes.CDLL(str(nvrtc))
    source, header = ((FOLDER / name).read_bytes() for name in ("labels.cu", "labels.h"))
    program = ctypes.c_void_p()
    headers, names = (ctypes.c_char_p * 1)(header), (ctypes.c_char_p * 1)(b"labels.h")
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source, b"labels.cu", 1, headers, names))
    options = (ctypes.c_char_p * len(OPTIONS))(*(option.encode() for option in OPTIONS))
    if library.nvrtcCompileProgram(program, len(OPTIONS), options) != 0:
        raise RuntimeError(_text(library, program, "Log"))
    ptx = _text(library, program, "PTX")
    kept = "\n".join(line for line in ptx.splitlines() if line.strip() and not line.startswith("//"))
    return f"// labels.cu and labels.h, {' '.join(OPTIONS)}\n// sources {source_digest()}\n{kept}\n"


def _text(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    _check(getattr(library, f"nvrtcGet{'ProgramLog' if what == 'Log' else what}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(library, f"nvrtcGet{'ProgramLog' if what == 'Log' else what}")(program, text))
    return text.value.decode()


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"NVRTC failed with {status}")


def main() -> None:
    """Write the PTX."""
    nvrtc = Path(sys.argv[1]) if len(sys.argv) > 1 else find_nvrtc()
    if nvrtc is None:
        raise SystemExit(f"NVRTC is not installed; run pip install {_PACKAGE}, or give the path of libnvrtc")
    write_text(FOLDER / "labels.ptx", compile_kernel(nvrtc))


if __name__ == "__main__":
    main()
