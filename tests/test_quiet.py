"""No command looks a host up or writes a file of its own accord, down to the native code of the packages it uses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg import _quiet
from edgeseg._quiet import switch_off_telemetry, telemetry
from tests.runtimes.bundles import make_tiny_bundle, picture

ROOT = Path(__file__).resolve().parents[1]
TINY = "tests.export.networks:tiny"
FRAMES = ("--min-samples", "3", "--max-samples", "3", "--seconds", "0")
FOLDERS = {
    "HOME": "home",
    "TMPDIR": "tmp",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_STATE_HOME": "state",
}


@dataclass(frozen=True)
class Place:
    """A machine nobody has used: empty folders of its own, no network where that is permitted, every look-up logged."""

    root: Path
    library: Path
    prefix: tuple[str, ...]

    def run(self, *words: object, **variables: str) -> str:
        """Run Python with these words; what it printed."""
        for folder in FOLDERS.values():
            (self.root / folder).mkdir(exist_ok=True)
        # Not this process's environment: it holds our switches, and in CI a variable that ends all telemetry by itself.
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
            **{name: str(self.root / folder) for name, folder in FOLDERS.items()},
            "LD_PRELOAD": str(self.library),
            "LOOKUPS": str(self.root / "lookups"),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }
        command = [*self.prefix, sys.executable, *map(str, words)]
        done = subprocess.run(
            command, env=environment, cwd=self.root / "home", capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def edgeseg(self, *words: object, **variables: str) -> str:
        """Run a command line."""
        return self.run("-m", "edgeseg", *words, **variables)

    @property
    def lookups(self) -> list[str]:
        """What would have reached another machine."""
        log = self.root / "lookups"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def files(self) -> list[str]:
        """Files and empty folders left behind."""
        paths = (path for folder in FOLDERS.values() for path in (self.root / folder).rglob("*"))
        left = (path for path in paths if not path.is_dir() or not any(path.iterdir()))
        return sorted(path.relative_to(self.root).as_posix() for path in left)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``lookups.c``, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler, to see the look-ups of native code")
    built = tmp_path_factory.mktemp("lookups") / "lookups.so"
    source = Path(__file__).with_name("lookups.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(built), str(source), "-ldl"], check=True)
    return built


@pytest.fixture
def place(library: Path, tmp_path: Path) -> Place:
    """A `Place`, cut off from the network where this user may do that."""
    prefix = ("unshare", "-n")
    able = (
        shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    )
    return Place(tmp_path, library, prefix if able else ())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino")
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"), targets=("ort", "openvino", "torch")).path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(6):
        cv2.imwrite(str(folder / f"{seed}.png"), picture(seed=seed))
    return folder


def test_the_library_sees_look_ups(place: Place) -> None:
    looks = "import socket\ntry: socket.getaddrinfo('nowhere.example', 80)\nexcept OSError: pass"
    sends = "socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    place.run("-c", f"{looks}\ntry: {sends}\nexcept OSError: pass")
    assert place.lookups == ["getaddrinfo nowhere.example", "connect "]


def test_what_is_switched_off_is_real(place: Place, bundle: Path) -> None:
    """With the switches turned the other way, the same commands do what the others must not."""
    (place.root / "home" / "intel").mkdir(parents=True)
    (place.root / "home" / "intel" / "openvino_telemetry").write_text("1")
    place.edgeseg("verify", bundle, "-t", "ort", "openvino", ORT_DISABLE_TELEMETRY="0")
    assert "getaddrinfo www.google-analytics.com" in place.lookups
    assert any(name.startswith("cache/Microsoft/") for name in place.files)
    assert "home/intel/openvino_ga_cid" in place.files


def test_commands_on_a_device(place: Place, bundle: Path, pictures: Path) -> None:
    for target in ("ort", "openvino"):
        place.edgeseg("predict", bundle, pictures, "--target", target, "--out", place.root / "out")
    place.edgeseg("benchmark", bundle, "--target", "ort", "openvino", *FRAMES)
    place.edgeseg("verify", bundle)
    place.edgeseg("doctor", bundle)
    place.edgeseg("models", "espnet*")
    labels = place.root / "labels"
    labels.mkdir()
    for file in pictures.iterdir():
        cv2.imwrite(str(labels / file.name), np.zeros((32, 48), np.uint8))
    place.edgeseg("eval", bundle, "--images", pictures, "--labels", labels, "--target", "openvino")
    assert (place.root / "out").is_dir()
    assert place.lookups == []
    assert place.files == []


def test_signing(place: Place, bundle: Path) -> None:
    pytest.importorskip("model_signing")
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the key")
    private, public = place.root / "private.pem", place.root / "public.pem"
    command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private)]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(
        ["openssl", "ec", "-in", str(private), "-pubout", "-out", str(public)], check=True, capture_output=True
    )
    copy = Path(shutil.copytree(bundle, place.root / "signed.edgeseg"))
    place.edgeseg("sign", copy, "--key", private)
    place.edgeseg("verify", copy, "--key", public, "-t", "ort")
    assert place.lookups == []
    assert place.files == []


def test_export(place: Place) -> None:
    place.edgeseg("export", TINY, "--size", "32x48", "-t", "ort", "openvino", "--out", place.root / "out")
    assert (place.root / "out" / "tiny.edgeseg" / "openvino" / "model.xml").is_file()
    assert place.lookups == []
    assert place.files == []


@pytest.mark.slow
def test_export_int8(place: Place, pictures: Path) -> None:
    pytest.importorskip("nncf")
    words = ("--size", "32x48", "-t", "ort", "openvino", "--precision", "int8", "--calib", pictures)
    place.edgeseg("export", TINY, *words, "--min-agreement", "0.5", "--force", "--out", place.root / "out")
    assert (place.root / "out" / "tiny.edgeseg" / "openvino" / "model.xml").is_file()
    assert place.lookups == []
    assert place.files == []


def test_a_cache_is_all_that_is_kept(place: Place, bundle: Path) -> None:
    opens = "import sys, edgeseg\nfrom edgeseg import RuntimeOptions as Options\n"
    opens += "edgeseg.Predictor(sys.argv[1], target='openvino', options=Options(cache_dir=sys.argv[2]))"
    place.run("-c", opens, bundle, place.root / "cache" / "edgeseg")
    assert place.lookups == []
    assert place.files
    assert all(name.startswith("cache/edgeseg/") for name in place.files)


def test_a_forked_child_ends(place: Place, bundle: Path) -> None:
    """With its telemetry on, ONNX Runtime's destructors wait for a thread that a forked child does not have."""
    program = """
import os, signal, sys, time
import edgeseg
edgeseg.Predictor(sys.argv[1])(os.path.join(sys.argv[1], "sample.png"))
child = os.fork()
if child == 0:
    sys.exit(0)
end = time.monotonic() + 20
while os.waitpid(child, os.WNOHANG) == (0, 0):
    if time.monotonic() > end:
        os.kill(child, signal.SIGKILL)
        os.write(1, b"hangs")
        os._exit(0)
    time.sleep(0.02)
os.write(1, b"ended")
os._exit(0)
"""
    assert place.run("-c", program, bundle) == "ended"


