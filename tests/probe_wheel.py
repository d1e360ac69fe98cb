"""Build the wheel, install it in a fresh environment outside the checkout, and see that it stands on its own.

Run by ``make wheel``. Checks the wheel's content, that importing edgeseg loads no torch, onnx or engine, and that the
base install (no extras) runs a bundle exported by this checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "onnxsim", "tensorrt_rtx_bindings", "cv2.gapi.wip")

PROBE = f"""
import sys
import edgeseg
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, f'import edgeseg loaded {{loaded}}'
from edgeseg import EdgesegError, Predictor
assert 'site-packages' in edgeseg.__file__, edgeseg.__file__
from edgeseg.postprocess.compiled import why_not
assert not why_not(), why_not()
predictor = Predictor(sys.argv[1], 'ort')
outcome = predictor.self_test()
assert outcome.differing == 0, outcome
assert 'torch' not in sys.modules and 'onnx' not in sys.modules
try:
    edgeseg.export_model('espnet_p2_q3')
except EdgesegError as error:
    assert 'edgeseg[export]' in str(error), error
else:
    raise SystemExit('export without torch did not refuse')
print('the wheel runs a bundle without torch:', outcome.pixels, 'labels equal')
"""


def run(*command: str | Path, cwd: Path) -> None:
    """Run a command with a clean Python environment; ends the probe when it fails."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    subprocess.run([str(part) for part in command], check=True, cwd=cwd, env=environment)


def check_content(wheel: Path) -> None:
    """The wheel holds the package once, its data and the typing marker, and nothing else at the top."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    extra = {top for top in tops if top != "edgeseg" and not top.endswith(".dist-info")}
    if extra:
        raise SystemExit(f"the wheel has {sorted(extra)} at its top; expected edgeseg alone")
    profile = "edgeseg/data/profiles/x86-avx512.json"
    library = "edgeseg/postprocess/_labels.so"
    for needed in (
        "edgeseg/py.typed",
        "edgeseg/data/astronaut.png",
        profile,
        "edgeseg/models/families/espnet.py",
        library,
    ):
        if names.count(needed) != 1:
            raise SystemExit(f"the wheel holds {needed} {names.count(needed)} times; expected once")


def main() -> None:
    """Build, install, probe."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", work, ROOT, cwd=work)
        (wheel,) = work.glob("*.whl")
        check_content(wheel)
        export = "import edgeseg; edgeseg.export_model('espnet_p2_q3', size=(64, 128), out='.')"
        run(sys.executable, "-c", export, cwd=work)
        run(sys.executable, "-m", "venv", work / "venv", cwd=work)
        python = work / "venv" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS, wheel, cwd=work)
        (work / "probe.py").write_text(PROBE)
        run(python, work / "probe.py", work / "espnet_p2_q3.edgeseg", cwd=work)
        run(work / "venv" / "bin" / "edgeseg", "doctor", cwd=work)


if __name__ == "__main__":
    main()
