"""`edgeseg sign`: what it writes, what it says, and where the password comes from."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from edgeseg.bundle import Bundle
from edgeseg.cli.sign import PASSWORD_VARIABLE
from edgeseg.signing import SIGNATURE, signature_of, verify_signature
from tests.cli.conftest import Edgeseg
from tests.runtimes.bundles import make_tiny_bundle

pytest.importorskip("model_signing", reason="model-signing is not installed: pip install 'edgeseg[sign]'")
if shutil.which("openssl") is None:
    pytest.skip("openssl makes the keys and is not here", allow_module_level=True)


def openssl(line: str, folder: Path) -> None:
    """A line of the command's help, as a person types it."""
    subprocess.run(line.split(), check=True, cwd=folder, capture_output=True)


@pytest.fixture(autouse=True)
def no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)


@pytest.fixture
def keys(tmp_path: Path, edgeseg: Edgeseg) -> Path:
    """Folder with private.pem, public.pem and locked.pem (password "word"), made as the help says."""
    lines = [line.strip() for line in edgeseg("sign", "--help").out.splitlines()]
    make, half, lock = (line for line in lines if line.startswith("openssl "))
    for line in (make, half, f"{lock} -passout pass:word"):
        openssl(line, tmp_path)
    return tmp_path


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path)


def test_sign_and_verify(bundle: Bundle, keys: Path, edgeseg: Edgeseg) -> None:
    done = edgeseg("sign", bundle.path, "--key", keys / "private.pem")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"signed tiny: {bundle.path / SIGNATURE} covers {len(bundle.manifest.files) + 1} files\n"
    assert verify_signature(bundle.path, [keys / "public.pem"]) == keys / "public.pem"
    assert [path.name for path in bundle.path.iterdir() if path.name.startswith(".")] == []


def test_an_older_signature_needs_a_word(bundle: Bundle, keys: Path, edgeseg: Edgeseg) -> None:
    assert edgeseg("sign", bundle.path, "--key", keys / "private.pem").code == 0
    before = (bundle.path / SIGNATURE).read_bytes()
    again = edgeseg("sign", bundle.path, "--key", keys / "private.pem")
    assert again.code == 2
    assert "--replace" in again.sentence
    assert (bundle.path / SIGNATURE).read_bytes() == before
    assert edgeseg("sign", bundle.path, "--key", keys / "private.pem", "--replace").code == 0
    assert (bundle.path / SIGNATURE).read_bytes() != before  # ECDSA signs differently each time


def test_the_password_comes_from_the_environment(
    bundle: Bundle, keys: Path, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = edgeseg("sign", bundle.path, "--key", keys / "locked.pem")
    assert missing.code == 2
    assert PASSWORD_VARIABLE in missing.sentence
    assert "--ask-password" in missing.sentence
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    assert edgeseg("sign", bundle.path, "--key", keys / "locked.pem").code == 2
    assert signature_of(bundle.path) is None
    monkeypatch.setenv(PASSWORD_VARIABLE, "word")
    assert edgeseg("sign", bundle.path, "--key", keys / "locked.pem").code == 0


def test_the_password_is_asked_for(
    bundle: Bundle, keys: Path, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda _: "word")
    assert edgeseg("sign", bundle.path, "--key", keys / "locked.pem", "--ask-password").code == 0

    def no_terminal(_: str) -> str:
        warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=2)
        return "shown"

    monkeypatch.setattr(getpass, "getpass", no_terminal)
    done = edgeseg("sign", bundle.path, "--key", keys / "locked.pem", "--ask-password", "--replace")
    assert done.code == 2
    assert "no terminal" in done.sentence


def test_there_is_no_password_option(edgeseg: Edgeseg) -> None:
    assert "--password" not in edgeseg("sign", "--help").out
    assert edgeseg("sign", "x", "--key", "y", "--password", "word").code == 2


def test_a_damaged_bundle_is_not_signed(bundle: Bundle, keys: Path, edgeseg: Edgeseg) -> None:
    (bundle.path / "model.onnx").write_bytes(b"")
    done = edgeseg("sign", bundle.path, "--key", keys / "private.pem")
    assert done.code == 5
    assert "is not the file that was exported" in done.sentence
    assert signature_of(bundle.path) is None


@pytest.mark.parametrize(("key", "code"), [("public.pem", 2), ("nothing.pem", 2), (".", 2)])
def test_keys_that_are_none(bundle: Bundle, keys: Path, edgeseg: Edgeseg, key: str, code: int) -> None:
    done = edgeseg("sign", bundle.path, "--key", keys / key)
    assert done.code == code
    assert "key" in done.sentence
