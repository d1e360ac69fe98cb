"""Write what a device and an exporting machine install as CycloneDX files, and check them.

Run by ``make sbom``. The project and its dependencies are installed in an environment without pip, so that the
files list nothing else; cyclonedx-bom looks at it from an environment of its own and checks its files against the
schema. Here it is checked that every component is a pin of constraints.txt, in that version, and states a licence.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.lock_hashes import PINS, ROOT, pinned_version, read_pins

TOOL = "cyclonedx-bom"
SPEC = "1.6"
KINDS = {"device": "", "export": "export"}  # file: extra; the second is installed over the first


def new_environment(folder: Path) -> Path:
    """Make an empty environment without pip; gives its Python."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


def install(python: Path, *what: str) -> None:
    """Install into another environment, in the pinned versions; the build backend is pinned too."""
    constraints = ("--constraint", str(PINS), "--build-constraint", str(PINS))
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-compile",
        *constraints,
        *what,
    ]
    subprocess.run(command, check=True)


def write(tool: Path, python: Path, file: Path) -> dict[str, Any]:
    """Let cyclonedx-bom write and validate the file; gives what it holds."""
    form = ("--output-format", "JSON", "--spec-version", SPEC, "--output-reproducible", "--validate")
    about = ("--gather-license-texts", "--pyproject", str(ROOT / "pyproject.toml"), "--output-file", str(file))
    subprocess.run([tool.with_name("cyclonedx-py"), "environment", *form, *about, python], check=True)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def faults(bom: dict[str, Any], extra: str) -> list[str]:
    """What is wrong with a file, a sentence each: components against pins, direct dependencies, licences."""
    pins = {canonicalize_name(pin.name): pinned_version(pin) for pin in read_pins(PINS)}
    parts = {canonicalize_name(part["name"]): part for part in bom["components"]}
    sentences = [f"{name} is no pin of {PINS.name}; expected it there" for name in parts if name not in pins]
    for name, part in parts.items():
        if name in pins and Version(Version(part["version"]).public) != pins[name]:
            sentences.append(f"{name} is {part['version']}; expected {pins[name]}, its pin")
        if not part.get("licenses"):
            sentences.append(f"{name} states no licence; expected one in its metadata")
    wanted = [Requirement(line) for line in requires("edgeseg") or ()]
    direct = {canonicalize_name(need.name) for need in wanted if _applies(need, extra)}
    sentences += [f"{name} is missing; expected it as a dependency of edgeseg" for name in sorted(direct - set(parts))]
    if not extra and "torch" in parts:
        sentences.append("torch is on the device; expected it with the extra 'export' only")
    if bom["metadata"]["component"]["name"] != "edgeseg" or bom["specVersion"] != SPEC:
        sentences.append(f"the file is not edgeseg's in CycloneDX {SPEC}; expected that")
    return sentences


def _applies(need: Requirement, extra: str) -> bool:
    return need.marker is None or need.marker.evaluate({"extra": extra})


def main(folder: Path) -> None:
    """Write and check both files."""
    folder.mkdir(parents=True, exist_ok=True)
    tool, python = new_environment(folder / "tool"), new_environment(folder / "machine")
    install(tool, TOOL)
    for kind, extra in KINDS.items():
        install(python, f"{ROOT}[{extra}]" if extra else str(ROOT))
        file = folder / f"{kind}.cdx.json"
        bom = write(tool, python, file)
        wrong = faults(bom, extra)
        if wrong:
            raise SystemExit("\n".join(f"sbom: {file.name}: {sentence}" for sentence in wrong))
        print(f"{file}: {len(bom['components'])} components, pinned, each with a licence")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
