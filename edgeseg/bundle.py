"""The bundle: a folder ``NAME.edgeseg/`` that holds everything a device needs to make one network's masks.

    NAME.edgeseg/
        manifest.json         this module's `Manifest`: what the network is, how to feed it, what was proven
        model.onnx            uint8 NHWC RGB in, float logits out (opset <= 18, IR <= 10)
        model_labels.onnx     the same ending in labels too, for GPU targets; present when one was asked for
        ort/                  model.onnx: the same network as ONNX Runtime's CPU kernels want it written (int8, PReLU);
                              present where that differs
        openvino/             model.xml, model.bin
        tensorrt/             engines, keyed by what they were built for; built on the device where absent
        labels/               cpu.onnx, openvino.xml, gpu.onnx: uint8 picture to labels alone, for programs without
                              edgeseg's Predictor; present with ``--output labels``
        torch/                weights.safetensors for the PyTorch reference; present when it was asked for
        sample.png            a picture, and
        sample_labels.png     the labels fp32 PyTorch gives it at the network's size: the self test

Engine files stay plain, so trtexec, benchmark_app and Netron open them. Every file listed in the manifest is checked
against its SHA-256 when the bundle is opened. Plans that a device adds later lie in a cache outside the bundle.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeseg.errors import BundleError
from edgeseg.files import sha256_of, write_text
from edgeseg.specs import InputSpec, ResizeRule, Size, TailSpec

__all__ = ["SCHEMA_VERSION", "Bundle", "Manifest", "Parity", "open_bundle", "write_manifest"]

SCHEMA_VERSION = 1
"""Raised when a manifest of this version cannot be read by an edgeseg that knows only the version before."""

SUFFIX = ".edgeseg"
ORT_MODEL = "ort/model.onnx"
MANIFEST, MODEL, MODEL_LABELS = "manifest.json", "model.onnx", "model_labels.onnx"
OPENVINO_MODEL = "openvino/model.xml"
TORCH_WEIGHTS = "torch/weights.safetensors"
LABELS_CPU, LABELS_GPU, LABELS_OPENVINO = "labels/cpu.onnx", "labels/gpu.onnx", "labels/openvino.xml"
SAMPLE, SAMPLE_LABELS = "sample.png", "sample_labels.png"


@dataclass(frozen=True)
class Parity:
    """How a target's masks compare with fp32 PyTorch's, on the same uint8 input.

    Attributes:
        target: Canonical target name.
        pixels: Pixels compared: at the network's size over all parity pictures, and where a GPU graph ends in labels of
            another size, also those labels with the exact tail's.
        differing: Pixels whose label differs.
        max_logit_error: Largest absolute difference of logits.
        logit_range: Largest minus smallest logit of PyTorch's, for scale.
        images: Number of pictures compared.
        engine: Version of the engine that ran.
        ran: False where the engine was built but could not be run on the export machine.
    """

    target: str
    pixels: int = 0
    differing: int = 0
    max_logit_error: float = 0.0
    logit_range: float = 0.0
    images: int = 0
    engine: str = ""
    ran: bool = True

    @property
    def agreement(self) -> float:
        """Share of pixels with the same label, 0..1; 0 where nothing ran."""
        return 1.0 - self.differing / self.pixels if self.pixels else 0.0


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says. Sizes are height x width.

    Attributes:
        name: Of the bundle.
        network: Registry name, or ``package.module:factory`` for a network of the user's own.
        num_classes: Channels of the logits; 1 means two labels by threshold.
        labels: Class names in index order (two for a single logit).
        palette: RGB colour per label.
        input_size: Of the graph's image input; for a dynamic graph the size it was verified at.
        batch: Fixed batch of the graph.
        dynamic: Whether height and width of the graph are free.
        divisor: Heights and widths must be multiples of it.
        logit_size: Of the logits at `input_size`.
        label_size: Of the labels a GPU graph ends in, or None.
        input: How the graph normalises (done inside the graph; recorded for people).
        resize: How a picture becomes the graph's input (done by the Predictor).
        tail: How logits become labels.
        precision: ``fp32``, ``fp16`` or ``int8``: of the numbers in the graph; ``bf16``: an fp32 graph that OpenVINO
            runs in bf16. ``facts["precision"]`` holds what was measured against fp32.
        targets: Canonical names exported for.
        parity: One entry per verified target.
        versions: Tool -> version at export.
        files: Relative path -> SHA-256.
        facts: Free facts (paper, licence, parameters, MACs) for people.
        schema_version: Of this file's form.
    """

    name: str
    network: str
    num_classes: int
    labels: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    input_size: Size
    logit_size: Size
    divisor: int
    input: InputSpec
    resize: ResizeRule
    tail: TailSpec
    targets: tuple[str, ...]
    batch: int = 1
    dynamic: bool = False
    label_size: Size | None = None
    precision: str = "fp32"
    parity: tuple[Parity, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Manifest:
        """Inverse of `to_json`.

        Raises:
            BundleError: A newer schema, or a field that is missing or of the wrong kind.
        """
        version = data.get("schema_version")
        if not isinstance(version, int):
            raise BundleError("the manifest has no schema_version; it was not written by edgeseg")
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"the manifest has schema version {version}, this edgeseg reads up to {SCHEMA_VERSION}; update edgeseg"
            )
        try:
            return _manifest_from(data)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise BundleError(f"the manifest lacks or garbles a field ({error!r}); export the bundle again") from error


