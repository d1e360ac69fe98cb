"""The bundle: a folder ``NAME.edgeseg/`` with everything a device needs to make one network's masks.

    NAME.edgeseg/
        manifest.json         this module's `Manifest`: what the network is, how to feed it, what was proven
        model.onnx            uint8 NHWC RGB in, float logits out (opset <= 18, IR <= 10)
        ort/                  model.onnx: the same network in the form that ONNX Runtime's CPU kernels run best (int8,
                              PReLU); where that differs
        openvino/             model.xml, model.bin
        ncnn/                 model.param, model.bin: normalised float planes to logits
        tensorrt/             model.onnx: the same network in the form that NVIDIA's engines run best, where that
                              differs; engines of TensorRT for RTX, named after its version (others are built on the
                              device)
        labels/               cpu.onnx, openvino.xml, gpu.onnx: uint8 picture to labels alone, for programs without
                              edgeseg's Predictor; with ``--output labels``
        torch/                weights.safetensors for the PyTorch reference; where it was asked for
        ...                   a folder for each engine of another package that it was exported for
        sample.png            the self test's picture, of another size than the network's where it may have one
                              (sample.tif, a page per channel, for a network of 2, 4 or more channels), and
        sample_labels.png     its labels by fp32 PyTorch, at the picture's size
        signature.sig         over all of it; after ``edgeseg sign``

Engine files stay plain, so trtexec, benchmark_app and Netron open them. When a bundle is opened, its manifest is
checked field by field and against its own SHA-256, every file it lists against its SHA-256, and every graph's metadata
against the manifest. Plans that a device adds later lie in a cache outside the bundle.

Nothing in a bundle is run but its graphs, by the engines. TensorRT's engines are code, and are therefore read through
`Bundle.read` only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeseg.errors import BundleError
from edgeseg.fields import FieldError, parse_object
from edgeseg.files import sha256_of, storage_errors, write_text
from edgeseg.graph_metadata import METADATA_KEY, belongs_to
from edgeseg.manifest import SCHEMA_VERSION, Manifest, Parity
from edgeseg.signing import verify_signature
from edgeseg.text import first_line, one_line, os_reason

__all__ = ["METADATA_KEY", "SCHEMA_VERSION", "Bundle", "Manifest", "Parity", "open_bundle", "write_manifest"]

SUFFIX = ".edgeseg"
ORT_MODEL = "ort/model.onnx"
MANIFEST, MODEL = "manifest.json", "model.onnx"
LABELS_CPU, LABELS_GPU = "labels/cpu.onnx", "labels/gpu.onnx"
SAMPLE, SAMPLE_LABELS = "sample.png", "sample_labels.png"

MOST_MANIFEST_BYTES = 16 << 20


def sample_name(channels: int) -> str:
    """Name of the self test's picture of so many channels.

    Example:
        >>> sample_name(3), sample_name(4)
        ('sample.png', 'sample.tif')
    """
    return SAMPLE if channels == 3 else "sample.tif"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: Its folder.
        manifest: Its manifest.

    Example:
        >>> bundle.manifest.name, bundle.has("model.onnx")
        ('tiny', True)
    """

    path: Path
    manifest: Manifest

    @property
    def sample(self) -> str:
        """Name of the self test's picture."""
        return sample_name(self.manifest.input.image_channels)

    def file(self, relative: str) -> Path:
        """Look up the path of a file of the bundle.

        Raises:
            BundleError: The bundle lacks it, or it is no plain file inside the folder.
        """
        if relative not in self.manifest.files:
            raise BundleError(
                f"bundle '{one_line(self.path)}' holds no {relative}: it was exported for "
                f"{one_line(', '.join(self.manifest.targets))}; export it again for this target"
            )
        return _plain_file(self.path, relative)

    def has(self, relative: str) -> bool:
        """Tell whether the bundle lists a file."""
        return relative in self.manifest.files

    def read(self, relative: str) -> bytes:
        """Read a whole file, and return its bytes only if their SHA-256 is that of the manifest.

        What an engine runs as code is read this way, so that the bytes that are used are the bytes that were checked.

        Raises:
            BundleError: As `file`, or other bytes than were exported.
        """
        file = self.file(relative)
        with _readable(file):
            self._check_size(file, relative)
            data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest.files[relative]:
            raise _changed(self.path, relative)
        return data

    def check(self) -> None:
        """Check every file against its SHA-256, and every graph's metadata against the manifest.

        Raises:
            BundleError: A file is missing, leads out of the folder or changed, or a graph belongs to another manifest.
        """
        contract = self.manifest.contract()
        for relative, expected in self.manifest.files.items():
            file = _plain_file(self.path, relative)
            with _readable(file):
                self._check_size(file, relative)
                if sha256_of(file) != expected:
                    raise _changed(self.path, relative)
                if not belongs_to(file, contract):
                    raise BundleError(
                        f"{relative} in bundle '{one_line(self.path)}' was exported with another manifest than the one "
                        "beside it (its metadata differs); copy or export the bundle again"
                    )

    def _check_size(self, file: Path, relative: str) -> None:
        """Refuse a file of another size than was exported before reading it."""
        size = file.stat().st_size
        if size != self.manifest.sizes.get(relative, size):
            raise _changed(self.path, relative, f"it has {size} bytes instead of {self.manifest.sizes[relative]}")


