"""Signed bundles: what was signed is accepted, and whatever else a folder can be is not."""

from __future__ import annotations

import base64
import importlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeseg.errors import BundleError, TargetUnavailableError, UsageError
from edgeseg.signing import SIGNATURE, sign_bundle, signature_of, signed_files, verify_signature

pytest.importorskip("model_signing", reason="model-signing is not installed: pip install 'edgeseg[sign]'")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

model_signing: Any = importlib.import_module("model_signing")
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
SEC1 = serialization.PrivateFormat.TraditionalOpenSSL
PLAIN = serialization.NoEncryption()


def make_key(folder: Path, name: str, key: Any = None, *, form: Any = SEC1, password: bytes | None = None) -> Path:
    """Write ``NAME.pem`` and ``NAME.pub.pem``, as openssl does; returns the private one."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    locked = serialization.BestAvailableEncryption(password) if password else PLAIN
    public = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub.pem").write_bytes(public)
    path = folder / f"{name}.pem"
    path.write_bytes(key.private_bytes(PEM, form, locked))
    return path


def public(key: Path) -> Path:
    return key.with_suffix(".pub.pem")


def make_bundle(folder: Path, name: str = "tiny.edgeseg", text: str = "a graph") -> Path:
    path = folder / name
    (path / "labels").mkdir(parents=True)
    (path / "manifest.json").write_text("{}")
    (path / "model.onnx").write_text(text)
    (path / "labels" / "cpu.onnx").write_text("labels")
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path, "key")


@pytest.fixture
def bundle(tmp_path: Path, key: Path) -> Path:
    """A signed bundle."""
    path = make_bundle(tmp_path)
    sign_bundle(path, key)
    return path


def test_a_signature_is_verified_and_its_key_returned(bundle: Path, key: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path, "other")
    assert signature_of(bundle) == bundle / SIGNATURE
    assert verify_signature(bundle, [public(key)]) == public(key)
    assert verify_signature(bundle, [public(other), public(key)]) == public(key)
    assert signed_files(bundle) == ["labels/cpu.onnx", "manifest.json", "model.onnx"]
    moved = bundle.rename(tmp_path / "renamed")
    assert verify_signature(str(moved), [str(public(key))]) == public(key)


def test_no_network_is_used(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network is used")

    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    bundle = make_bundle(tmp_path)
    sign_bundle(bundle, key)
    assert verify_signature(bundle, [public(key)]) == public(key)


def test_nothing_is_printed(tmp_path: Path, key: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path)
    sign_bundle(bundle, key)
    verify_signature(bundle, [public(key)])
    assert capfd.readouterr() == ("", "")


def test_model_signing_itself_verifies_it(bundle: Path, key: Path) -> None:
    config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public(key))
    config.verify(bundle, bundle / SIGNATURE)
    (bundle / "model.onnx").write_text("another")
    with pytest.raises(ValueError, match=r"model\.onnx"):
        config.verify(bundle, bundle / SIGNATURE)


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
@pytest.mark.parametrize("form", [SEC1, PKCS8])
def test_curves_and_forms_of_keys(tmp_path: Path, curve: Any, form: Any) -> None:
    key = make_key(tmp_path, "key", ec.generate_private_key(curve()), form=form, password=b"word")
    bundle = make_bundle(tmp_path)
    sign_bundle(bundle, key, password="word")
    assert verify_signature(bundle, [public(key)]) == public(key)


def _change(bundle: Path) -> None:
    (bundle / "model.onnx").write_text("a grapH")


def _add(bundle: Path) -> None:
    (bundle / "labels" / "more.onnx").write_text("unlisted")


def _add_hidden(bundle: Path) -> None:
    (bundle / ".gitignore").write_text("model-signing leaves this one out if it is let")


def _add_undecodable(bundle: Path) -> None:
    Path(os.fsdecode(os.fsencode(bundle) + b"/\xff")).touch()


def _add_signature_below(bundle: Path) -> None:
    (bundle / "labels" / SIGNATURE).write_text("only the one at the top is the signature")


def _remove(bundle: Path) -> None:
    (bundle / "labels" / "cpu.onnx").unlink()


def _rename(bundle: Path) -> None:
    (bundle / "model.onnx").rename(bundle / "model2.onnx")


def _empty(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"")


def _link(bundle: Path) -> None:
    """The same bytes, but from somewhere else tomorrow."""
    (bundle / "model.onnx").rename(bundle.parent / "elsewhere.onnx")
    (bundle / "model.onnx").symlink_to(bundle.parent / "elsewhere.onnx")


def _link_folder(bundle: Path) -> None:
    (bundle / "labels").rename(bundle.parent / "elsewhere")
    (bundle / "labels").symlink_to(bundle.parent / "elsewhere")


def _link_signature(bundle: Path) -> None:
    (bundle / SIGNATURE).rename(bundle.parent / "elsewhere")
    (bundle / SIGNATURE).symlink_to(bundle.parent / "elsewhere")


def _pipe(bundle: Path) -> None:
    os.mkfifo(bundle / "pipe")


def _unsign(bundle: Path) -> None:
    (bundle / SIGNATURE).unlink()


def _cut(bundle: Path) -> None:
    data = (bundle / SIGNATURE).read_bytes()
    (bundle / SIGNATURE).write_bytes(data[: len(data) // 2])


def _garble(bundle: Path) -> None:
    (bundle / SIGNATURE).write_bytes(b"\xff\x00")


def _folder(bundle: Path) -> None:
    (bundle / SIGNATURE).unlink()
    (bundle / SIGNATURE).mkdir()


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(bundle: Path) -> None:
        data = json.loads((bundle / SIGNATURE).read_text())
        change(data)
        (bundle / SIGNATURE).write_text(json.dumps(data))

    edit.__name__ = change.__name__
    return edit


def _other_signature(data: dict[str, Any]) -> None:
    raw = bytearray(base64.b64decode(data["dsseEnvelope"]["signatures"][0]["sig"]))
    raw[-1] ^= 1
    data["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(raw).decode()


def _no_signature(data: dict[str, Any]) -> None:
    data["dsseEnvelope"]["signatures"] = []


def _other_content(data: dict[str, Any]) -> None:
    payload = base64.b64decode(data["dsseEnvelope"]["payload"]).replace(b"labels/cpu.onnx", b"labels/gpu.onnx")
    data["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()


def _no_hint(data: dict[str, Any]) -> None:
    del data["verificationMaterial"]["publicKey"]["hint"]


def _other_hint(data: dict[str, Any]) -> None:
    data["verificationMaterial"]["publicKey"]["hint"] = "\x1b[2J" + "0" * 64


def _list(data: dict[str, Any]) -> None:
    data["dsseEnvelope"] = []


DAMAGE = [
    (_change, r"not the one that was signed: model\.onnx changed; get it again"),
    (_empty, r"model\.onnx changed"),
    (_add, r"labels/more\.onnx not signed"),
    (_add_hidden, r"\.gitignore not signed"),
    (_add_undecodable, r"\\udcff not signed"),
    (_add_signature_below, r"labels/signature\.sig not signed"),
    (_remove, r"labels/cpu\.onnx missing"),
    (_rename, r"model2\.onnx not signed, model\.onnx missing"),
    (_link, r"'model\.onnx' in bundle .* is a link"),
    (_link_folder, r"'labels' in bundle .* is a link"),
    (_link_signature, r"'signature\.sig' in bundle .* is a link"),
    (_pipe, "is no file"),
    (_unsign, "is not signed, and only signed ones are trusted here; sign it"),
    (_cut, "cut or garbled"),
    (_garble, "cut or garbled"),
    (_folder, "cannot be read"),
    (_edit(_other_signature), "not what the owner of the key made"),
    (_edit(_no_signature), "not the one that was signed"),
    (_edit(_other_content), "not what the owner of the key made"),
    (_edit(_no_hint), "cut or garbled"),
    (_edit(_other_hint), r"a key that is not trusted \(SHA-256 \\x1b\[2J000"),
    (_edit(_list), "cut or garbled"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[damage.__name__.strip("_") for damage, _ in DAMAGE])
def test_anything_else_is_refused(bundle: Path, key: Path, damage: Callable[[Path], None], message: str) -> None:
    assert verify_signature(bundle, [public(key)]) == public(key)
    damage(bundle)
    with pytest.raises(BundleError, match=message):
        verify_signature(bundle, [public(key)])


def test_another_key(bundle: Path, key: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path, "other")
    with pytest.raises(BundleError, match="signed by a key that is not trusted"):
        verify_signature(bundle, [public(other)])
    forged = json.loads((bundle / SIGNATURE).read_text())
    sign_bundle(bundle, other, replace=True)
    hint = json.loads((bundle / SIGNATURE).read_text())["verificationMaterial"]
    (bundle / SIGNATURE).write_text(json.dumps(forged | {"verificationMaterial": hint}))
    with pytest.raises(BundleError, match="not what the owner of the key made"):  # the name of the key is not proof
        verify_signature(bundle, [public(other)])


def test_the_signature_of_another_bundle(bundle: Path, key: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path, "other.edgeseg", "another graph")
    sign_bundle(other, key)
    shutil.copy(other / SIGNATURE, bundle / SIGNATURE)
    with pytest.raises(BundleError, match=r"model\.onnx changed"):
        verify_signature(bundle, [public(key)])


def test_a_signature_that_leaves_files_out(tmp_path: Path, key: Path) -> None:
    """model-signing obeys what a signature says is to be ignored; a bundle is signed whole or not at all."""
    bundle = make_bundle(tmp_path)
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=[SIGNATURE, "labels"])
    config = model_signing.signing.Config().set_hashing_config(hashing).use_elliptic_key_signer(private_key=key)
    config.sign(bundle, bundle / SIGNATURE)
    with pytest.raises(BundleError, match=r"labels/cpu\.onnx not signed"):
        verify_signature(bundle, [public(key)])


def test_hidden_files_are_signed_too(tmp_path: Path, key: Path) -> None:
    bundle = make_bundle(tmp_path)
    (bundle / ".git").mkdir()
    for name in (".gitignore", ".git/config"):
        (bundle / name).write_text(name)
    sign_bundle(bundle, key)
    assert verify_signature(bundle, [public(key)]) == public(key)
    (bundle / ".git" / "config").write_text("another")
    with pytest.raises(BundleError, match=r"\.git/config changed"):
        verify_signature(bundle, [public(key)])


def test_a_link_to_the_bundle_is_followed(bundle: Path, key: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle)
    assert verify_signature(tmp_path / "current", [public(key)]) == public(key)
    sign_bundle(tmp_path / "current", key, replace=True)
    assert verify_signature(bundle, [public(key)]) == public(key)


def test_an_older_signature_is_replaced_only_on_demand(bundle: Path, key: Path, tmp_path: Path) -> None:
    other, before = make_key(tmp_path, "other"), (bundle / SIGNATURE).read_bytes()
    with pytest.raises(UsageError, match="signed already"):
        sign_bundle(bundle, other)
    assert (bundle / SIGNATURE).read_bytes() == before
    _change(bundle)
    sign_bundle(bundle, other, replace=True)
    assert verify_signature(bundle, [public(other)]) == public(other)


@pytest.mark.parametrize("damage", [_link, _link_folder, _pipe, _add_undecodable])
def test_what_cannot_be_covered_is_not_signed(tmp_path: Path, key: Path, damage: Callable[[Path], None]) -> None:
    bundle = make_bundle(tmp_path)
    damage(bundle)
    with pytest.raises(BundleError, match=r"cannot cover|cannot be signed"):
        sign_bundle(bundle, key)
    assert signature_of(bundle) is None


def _not_keys(folder: Path) -> dict[str, Path]:
    kinds = {
        "rsa": rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "curve": ec.generate_private_key(ec.SECP256K1()),
    }
    found = {name: make_key(folder, name, key, form=PKCS8) for name, key in kinds.items()}
    for name, data in {"text": b"a key", "empty": b"", "binary": bytes(range(256))}.items():
        found[name] = folder / f"{name}.pem"
        for path in (found[name], public(found[name])):
            path.write_bytes(data)
    return found | {"missing": folder / "missing.pem"}


def test_keys_that_are_none(bundle: Path, key: Path, tmp_path: Path) -> None:
    for name, path in _not_keys(tmp_path).items():
        message = "cannot read the key" if name == "missing" else "holds no {} key on the curve P-256"
        with pytest.raises(UsageError, match=message.format("private")):
            sign_bundle(bundle, path, replace=True)
        with pytest.raises(UsageError, match=message.format("public")):
            verify_signature(bundle, [public(key), public(path)])
    with pytest.raises(UsageError, match="holds no private key"):
        sign_bundle(bundle, public(key), replace=True)
    with pytest.raises(UsageError, match="holds no public key"):
        verify_signature(bundle, [key])
    with pytest.raises(UsageError, match="no key is given"):
        verify_signature(bundle, [])
    assert verify_signature(bundle, [public(key)]) == public(key)  # none of them touched the signature


def test_passwords(tmp_path: Path, key: Path) -> None:
    locked, bundle = make_key(tmp_path, "locked", password=b"gr\xc3\xb6\xc3\x9fe"), make_bundle(tmp_path)
    with pytest.raises(UsageError, match=r"is encrypted, and no password was given.*EDGESEG_KEY_PASSWORD"):
        sign_bundle(bundle, locked)
    with pytest.raises(UsageError, match="is not opened by the password given") as caught:
        sign_bundle(bundle, locked, password="secret")
    assert "secret" not in str(caught.value)
    with pytest.raises(UsageError, match="is not encrypted, but a password was"):
        sign_bundle(bundle, key, password="secret")
    assert signature_of(bundle) is None
    sign_bundle(bundle, locked, password="größe")
    assert verify_signature(bundle, [public(locked)]) == public(locked)


def test_no_bundle(tmp_path: Path, key: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        verify_signature(tmp_path / "nothing", [public(key)])
    with pytest.raises(BundleError, match="no bundle at"):
        sign_bundle(key, key)


def test_without_the_extra(bundle: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(TargetUnavailableError, match=r"signing a bundle needs .*pip install 'edgeseg\[sign\]'"):
        sign_bundle(bundle, key, replace=True)
    with pytest.raises(TargetUnavailableError, match=r"verifying a signature needs .*pip install 'edgeseg\[sign\]'"):
        verify_signature(bundle, [public(key)])
