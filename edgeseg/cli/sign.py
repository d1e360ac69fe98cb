"""``edgeseg sign``: sign a bundle, so that devices recognise it as yours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli._shared import console

__all__ = ["PASSWORD_VARIABLE", "sign"]

PASSWORD_VARIABLE = "EDGESEG_KEY_PASSWORD"


def sign(
    bundle: Annotated[Path, typer.Argument(help="The NAME.edgeseg folder.", show_default=False)],
    key: Annotated[Path, typer.Option("--key", "-k", help="PEM file with your private key.", show_default=False)],
    ask_password: Annotated[
        bool, typer.Option("--ask-password", help=f"Ask for the key's password instead of reading {PASSWORD_VARIABLE}.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the signature that the bundle has.")] = False,
) -> None:
    """Sign every file of a bundle with a private key; the signature is its file signature.sig.

    `edgeseg verify --key public.pem` checks it, and so does Predictor with trusted_keys. No network is used.

    Make a key on the curve P-256 (P-384 and P-521 do as well), and its public half for the devices:

    openssl ecparam -name prime256v1 -genkey -noout -out private.pem

    openssl ec -in private.pem -pubout -out public.pem

    To encrypt the private one (its password comes from EDGESEG_KEY_PASSWORD or --ask-password, never from an argument):

    openssl ec -in private.pem -aes256 -out locked.pem
    """
    from edgeseg.bundle import open_bundle
    from edgeseg.signing import sign_bundle, signed_files

    opened = open_bundle(bundle)  # what is damaged is not signed
    password = _asked() if ask_password else os.environ.get(PASSWORD_VARIABLE) or None
    path = sign_bundle(bundle, key, password=password, replace=replace)
    console().print(f"signed {opened.manifest.name}: {path} covers {len(signed_files(bundle))} files", soft_wrap=True)


def _asked() -> str:
    """Ask for the password without showing what is typed."""
    import getpass
    import warnings

    from edgeseg.errors import UsageError

    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass("password of the key: ")
        except (getpass.GetPassWarning, EOFError) as error:
            raise UsageError(f"there is no terminal to ask for the password on; set {PASSWORD_VARIABLE}") from error