def _changed(bundle: Path, relative: str, how: str = "its SHA-256 differs") -> BundleError:
    return BundleError(
        f"{relative} in bundle '{one_line(bundle)}' is not the file that was exported ({how}); copy or export it again"
    )


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os_reason(error)
        raise BundleError(f"'{one_line(file)}' cannot be read ({reason}); copy or export the bundle again") from error


def _plain_file(folder: Path, relative: str) -> Path:
    """Find a file of a bundle; refuse one that is missing, not regular, or linked out of the folder."""
    file = folder / relative
    try:
        mode = os.stat(file).st_mode
        inside = file.resolve(strict=True).is_relative_to(folder.resolve(strict=True))
    except (OSError, RuntimeError, ValueError) as error:
        lost = isinstance(error, FileNotFoundError)
        what = f"has lost {relative}" if lost else f"holds a {relative} that cannot be read ({first_line(error)})"
        raise BundleError(f"bundle '{one_line(folder)}' {what}; copy or export it again") from error
    if not stat.S_ISREG(mode) or not inside:
        what = "no regular file" if inside else "a link that leads out of it"
        raise BundleError(
            f"bundle '{one_line(folder)}' holds {what} as {relative}; a bundle holds plain files: export it again"
        )
    return file


def open_bundle(path: str | Path, *, check: bool = True, trusted_keys: Sequence[str | Path] = ()) -> Bundle:
    """Open a bundle folder.

    Args:
        path: The ``NAME.edgeseg`` folder.
        check: Compare every file with its SHA-256 and every graph with the manifest; the manifest itself is always
            checked.
        trusted_keys: PEM files of public keys; where any is given, only a bundle signed by the owner of one is opened
            (`edgeseg.signing`).

    Raises:
        BundleError: No such folder, no manifest, a manifest that is not valid, changed, older or newer, a changed file,
            a graph of another manifest, or no signature by a trusted key.
        UsageError: A file of `trusted_keys` holds no public key.
        TargetUnavailableError: Keys are given and the extra ``sign`` is not installed.

    Example:
        >>> open_bundle(bundle.path).manifest.targets
        ('ort',)
    """
    folder = Path(path)
    if not _is_folder(folder):
        raise BundleError(f"no bundle at '{one_line(folder)}'; expected a NAME{SUFFIX} folder made by `edgeseg export`")
    if not os.path.lexists(folder / MANIFEST):
        raise BundleError(f"'{one_line(folder)}' has no {MANIFEST}; expected a folder made by `edgeseg export`")
    if trusted_keys:
        verify_signature(folder, trusted_keys)
    bundle = Bundle(folder, Manifest.from_json(_manifest_data(folder)))
    if check:
        bundle.check()
    return bundle


def _is_folder(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except (OSError, ValueError):
        return False


def _manifest_data(folder: Path) -> dict[str, object]:
    file = _plain_file(folder, MANIFEST)
    try:
        size = file.stat().st_size
        if size > MOST_MANIFEST_BYTES:
            raise FieldError(f"it has {size} bytes, more than {MOST_MANIFEST_BYTES}")
        return parse_object(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BundleError(
            f"{MANIFEST} in '{one_line(folder)}' cannot be read ({first_line(error)}); copy or export it again"
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into `folder`, whole or not at all, with the sizes of the files that it lists.

    Raises:
        BundleError: A field has a value that no manifest may have.
        StorageError: Writing failed.
    """
    with storage_errors(folder):
        sizes = {relative: (folder / relative).stat().st_size for relative in manifest.files}
    manifest = replace(manifest, sizes=sizes)
    try:
        manifest.contract()
        text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise BundleError(f"the manifest cannot be written: {first_line(error)}") from error
    write_text(folder / MANIFEST, text + "\n")
