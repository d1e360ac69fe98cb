"""Write down which names TensorRT's Python package has: ``python -m tests.make_tensorrt_names WHEEL...``.

A wheel of ``tensorrt-cu12-bindings`` is taken (``pip download --no-deps tensorrt-cu12-bindings==10.3.0``), which holds
the Python classes and not the libraries behind them. Those are stood in for by a library with the nine functions that
the classes call, all of which give null, so that the classes can be imported and looked at without a GPU.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from edgeseg.files import write_text

__all__ = ["FOLDER", "names_of", "names_of_wheel"]

FOLDER = Path(__file__).parent / "runtimes" / "tensorrt" / "names"

_LIBRARIES = ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin")
_FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry"),
    *("getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins"),
)
_NOT_OURS = re.compile(r"Layer$|[Pp]lugin|Calibrat|Algorithm|^Dims|Attention|^Resize|Operation$")
"""Classes that are left out: layers and their options, plugins, and ways of calibration that are gone."""

_LOOK = """
import importlib.util, json, sys
from tests.make_tensorrt_names import names_of
spec = importlib.util.spec_from_file_location("tensorrt", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps(names_of(module)))
"""


def names_of(module: Any) -> dict[str, list[str]]:
    """Public names of the module (under ``""``) and of each of its classes that edgeseg may use."""
    classes = [name for name in dir(module) if isinstance(getattr(module, name), type) and not _NOT_OURS.search(name)]
    return {"": _public(module), **{name: _public(getattr(module, name)) for name in classes}}


def names_of_wheel(wheel: Path) -> dict[str, list[str]]:
    """The names in a wheel of the bindings, which must be of this Python's version."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)
        module = next(Path(folder).rglob("tensorrt.so"))
        needed = subprocess.run(["readelf", "-d", module], capture_output=True, text=True, check=True).stdout
        source = Path(folder, "none.c")
        source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in _FUNCTIONS))
        for library in re.findall(rf"\[((?:{'|'.join(_LIBRARIES)})\.so\.\d+)\]", needed):
            subprocess.run(["cc", "-shared", "-fPIC", "-o", Path(folder, library), source], check=True)
        environment = {**os.environ, "LD_LIBRARY_PATH": folder}
        command = [sys.executable, "-c", _LOOK, str(module)]
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        names: dict[str, list[str]] = json.loads(said)
        return names


def _public(value: Any) -> list[str]:
    return sorted(name for name in dir(value) if not name.startswith("_"))


def main(wheels: list[str]) -> None:
    """Write one file per wheel, named after its version, with a line per class."""
    for wheel in map(Path, wheels):
        package, version = wheel.name.split("-")[:2]
        lines = [f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in names_of_wheel(wheel).items()]
        text = f'{{\n  "wheel": "{package} {version}",\n' + ",\n".join(lines) + "\n}\n"
        write_text(FOLDER / f"tensorrt-{version}.json", text)


if __name__ == "__main__":
    main(sys.argv[1:])
