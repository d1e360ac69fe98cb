"""The C++ compiler and the libraries that the tests of ``cpp/`` build with."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["CPP", "compile_library", "json_headers"]

CPP = Path(__file__).resolve().parents[2] / "cpp"


def json_headers() -> Path:
    """The folder with ``nlohmann/json.hpp``, of the package nlohmann-json."""
    found = importlib.util.find_spec("nlohmann_json")
    if found is None or found.origin is None:
        pytest.skip("needs the headers of nlohmann/json: pip install nlohmann-json")
    return Path(found.origin).parent / "include"


def compile_library(source: Path, library: Path, *flags: str) -> ctypes.CDLL:
    """Compile one file to a shared library and load it."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    always = ["-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I", str(CPP / "include")]
    subprocess.run([compiler, *always, *flags, "-o", str(library), str(source)], check=True)
    return ctypes.CDLL(str(library))
