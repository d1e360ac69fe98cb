"""``edgeseg verify``: does this machine make the masks that PyTorch made at export?"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli._shared import console, errors, percent, print_json, split_targets, table
from edgeseg.cli.engine_options import options_of_each, runtime_options
from edgeseg.cli.options import BundleFolder, Device, EngineOption, Json, Network, Threads
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.errors import EdgesegError
    from edgeseg.predictor import Predictor
    from edgeseg.runtimes import RuntimeOptions

__all__ = ["verify"]


@dataclass(frozen=True)
class _Row:
    """The outcome on one target; `status` is ``ok``, ``differs``, ``absent`` or ``failed``."""

    target: str
    status: str
    pixels: int = 0
    differing: int = 0
    engine: str = ""
    reason: str = ""
    device: str = ""


_Targets = Annotated[
    list[str] | None, typer.Option("--target", "-t", help="Targets; default all the bundle was exported for.")
]
_Images = Annotated[
    Path | None, typer.Option(help="Picture or folder: compare the targets with one another on it too.")
]
_MinAgreement = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Share of labels that must agree; default 0.999, or what export measured."),
]
_Keys = Annotated[
    list[Path] | None,
    typer.Option("--key", "-k", help="PEM file of a public key that must have signed it; may be given again."),
]


def verify(
    bundle: BundleFolder,
    target: _Targets = None,
    images: _Images = None,
    min_agreement: _MinAgreement = None,
    threads: Threads = None,
    device: Device = None,
    network: Network = None,
    engine_option: EngineOption = None,
    key: _Keys = None,
    as_json: Json = False,
) -> None:
    """Check every file, run the self test on every runtime that is here, and compare with fp32 PyTorch's labels."""
    from edgeseg.bundle import open_bundle
    from edgeseg.errors import PartialFailureError

    opened = open_bundle(bundle, trusted_keys=key or ())
    named = split_targets(target or [])
    names = named or list(opened.manifest.targets)
    minimum = opened.manifest.self_test if min_agreement is None else min_agreement
    failures: list[EdgesegError] = []
    given = runtime_options(engine_option, threads=threads, device=device, network=network)
    options = options_of_each(names, given)
    rows = [_self_test(opened, name, options[name], minimum, failures) for name in names]
    unread: list[str] = []
    if images is not None:
        ran = [row.target for row in rows if row.status in ("ok", "differs")]
        rows += _cross_test(opened, {name: options[name] for name in ran}, images, minimum, unread)
    _print_rows(opened, rows, as_json, _signed(opened, key or []))
    if failures:
        raise failures[0]
    _raise_failures(rows, all_required=bool(named))
    if unread:
        raise PartialFailureError(f"{len(unread)} of the pictures failed (named above); the others were compared")


def _raise_failures(rows: list[_Row], *, all_required: bool) -> None:
    """Raise where masks differ, and where targets are absent that the user named, or all of them."""
    from edgeseg.errors import ParityError, TargetUnavailableError

    differing = [row for row in rows if row.status == "differs"]
    if differing:
        words = ", ".join(f"{_where(row)} ({row.differing} of {row.pixels} labels)" for row in differing)
        raise ParityError(f"the masks of this machine are not those of PyTorch: {words}")
    absent = [row for row in rows if row.status == "absent"]
    if absent and (all_required or len(absent) == len(rows)):
        raise TargetUnavailableError(absent[0].reason)


def _where(row: _Row) -> str:
    return f"{row.target} on {row.device}" if row.device else row.target


def _self_test(
    bundle: Bundle, target: str, options: RuntimeOptions, minimum: float, failures: list[EdgesegError]
) -> _Row:
    """Run the self test on one target. An error other than the target's absence is added to `failures` too."""
    from edgeseg.errors import EdgesegError, TargetUnavailableError
    from edgeseg.predictor import Predictor

    try:
        with Predictor(bundle, target, options=options) as predictor:
            outcome = predictor.self_test()
            status = "ok" if outcome.agreement >= minimum else "differs"
            info = predictor.info
            return _Row(target, status, outcome.pixels, outcome.differing, info.engine, device=info.device)
    except TargetUnavailableError as error:
        return _Row(target, "absent", reason=str(error))
    except EdgesegError as error:
        failures.append(error)
        return _Row(target, "failed", reason=str(error))