def _manifest_from(data: dict[str, Any]) -> Manifest:
    label_size = data.get("label_size")
    return Manifest(
        name=str(data["name"]),
        network=str(data["network"]),
        num_classes=int(data["num_classes"]),
        labels=tuple(str(label) for label in data["labels"]),
        palette=tuple((int(r), int(g), int(b)) for r, g, b in data["palette"]),
        input_size=_size(data["input_size"]),
        logit_size=_size(data["logit_size"]),
        divisor=int(data["divisor"]),
        input=InputSpec.from_json(data["input"]),
        resize=ResizeRule.from_json(data["resize"]),
        tail=TailSpec.from_json(data["tail"]),
        targets=tuple(str(target) for target in data["targets"]),
        batch=int(data["batch"]),
        dynamic=bool(data["dynamic"]),
        label_size=None if label_size is None else _size(label_size),
        precision=str(data["precision"]),
        parity=tuple(Parity(**entry) for entry in data["parity"]),
        versions=dict(data["versions"]),
        files=dict(data["files"]),
        facts=dict(data["facts"]),
        schema_version=int(data["schema_version"]),
    )


def _size(value: Any) -> Size:
    height, width = value
    return int(height), int(width)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and its manifest."""

    path: Path
    manifest: Manifest

    def file(self, relative: str) -> Path:
        """Absolute path of a file of the bundle.

        Raises:
            BundleError: The bundle does not hold it.
        """
        if relative not in self.manifest.files:
            raise BundleError(
                f"bundle '{self.path}' holds no {relative}: it was exported for {', '.join(self.manifest.targets)}; "
                "export it again for this target"
            )
        return self.path / relative

    def has(self, relative: str) -> bool:
        """Whether the bundle holds a file."""
        return relative in self.manifest.files

    def check(self) -> None:
        """Check every file against its SHA-256.

        Raises:
            BundleError: A file is missing or its bytes changed.
        """
        for relative, expected in self.manifest.files.items():
            file = self.path / relative
            if not file.is_file():
                raise BundleError(f"bundle '{self.path}' has lost {relative}; copy or export it again")
            if _sha256(file) != expected:
                raise BundleError(
                    f"{relative} in bundle '{self.path}' is not the file that was exported (its SHA-256 differs); "
                    "copy or export it again"
                )


def _sha256(file: Path) -> str:
    try:
        return sha256_of(file)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BundleError(f"'{file}' cannot be read ({reason}); copy or export the bundle again") from error


def open_bundle(path: str | Path, *, check: bool = True) -> Bundle:
    """Open a bundle folder.

    Args:
        path: The ``NAME.edgeseg`` folder.
        check: Compare every file with its SHA-256.

    Raises:
        BundleError: No such folder, no manifest, a manifest that cannot be read or is newer, or a changed file.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BundleError(f"no bundle at '{folder}'; expected a NAME{SUFFIX} folder made by `edgeseg export`")
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"'{folder}' has no {MANIFEST}; expected a folder made by `edgeseg export`") from error
    except (ValueError, OSError) as error:
        raise BundleError(f"{MANIFEST} in '{folder}' cannot be read ({error}); copy or export it again") from error
    if not isinstance(data, dict):
        raise BundleError(f"{MANIFEST} in '{folder}' is not a JSON object; copy or export it again")
    bundle = Bundle(folder, Manifest.from_json(data))
    if check:
        bundle.check()
    return bundle


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into `folder` (atomically)."""
    write_text(folder / MANIFEST, json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) + "\n")
