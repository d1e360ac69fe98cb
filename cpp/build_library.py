"""Compile the postprocessing for Python: ``cpp/library/labels.cpp`` to ``edgeseg/postprocess/_labels.so``.

    python cpp/build_library.py

pip runs it while it installs edgeseg from source or builds a wheel (``hatch_build.py``). It needs a C++17 compiler and
nothing else; CXX names another than c++, g++ or clang++.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["LIBRARY", "compile_library", "compiler", "sources_digest"]

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "edgeseg" / "postprocess" / "_labels.so"  # under one name on every system: ctypes does not mind
SOURCE = ROOT / "cpp" / "library" / "labels.cpp"
HEADER = ROOT / "cpp" / "include" / "edgeseg" / "postprocess.hpp"


def compiler() -> list[str] | None:
    """The C++ compiler's command, or None where there is none."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    return None if found is None else [found]


def sources_digest() -> str:
    """SHA-256 of the sources, hexadecimal."""
    return hashlib.sha256(SOURCE.read_bytes() + HEADER.read_bytes()).hexdigest()


def compile_library(target: Path = LIBRARY) -> None:
    """Compile the library to `target`, which appears whole or not at all.

    Raises:
        RuntimeError: There is no compiler, or it failed.
    """
    command = compiler()
    if command is None:
        raise RuntimeError("no C++ compiler was found; install one (Debian: apt install g++), or name it in CXX")
    flags = ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-shared", "-s"]
    if platform.system() != "Windows":
        flags.append("-fPIC")
    if platform.system() == "Linux":  # nothing but the C library is needed where it runs
        flags += ["-static-libstdc++", "-static-libgcc"]
    words = ["-I", str(HEADER.parents[1]), f'-DEDGESEG_SOURCES="{sources_digest()}"', str(SOURCE)]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        done = subprocess.run([*command, *flags, *words, "-o", str(made)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)} cannot compile '{SOURCE}': {done.stderr.strip()[-2000:]}")
        made.replace(target)


if __name__ == "__main__":
    try:
        compile_library()
    except RuntimeError as error:
        sys.exit(str(error))