def _cross_test(
    bundle: Bundle, options: dict[str, RuntimeOptions], images: Path, minimum: float, unread: list[str]
) -> list[_Row]:
    """Compare the labels of every target with the first one's on pictures, at the network's size.

    Pictures that cannot be read are added to `unread`.
    """
    from edgeseg.errors import InputError
    from edgeseg.predictor import Predictor
    from edgeseg.sources import pictures_at

    if not options:
        return []
    files = pictures_at(images, bundle.manifest.input.image_channels)
    with contextlib.ExitStack() as stack:
        predictors = {
            name: stack.enter_context(
                Predictor(bundle, name, output="network", keep_image=False, check=False, options=options[name])
            )
            for name in options
        }
        counts = _count_differing(predictors, files, unread)
    if len(unread) == len(files):
        raise InputError(f"none of the {len(files)} pictures of '{images}' could be read (named above)")
    reason = f"against {next(iter(options))} on {len(files) - len(unread)} pictures"
    return [
        _Row(target, "ok" if 1 - wrong / total >= minimum else "differs", total, wrong, "", reason)
        for target, (wrong, total) in counts.items()
        if total
    ]


def _count_differing(
    predictors: dict[str, Predictor], files: list[Path], unread: list[str]
) -> dict[str, tuple[int, int]]:
    """Count, for every target but the first, the pixels whose label is not the first one's, and all pixels."""
    from edgeseg.errors import InputError
    from edgeseg.metrics import agreement

    counts: dict[str, tuple[int, int]] = dict.fromkeys(list(predictors)[1:], (0, 0))
    for file in files:
        try:
            first, *others = [predictor(file).labels for predictor in predictors.values()]
        except InputError as error:
            unread.append(str(file))
            errors().print(f"failed: {error}", markup=False, highlight=False, soft_wrap=True)
            continue
        for (target, (wrong, total)), labels in zip(counts.items(), others, strict=True):
            differing, pixels = agreement(first, labels)
            counts[target] = (wrong + differing, total + pixels)
    return counts


def _signed(bundle: Bundle, keys: list[Path]) -> str:
    """Describe the bundle's signature in words."""
    from edgeseg.signing import signature_of

    if keys:
        return "signed by a trusted key"
    return "not signed" if signature_of(bundle.path) is None else "signed, by whom was not checked (--key)"


def _print_rows(bundle: Bundle, rows: list[_Row], as_json: bool, signed: str) -> None:
    if as_json:
        exported = [{**asdict(parity), "agreement": parity.agreement} for parity in bundle.manifest.parity]
        print_json(
            {
                "bundle": str(bundle.path),
                "signature": signed,
                "here": [asdict(row) for row in rows],
                "export": exported,
            },
            indent=2,
        )
        return
    at_export = {parity.target: parity for parity in bundle.manifest.parity}
    listed = table("target", "here", "labels equal to PyTorch's", "differing", "at export", "engine or reason")
    for row in rows:
        parity = at_export.get(row.target)
        before = "not run" if parity is None or not parity.ran else percent(parity.agreement)
        share = percent(1 - row.differing / row.pixels) if row.pixels else "-"
        counts = f"{row.differing} of {row.pixels}" if row.pixels else "-"
        ran = ", ".join(filter(None, (row.engine, row.device))) or row.reason
        listed.add_row(row.target, row.status, share, counts, before, ran)
    console().print(
        f"{one_line(bundle.manifest.name)}: {len(bundle.manifest.files)} files, every SHA-256 as exported; {signed}"
    )
    console().print(listed)
