"""Signatures of bundles: proof that the files are those that the owner of a key signed.

The manifest's SHA-256 sums detect a damaged file. They are no help against someone who can write a manifest too. A
signature is: it is made with a private key that never leaves its owner, and a device checks it with the public key. It
covers every file of the folder but itself, also those that the manifest does not list. Nothing is looked up on a
network, neither to sign nor to verify.

The form is OpenSSF model-signing 1.0 with an elliptic curve key (the extra ``sign``), so that other tools verify it:
``model_signing verify key BUNDLE --signature BUNDLE/signature.sig --public_key public.pem``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeseg._optional import require
from edgeseg.errors import BundleError, UsageError
from edgeseg.files import scratch_folder, sha256_of, write_bytes
from edgeseg.text import first_line, one_line, os_reason

__all__ = ["SIGNATURE", "sign_bundle", "signature_of", "signed_files", "verify_signature"]

SIGNATURE = "signature.sig"
"""File of the bundle folder that holds the signature."""

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_LARGEST = 1 << 24  # bytes of a signature: some 100,000 files
_GARBLED = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)


def signature_of(folder: str | Path) -> Path | None:
    """Find a bundle folder's signature; None where it has none.

    Example:
        >>> signature_of(bundle.path) is None
        True
    """
    path = Path(folder) / SIGNATURE
    return path if os.path.lexists(path) else None


def signed_files(folder: str | Path) -> list[str]:
    """List the files that a signature of the folder covers: all but the signature itself.

    Raises:
        BundleError: No such folder, one that cannot be read, or one that holds links or other things than files.

    Example:
        >>> signed_files(bundle.path)
        ['manifest.json', 'model.onnx', 'sample.png', 'sample_labels.png']
    """
    root = Path(folder)
    if not root.is_dir():
        raise BundleError(f"no bundle at '{root}'; expected a folder made by `edgeseg export`")
    try:
        files = list(_walk(root))
    except OSError as error:
        reason = os_reason(error)
        raise BundleError(f"'{error.filename or root}' cannot be read ({reason}); copy the bundle again") from error
    return sorted(name for name in files if name != SIGNATURE)


def sign_bundle(folder: str | Path, key: str | Path, *, password: str | None = None, replace: bool = False) -> Path:
    """Sign a bundle folder as it stands.

    Args:
        folder: The bundle. The path to it may be a link; it must contain none.
        key: PEM file with a private key on the curve P-256, P-384 or P-521. It is read once, so a pipe works too.
        password: Of the key, where it is encrypted.
        replace: Replace an existing signature.

    Returns:
        Path of the signature.

    Raises:
        UsageError: The bundle is signed already, the file is no such key, or the password is not the key's.
        BundleError: The folder cannot be read, or holds links.
        TargetUnavailableError: model-signing is not installed.
        StorageError: The signature cannot be written.

    Example:
        >>> signature = sign_bundle(unsigned, keys / "private.pem", replace=True)
        >>> verify_signature(unsigned, [keys / "public.pem"]).name
        'public.pem'
    """
    library = require("model_signing", extra="sign", why="signing a bundle")
    root = Path(folder)
    if signature_of(root) is not None and not replace:
        raise UsageError(
            f"bundle '{root}' is signed already ({SIGNATURE}); sign it with --replace (replace=True) to sign it anew"
        )
    signed_files(root)
    config = library.signing.Config().set_hashing_config(_hashing(library))
    with _key_errors(Path(key), "private", password):
        config.use_elliptic_key_signer(private_key=key, password=None if password is None else password.encode())
    with scratch_folder("edgeseg-signature") as scratch:
        written = scratch / SIGNATURE
        try:
            config.sign(root.resolve(), written)
        except (OSError, ValueError) as error:
            raise BundleError(
                f"bundle '{root}' cannot be signed ({first_line(error)}); repair what that names, or copy it again"
            ) from error
        data = written.read_bytes()
    write_bytes(root / SIGNATURE, data)
    return root / SIGNATURE


def verify_signature(folder: str | Path, keys: Iterable[str | Path]) -> Path:
    """Check that a bundle folder is exactly what the owner of one of the keys signed.

    Args:
        folder: The bundle. The path to it may be a link; it must contain none.
        keys: PEM files with the public keys that are trusted.

    Returns:
        The key that signed it.

    Raises:
        BundleError: No signature, one by another key, one that was changed, or a file that was added, removed or
            changed since.
        UsageError: No key, or a file that is none.
        TargetUnavailableError: model-signing is not installed.
    """
    library = require("model_signing", extra="sign", why="verifying a signature")
    trusted = _trusted([Path(key) for key in keys])
    root = Path(folder)
    present = signed_files(root)
    data = _signature_bytes(root)
    signer, signed = _parsed(root, data)
    if signer not in trusted:
        raise BundleError(
            f"bundle '{root}' is signed by a key that is not trusted (SHA-256 {signer[:16]}); "
            "trust its public key, or get the bundle from whose key you trust"
        )
    path, pem = trusted[signer]
    with scratch_folder("edgeseg-signature") as scratch:  # copies: what is checked is what was read above
        signature, public = scratch / SIGNATURE, scratch / "public.pem"
        signature.write_bytes(data)
        public.write_bytes(pem)
        _verify(library, root, signature, public, present, signed)
    if set(present) != set(signed):  # a signature may leave files out by its own word
        raise _not_as_signed(root, _differences(root, present, signed))
    return path


def _verify(
    library: Any, root: Path, signature: Path, public: Path, present: list[str], signed: Mapping[str, str]
) -> None:
    from cryptography.exceptions import InvalidSignature

    config = library.verifying.Config().set_hashing_config(_hashing(library))
    config.use_elliptic_key_verifier(public_key=public)
    try:
        config.verify(root.resolve(), signature)
    except InvalidSignature as error:
        raise BundleError(
            f"the signature of bundle '{root}' is not what the owner of the key made; get the bundle again"
        ) from error
    except (OSError, *_GARBLED) as error:
        differences = _differences(root, present, signed) or first_line(error)
        raise _not_as_signed(root, differences) from error


def _not_as_signed(root: Path, differences: str) -> BundleError:
    return BundleError(
        f"bundle '{root}' is not the one that was signed: {differences}; get it again, or sign it as it is now"
    )


def _hashing(library: Any) -> Any:
    """Configure the library: SHA-256 of every file, those of git included, and no links."""
    config = library.hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    return config.set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


# --- the folder ----------------------------------------------------------------------------------------------------


def _walk(root: Path) -> Iterator[str]:
    """Yield the relative paths of all files below a folder."""
    for at, folders, files in os.walk(root, onerror=_raise):
        for name in (*folders, *files):
            path = Path(at, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a link" if stat.S_ISLNK(mode) else "no file"
                inside = path.relative_to(root).as_posix()
                raise BundleError(
                    f"'{one_line(inside)}' in bundle '{root}' is {kind}, which a signature cannot cover; "
                    "put a file in its place"
                )
            if stat.S_ISREG(mode):
                yield path.relative_to(root).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _differences(root: Path, present: list[str], signed: Mapping[str, str]) -> str:
    """Name the files that were added, removed or changed; empty where none was."""
    here = set(present)
    differences = {
        "not signed": sorted(here - set(signed)),
        "missing": sorted(set(signed) - here),
        "changed": sorted(name for name in here & set(signed) if not _is(root / name, signed[name])),
    }
    return ", ".join(f"{_listed(names)} {what}" for what, names in differences.items() if names)


def _is(file: Path, digest: str) -> bool:
    try:
        return sha256_of(file) == digest
    except OSError:
        return False


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(one_line(name, 80) for name in names[:3]) + more


# --- the signature -------------------------------------------------------------------------------------------------


def _signature_bytes(root: Path) -> bytes:
    path = signature_of(root)
    if path is None:
        raise BundleError(
            f"bundle '{root}' is not signed, and only signed ones are trusted here; sign it with `edgeseg sign`"
        )
    try:
        if path.stat().st_size > _LARGEST:
            raise BundleError(f"the signature of bundle '{root}' is too large to be one; get the bundle again")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"'{path}' cannot be read ({os_reason(error)})") from error


def _parsed(root: Path, data: bytes) -> tuple[str, dict[str, str]]:
    """Read a signature without checking it: the fingerprint of its key, and the SHA-256 of each file."""
    try:
        bundle = json.loads(data)
        signer = bundle["verificationMaterial"]["publicKey"]["hint"]
        payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True))
        signed = {entry["name"]: entry["digest"] for entry in payload["predicate"]["resources"]}
        if not all(isinstance(text, str) for text in (signer, *signed, *signed.values())):
            raise TypeError("not text")
    except _GARBLED as error:
        raise BundleError(
            f"the signature of bundle '{root}' is cut or garbled ({first_line(error)}); get the bundle again"
        ) from error
    return signer, signed


# --- keys ----------------------------------------------------------------------------------------------------------


def _trusted(keys: list[Path]) -> dict[str, tuple[Path, bytes]]:
    """Read public keys: fingerprint -> path and content."""
    from cryptography.hazmat.primitives import serialization

    if not keys:
        raise UsageError("no key is given to verify the signature with; give the PEM file of a public key")
    trusted = {}
    for path in keys:
        with _key_errors(path, "public", None):
            data = path.read_bytes()
            key: Any = serialization.load_pem_public_key(data)
            if key.curve.name not in _CURVES:
                raise ValueError(f"its curve is {key.curve.name}")
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        plain = key.public_bytes(serialization.Encoding.PEM, form)
        trusted[hashlib.sha256(plain).hexdigest()] = (path, data)
    return trusted


@contextlib.contextmanager
def _key_errors(path: Path, half: str, password: str | None) -> Iterator[None]:
    """Turn an error about a key file into one sentence."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read the key '{path}': {os_reason(error)}") from error
    except TypeError as error:  # what cryptography raises where a password and an encryption do not go together
        need = "is encrypted, and no password was given; set EDGESEG_KEY_PASSWORD, or type it with --ask-password"
        unused = "is not encrypted, but a password was given; unset EDGESEG_KEY_PASSWORD, or encrypt the key"
        raise UsageError(f"the key '{path}' {need if password is None else unused}") from error
    except (ValueError, AttributeError, UnsupportedAlgorithm) as error:
        wrong = "holds no" if password is None else "is not opened by the password given, or holds no"
        raise UsageError(
            f"'{path}' {wrong} {half} key on the curve P-256, P-384 or P-521 in PEM form ({first_line(error)}); "
            "`edgeseg sign --help` says how one is made"
        ) from error
