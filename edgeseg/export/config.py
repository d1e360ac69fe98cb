"""What an export is asked to do: one frozen value, checked once. Every option is documented here and nowhere else."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgeseg.errors import UnknownNameError, UsageError
from edgeseg.graph.profile import DEFAULT_PROFILE, MachineProfile, load_profile
from edgeseg.labelled import LabelledPictures
from edgeseg.runtimes import engine, resolve_target
from edgeseg.specs import ACTIVATIONS, Activation, Size, check_channels

__all__ = ["PRECISIONS", "ExportConfig", "canonical_targets", "config_of", "option_help"]

#: Precision -> smallest share of labels that must equal fp32 PyTorch's, where nothing is said.
PRECISIONS: dict[str, float] = {"fp32": 0.999, "fp16": 0.999, "bf16": 0.99, "int8": 0.98}


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Options of one export. The command line's help is drawn from these lines.

    Attributes:
        targets: Names or aliases of targets (`edgeseg doctor` lists them).
        size: HEIGHTxWIDTH of the graph's input, in pixels; the published size where none is given.
        channels: How many channels the network takes: 1 (the graph makes pictures grey), 3, or as many as its arrays
            and files will have; found by running it where none is given.
        batch: Fixed batch of the graph.
        dynamic: Leave height and width free. The engines of TensorRT then take a quarter of the size to twice of it.
        label_size: With labels as output, HEIGHTxWIDTH of those labels; the size of the graph's input where none is
            given.
        output: logits, or labels: also write graphs from picture to labels alone, for programs without edgeseg.
        take: Which of the tensors that the network returns are the logits: key or index, such as out, 1 or aux.0; a dot
            for a tensor alone whose size is no stride of the picture's.
        threshold: For one output channel: label 1 where the output is above it; 0.5 for probabilities, 0 for logits.
        activation: What the network has applied to its output itself: none (logits), sigmoid or softmax. Scores are
            then the values themselves. Without it that is found out on pictures and said.
        fuse: Fold batch norms and branches on the module first.
        rewrites: Rewrite the graph where the same numbers cost less; each rewrite is proven, and undone where it does
            not hold.
        skip_passes: Names of passes on the graph to leave out.
        machine: Machine profile that rewrites are decided by: x86-avx512, x86-avx2, arm-neon, or a file of
            `edgeseg benchmark profile`.
        parity_images: Pictures, or folders of them, to verify on besides the sample and two synthetic ones.
        sample: Picture stored as the self test; the one that ships with edgeseg where none is given.
        min_agreement: Smallest share of labels, 0..1, that must equal fp32 PyTorch's. Without it 0.999 for fp32 and
            fp16, 0.99 for bf16, 0.98 for int8; for a low precision it counts on held-out calibration pictures, and is
            not asked for where max_miou_drop is.
        max_logit_error: Largest difference of a logit from fp32 PyTorch's, relative to the range of the logits; the
            network's own tolerance where none is given.
        precision: fp32; fp16 or int8 in the graph; bf16, arithmetic of OpenVINO on an fp32 graph.
        calib: Folder of calibration pictures, needed for int8; every fourth is held out to score by. mIoU is measured
            too where there are label maps (LabelledPictures in Python).
        calib_recursive: Also take the calibration pictures of subfolders.
        max_miou_drop: Largest loss of mIoU against fp32, 0..1 (0.005 is half a point); operators stay in fp32 until it
            holds.
        force: Write a low precision though it is below its budget or slower than fp32; the report says so.
    """

    targets: tuple[str, ...] = ("ort",)
    size: Size | None = None
    channels: int | None = None
    batch: int = 1
    dynamic: bool = False
    label_size: Size | None = None
    output: str = "logits"
    take: str | None = None
    threshold: float | None = None
    activation: Activation | None = None
    fuse: bool = True
    rewrites: bool = True
    skip_passes: tuple[str, ...] = ()
    machine: str | Path = DEFAULT_PROFILE
    parity_images: tuple[Path, ...] = ()
    sample: Path | None = None
    min_agreement: float | None = None
    max_logit_error: float | None = None
    precision: str = "fp32"
    calib: Path | LabelledPictures | None = None
    calib_recursive: bool = False
    max_miou_drop: float | None = None
    force: bool = False

    def __post_init__(self) -> None:
        self._set("targets", canonical_targets(_several(self.targets)))
        self._set("skip_passes", _several(self.skip_passes))
        self._set("parity_images", tuple(Path(path) for path in _several(self.parity_images)))
        for name in ("sample", "calib"):
            value = getattr(self, name)
            self._set(name, Path(value) if isinstance(value, str) else value)
        load_profile(self.machine)  # one that cannot be read is told before the work
        self._check_numbers()
        self._check_precision()
        self._check_targets()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def all_targets(self) -> tuple[str, ...]:
        """Targets the bundle holds: those asked for, and ``ort`` first, since every bundle holds ``model.onnx``."""
        return tuple(dict.fromkeys(("ort", *self.targets)))

    @property
    def machine_profile(self) -> MachineProfile:
        """The profile that `machine` names."""
        return load_profile(self.machine)

    @property
    def lowers(self) -> bool:
        """Whether anything but fp32 is wanted."""
        return self.precision != "fp32"

    @property
    def kept_fp32(self) -> tuple[str, ...]:
        """Sentences on targets that keep fp32 whatever precision is asked for."""
        reasons = {target: engine(target).fp32_reason for target in self.targets if self.lowers}
        return tuple(f"{target} has fp32 in this bundle: {reason}" for target, reason in reasons.items() if reason)

    @property
    def fp32_budget(self) -> float:
        """Smallest share of equal labels that is accepted of a graph or engine in fp32."""
        return PRECISIONS["fp32"] if self.lowers or self.min_agreement is None else self.min_agreement

    def budget(self, precision: str) -> float:
        """Smallest share of equal labels, 0..1, that is accepted of a precision on held-out pictures."""
        if self.min_agreement is not None:
            return self.min_agreement
        return 0.0 if self.max_miou_drop is not None else PRECISIONS[precision]

    def but(self, **changes: Any) -> ExportConfig:
        """A copy with the given options changed.

        Raises:
            UsageError: No such option, or a value that cannot be.
        """
        _check_names(changes)
        return replace(self, **changes)

    def _check_numbers(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch is {self.batch}; it must be at least 1")
        if self.channels is not None:
            check_channels(self.channels)
        for name in ("min_agreement", "max_miou_drop"):
            share = getattr(self, name)
            if share is not None and not 0.0 <= share <= 1.0:
                raise UsageError(f"{name} is {share}; it is a share between 0 and 1 (0.005 is half a point)")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise UsageError(f"threshold is {self.threshold}; it must be a finite number")
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise UnknownNameError("activation", self.activation, ACTIVATIONS)
        if self.max_logit_error is not None and not self.max_logit_error >= 0.0:
            raise UsageError(f"max_logit_error is {self.max_logit_error}; it is a share of the range, 0 or more")
        for name, size in (("size", self.size), ("label_size", self.label_size)):
            if size is not None and min(size) < 1:
                raise UsageError(f"{name} {size[0]}x{size[1]} is not positive; give HEIGHTxWIDTH in pixels")

    def _check_precision(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)
        if self.precision == "int8" and self.calib is None:
            raise UsageError(
                "int8 needs calibration pictures, since ranges of random numbers would be those of no real picture; "
                "give a folder of pictures like those the device will see (--calib FOLDER)"
            )
        if self.calib is not None and not self.lowers:
            raise UsageError("calibration pictures (--calib) are for --precision int8, fp16 or bf16; got fp32")
        labelled = isinstance(self.calib, LabelledPictures)
        if self.calib_recursive and (self.calib is None or labelled):
            raise UsageError(
                "calib_recursive is for a folder of calibration pictures; LabelledPictures say it themselves"
            )
        if self.max_miou_drop is not None and not labelled:
            raise UsageError(
                "max_miou_drop needs label maps to measure mIoU on; give --calib-labels FOLDER or --calib-dataset NAME "
                "ROOT (LabelledPictures as calib)"
            )

    def _check_targets(self) -> None:
        if self.precision == "bf16" and not any("bf16" in engine(target).lowers_to for target in self.targets):
            raise UsageError("bf16 is arithmetic of OpenVINO on CPUs that have it; add the target openvino")
        one_size = {target: engine(target).one_size for target in self.targets if engine(target).one_size}
        if self.dynamic and one_size:
            raise UsageError(
                f"--dynamic leaves height and width free, which {', '.join(one_size)} cannot "
                f"({'; '.join(one_size.values())}); export a fixed --size for it, or leave it out"
            )
        fp32_alone = {target: engine(target).fp32_reason for target in self.targets}
        if self.lowers and all(fp32_alone.values()):
            raise UsageError(
                f"{self.precision} was asked for with {', '.join(fp32_alone)} alone, which has fp32 in every bundle "
                f"({'; '.join(fp32_alone.values())}); export fp32, or add another target"
            )
        if self.output not in ("logits", "labels"):
            raise UsageError(f"output '{self.output}' is neither logits nor labels")
        if self.output == "labels" and self.dynamic:
            raise UsageError("--output labels ends the graph in labels of one size; leave out --dynamic")
        if self.label_size is not None and self.output != "labels":
            raise UsageError("--label-size concerns graphs that end in labels; add --output labels")


def config_of(config: ExportConfig | None, shorthands: dict[str, Any]) -> ExportConfig:
    """One config of a config and options given by name.

    Raises:
        UsageError: No such option, or a value that cannot be.
    """
    _check_names(shorthands)
    return ExportConfig(**shorthands) if config is None else config.but(**shorthands)


def canonical_targets(words: Sequence[str]) -> tuple[str, ...]:
    """Canonical, distinct names of targets; a word may hold several, with commas.

    Raises:
        UnknownNameError: A word that names no target.
        UsageError: No word at all.
    """
    names = [resolve_target(part) for word in words for part in word.split(",") if part.strip()]
    if not names:
        raise UsageError("no target is given; name one, such as ort")
    return tuple(dict.fromkeys(names))


def option_help(name: str) -> str:
    """What the docstring of `ExportConfig` says of an option, as one line.

    >>> option_help("batch")
    'Fixed batch of the graph.'
    """
    text = inspect.getdoc(ExportConfig) or ""
    found = re.search(rf"^    {name}: (.*?)(?=^    \w+: |\Z)", text, re.MULTILINE | re.DOTALL)
    return " ".join(found.group(1).split()) if found else ""


def _several(values: Any) -> tuple[Any, ...]:
    """A tuple of one or several values; a lone string or path is one."""
    return (values,) if isinstance(values, (str, Path)) else tuple(values)


def _check_names(options: dict[str, Any]) -> None:
    known = [entry.name for entry in fields(ExportConfig)]
    for name in options:
        if name not in known:
            raise UnknownNameError("export option", name, known)