# --- who decides -------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that has not imported edgeseg yet; returns the user's home."""
    monkeypatch.setattr(_quiet, "_ours", set())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "openvino_telemetry", sys)
    monkeypatch.delitem(sys.modules, "openvino_telemetry")
    for switch in _quiet.SWITCHES:
        monkeypatch.setenv(switch.variable, "")
        monkeypatch.delenv(switch.variable)
    return tmp_path


def _consent(home: Path, word: str) -> None:
    folder = home / ("Intel Corporation" if os.name == "nt" else "intel")
    folder.mkdir()
    (folder / "openvino_telemetry").write_text(f"{word}\n")


@pytest.mark.usefixtures("fresh")
def test_edgeseg_decides_where_nobody_else_did() -> None:
    switch_off_telemetry()
    assert all(os.environ[switch.variable] == "1" for switch in _quiet.SWITCHES)
    with pytest.raises(ModuleNotFoundError):
        __import__("openvino_telemetry")
    assert list(map(str, telemetry())) == ["onnxruntime off (edgeseg)", "nncf off (edgeseg)", "openvino off (edgeseg)"]


@pytest.mark.parametrize(("value", "word"), [("0", "on"), ("", "on"), ("1", "off"), (" Yes", "off")])
@pytest.mark.usefixtures("fresh")
def test_a_variable_of_the_user_stays(monkeypatch: pytest.MonkeyPatch, value: str, word: str) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", value)
    switch_off_telemetry()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == value
    state = str(telemetry()[0])
    assert state == f"onnxruntime {word} (ORT_DISABLE_TELEMETRY={value.strip()} in the environment)"


@pytest.mark.usefixtures("fresh")
def test_nncf_is_off_where_it_cannot_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNCF_CI", "")
    switch_off_telemetry()
    assert str(telemetry()[1]) == "nncf off (edgeseg)"
    monkeypatch.delitem(sys.modules, "openvino_telemetry")
    assert str(telemetry()[1]) == "nncf on (NNCF_CI= in the environment)"


@pytest.mark.parametrize(
    ("word", "state"), [("1", "openvino on (opt_in_out --opt_in)"), ("0", "openvino off (opt_in_out --opt_out)")]
)
def test_the_users_choice_for_openvino_counts(fresh: Path, word: str, state: str) -> None:
    _consent(fresh, word)
    switch_off_telemetry()
    assert ("openvino_telemetry" in sys.modules) == (word == "0")
    assert str(telemetry()[2]) == state


@pytest.mark.usefixtures("fresh")
def test_what_was_imported_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", os)
    switch_off_telemetry()
    assert sys.modules["openvino_telemetry"] is os
    assert str(telemetry()[2]) == "openvino on (openvino_telemetry was imported before edgeseg)"


@pytest.mark.parametrize(("own", "kept"), [(None, "2"), ("1", "1")])
def test_lines_of_native_code_are_hushed_unless_the_user_wants_them(
    own: str | None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HWLOC_HIDE_ERRORS", raising=False)
    if own is not None:
        monkeypatch.setenv("HWLOC_HIDE_ERRORS", own)
    _quiet.hush()
    assert os.environ["HWLOC_HIDE_ERRORS"] == kept
    monkeypatch.setenv("HWLOC_HIDE_ERRORS", kept)
