"""The manifest of a bundle: what the network is, how to feed it, what was proven. Frozen data, checked field by field.

``manifest.json`` carries a SHA-256 of its own content, which exposes a changed field. Every graph carries the
manifest's `Manifest.contract` in its metadata, which exposes the manifest of another graph. Both detect damage and
editing by hand. Against somebody who writes a whole bundle there are signatures (`edgeseg.signing`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeseg.errors import BundleError, UsageError
from edgeseg.fields import FieldError, Fields
from edgeseg.labels import MOST_CLASSES
from edgeseg.specs import LARGEST_SIDE, InputSpec, PostprocessSpec, ResizeRule, Size

__all__ = ["PRECISIONS", "SCHEMA_VERSION", "Manifest", "Parity", "check_relative"]

SCHEMA_VERSION = 4
"""Raised when a manifest of this version cannot be read by an edgeseg that knows only the version before."""

PRECISIONS = ("fp32", "fp16", "int8", "bf16")

_SHA256 = "[0-9a-f]{64}"
_PRECISION = "|".join(PRECISIONS)
_COUNT = 2**53  # whole numbers that every JSON reader keeps
_NOT_IN_GRAPHS = ("files", "sample_input", "sizes", "parity", "versions", "facts")


@dataclass(frozen=True)
class Parity:
    """How a target's masks compare with fp32 PyTorch's, on the same uint8 input.

    Attributes:
        target: Canonical target name.
        pixels: Pixels compared: at the network's size over all parity pictures.
        differing: Pixels whose label differs.
        max_logit_error: Largest absolute difference of logits.
        logit_range: Largest minus smallest logit of PyTorch's, for scale.
        images: Number of pictures compared.
        engine: Version of the engine that ran.
        ran: False where the engine was built but could not be run on the export machine.

    Example:
        >>> Parity("ort", pixels=1000, differing=1).agreement
        0.999
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

    @classmethod
    def from_fields(cls, fields: Fields) -> Parity:
        """Read from a manifest.

        Raises:
            FieldError: A field that is missing or has a wrong value.
        """
        pixels = fields.integer("pixels", 0, _COUNT)
        return cls(
            target=fields.text("target"),
            pixels=pixels,
            differing=fields.integer("differing", 0, pixels),
            max_logit_error=fields.number("max_logit_error", 0.0),
            logit_range=fields.number("logit_range", 0.0),
            images=fields.integer("images", 0, _COUNT),
            engine=fields.text("engine"),
            ran=fields.flag("ran"),
        )


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``. Sizes are height x width.

    Attributes:
        name: Of the bundle.
        network: Registry name, or ``package.module:factory`` for a network of the user's own.
        num_classes: Channels of the logits (or probabilities: `postprocess` says which); 1 means two labels by
            threshold.
        labels: Class names in index order (two for a single logit).
        palette: RGB colour per label.
        input_size: Of the graph's image input; for a dynamic graph the size it was verified at.
        batch: Fixed batch of the graph.
        dynamic: Whether height and width of the graph are free.
        divisor: Heights and widths must be multiples of it.
        logit_size: Of the logits at `input_size`.
        input: How the graph normalises (done inside the graph; recorded for people).
        resize: How a picture becomes the graph's input (done by the Predictor).
        postprocess: How logits become labels.
        precision: ``fp32``, ``fp16`` or ``int8``: of the numbers in the graph; ``bf16``: an fp32 graph that OpenVINO
            runs in bf16. ``facts["precision"]`` has what was measured against fp32.
        precisions: Target -> its precision, where that is another than `precision` (it was slower or below its budget
            there).
        targets: Canonical names exported for; at least one.
        parity: One entry per verified target.
        versions: Tool -> version at export.
        sample_input: SHA-256 of the network's input that the self test's picture became at export
            (`edgeseg.images.input_digest`); empty where the bundle holds no such picture.
        files: Relative path -> SHA-256.
        sizes: Relative path -> bytes, of the same files; `edgeseg.bundle.write_manifest` fills it in.
        facts: Free facts for people (paper, licence, parameters, MACs), and what was measured of a low precision.
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
    postprocess: PostprocessSpec
    targets: tuple[str, ...]
    batch: int = 1
    dynamic: bool = False
    precision: str = "fp32"
    precisions: dict[str, str] = field(default_factory=dict)
    parity: tuple[Parity, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    sample_input: str = ""
    files: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def precision_of(self, target: str) -> str:
        """``fp32``, ``fp16``, ``int8`` or ``bf16``: what a target has in this bundle."""
        return self.precisions.get(target, self.precision)

    @property
    def self_test(self) -> float:
        """Share of the sample's labels that must be PyTorch's on a device: 0.999, or what a low precision reached."""
        return float(self.facts.get("precision", {}).get("self_test", 0.999))

    def contract(self) -> str:
        """Write what decides the masks as canonical JSON, which every graph carries in its metadata.

        Raises:
            FieldError: A field that has a wrong value.
        """
        as_read = _manifest_from(Fields(self._plain()))._plain()
        return _canonical({key: value for key, value in as_read.items() if key not in _NOT_IN_GRAPHS})

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values, with the SHA-256 over them."""
        data = self._plain()
        return {**data, "sha256": _digest(data)}

    def _plain(self) -> dict[str, Any]:
        """Plain JSON values of every field, without those that a specification leaves out at their default."""
        return {**asdict(self), "postprocess": self.postprocess.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """Read what `to_json` gave, checking every field.

        Raises:
            BundleError: Another schema, a field that is missing or has a wrong value, or a SHA-256 that is not that of
                the content.
        """
        _check_schema(data.get("schema_version"))
        try:
            manifest = _manifest_from(Fields(data))
        except (FieldError, UsageError) as error:
            raise BundleError(f"the manifest is not valid: {error}; copy or export the bundle again") from error
        if data.get("sha256") != _digest({key: value for key, value in data.items() if key != "sha256"}):
            raise BundleError(
                "the manifest is not the one that was exported (its SHA-256 differs): a field was changed, or the copy "
                "is damaged; copy or export the bundle again"
            )
        return manifest


def check_relative(path: str) -> None:
    """Refuse a path that might lead out of the bundle, or that some systems cannot have.

    Raises:
        FieldError: It is empty, absolute, too long, or holds ``..``, a backslash, a colon or a control character.

    Example:
        >>> check_relative("openvino/model.xml")
    """
    parts = path.split("/")
    if len(path) > 240 or any(part in ("", ".", "..") for part in parts) or re.search(r'[\\:*?"<>|\x00-\x1f]', path):
        raise FieldError(f"files holds the path {json.dumps(path[:60])}; it must be a plain path inside the bundle")


def _check_schema(version: Any) -> None:
    if isinstance(version, bool) or not isinstance(version, int):
        raise BundleError("the manifest has no schema_version; it was not written by edgeseg")
    if version != SCHEMA_VERSION:
        way = "update edgeseg" if version > SCHEMA_VERSION else "export the bundle again"
        raise BundleError(f"the manifest has schema version {version}, this edgeseg reads {SCHEMA_VERSION}; {way}")


def _canonical(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(data).encode()).hexdigest()


def _manifest_from(fields: Fields) -> Manifest:
    classes = fields.integer("num_classes", 1, MOST_CLASSES)
    count = max(2, classes)
    files = fields.words("files", pattern=_SHA256)
    for path in files:
        check_relative(path)
    palette = fields.integer_rows("palette", count, 3, 0, 255)
    spec = InputSpec.from_fields(fields.section("input"))
    manifest = Manifest(
        name=fields.text("name"),
        network=fields.text("network"),
        num_classes=classes,
        labels=fields.texts("labels", count, count),
        palette=tuple((row[0], row[1], row[2]) for row in palette),
        input_size=_size(fields, "input_size"),
        logit_size=_size(fields, "logit_size"),
        divisor=fields.integer("divisor", 1, LARGEST_SIDE),
        input=spec,
        resize=ResizeRule.from_fields(fields.section("resize"), spec.image_channels),
        postprocess=PostprocessSpec.from_fields(fields.section("postprocess")),
        targets=fields.texts("targets", 1, 100),
        batch=fields.integer("batch", 1, LARGEST_SIDE),
        dynamic=fields.flag("dynamic"),
        precision=fields.choice("precision", PRECISIONS),
        precisions=fields.words("precisions", pattern=_PRECISION),
        parity=tuple(Parity.from_fields(Fields(entry, "parity")) for entry in fields.items("parity", 0, 100)),
        versions=fields.words("versions"),
        sample_input=fields.text("sample_input", pattern=f"({_SHA256})?"),
        files=files,
        sizes={path: fields.section("sizes").integer(path, 0, _COUNT) for path in fields.section("sizes")},
        facts=_facts(fields),
        schema_version=fields.integer("schema_version", SCHEMA_VERSION, SCHEMA_VERSION),
    )
    _check_whole(manifest)
    return manifest


def _check_whole(manifest: Manifest) -> None:
    """Check what involves several fields."""
    if any(side % manifest.divisor for side in manifest.input_size):
        raise FieldError(f"input_size {list(manifest.input_size)} is no multiple of divisor {manifest.divisor}")
    if len(set(manifest.targets)) != len(manifest.targets) or not all(manifest.targets):
        raise FieldError("targets holds a name twice, or an empty one")
    if manifest.precisions.keys() - set(manifest.targets):
        raise FieldError("precisions holds a target that targets does not")
    if manifest.sizes.keys() - manifest.files.keys():
        raise FieldError("sizes holds a path that files does not")
    manifest.postprocess.check_channels(manifest.num_classes)


def _size(fields: Fields, name: str) -> Size:
    height, width = fields.integers(name, 2, 1, LARGEST_SIDE)
    return height, width


def _facts(fields: Fields) -> dict[str, Any]:
    facts = fields.section("facts")
    if "precision" in facts and "self_test" in facts.section("precision"):
        facts.section("precision").number("self_test", 0.0, 1.0)
    return dict(fields.value("facts"))
