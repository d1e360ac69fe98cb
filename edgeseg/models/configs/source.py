"""A config read whole: a registered network with its conventions, and with a checkpoint, ready to export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeseg.errors import CheckpointError, UsageError
from edgeseg.labels import LabelSet
from edgeseg.models.checkpoints import open_checkpoint, stored_classes
from edgeseg.models.configs.classes import Outputs, read_labels, read_outputs
from edgeseg.models.configs.files import read_config_file
from edgeseg.models.configs.pipeline import Preparation, read_preparation
from edgeseg.models.configs.recognise import heads_of, recognise_network
from edgeseg.models.registry import model_spec
from edgeseg.models.source import NetworkSource, resolve_network
from edgeseg.models.spec import ModelSpec
from edgeseg.specs import PostprocessSpec
from edgeseg.text import one_line

__all__ = ["ConfigNetwork", "read_config", "resolve_config"]


@dataclass(frozen=True, kw_only=True)
class ConfigNetwork:
    """What a config describes.

    Attributes:
        name: Registry name of the network.
        num_classes: Output channels.
        spec: Conventions of the network: the registry's, with all that the config says in their place.
        labels: Names and colours of the classes.
        notes: Sentences the user must see: what was taken, and what of the config edgeseg does otherwise.
        file: Name of the config.
    """

    name: str
    num_classes: int
    spec: ModelSpec
    labels: LabelSet
    notes: tuple[str, ...]
    file: str


def read_config(path: str | Path, *, trust: bool = False) -> ConfigNetwork:
    """Read a config of mmsegmentation, 0.x or 1.x, of a network that is registered.

    Every option of the model that matters for inference must be the registered network's; what differs is named. What
    serves training alone (auxiliary heads, losses, optimisers, schedules, hooks) is left out.

    Args:
        path: A ``.py`` file in mmengine's form, with the files that it is based on, or a JSON or YAML dump of it.
        trust: Run a ``.py`` file, which is code. Without it, literals alone are read of it, and code is refused.

    Raises:
        UsageError: The file cannot be read or has code in it, no registered network has its options, or it does
            something to pictures that edgeseg does not.
        ExportError: Its code fails.

    Example:
        >>> text = '''
        ... model = dict(
        ...     type='EncoderDecoder',
        ...     data_preprocessor=dict(
        ...         mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, size=(512, 1024)),
        ...     backbone=dict(type='BiSeNetV2'),
        ...     decode_head=dict(
        ...         type='FCNHead', in_channels=128, in_index=0, channels=1024, num_convs=1, concat_input=False,
        ...         norm_cfg=dict(type='SyncBN'), num_classes=5))
        ... '''
        >>> _ = Path("mine.py").write_text(text)
        >>> found = read_config("mine.py")
        >>> found.name, found.num_classes, found.spec.input_size, found.spec.input.channel_order
        ('mmseg_bisenetv2', 5, (512, 1024), 'rgb')
    """
    return _read(path, trust, None)


def resolve_config(
    path: str | Path,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    num_classes: int | None = None,
    trust: bool = False,
) -> NetworkSource:
    """Build the network of a config, ready to export, with a checkpoint by mmsegmentation's keys.

    Args:
        path: As `read_config` takes.
        weights: Checkpoint; without it the weights are random.
        weights_key: The set of weights to take, where the checkpoint holds several.
        num_classes: Output channels, in place of the config's.
        trust: As `read_config` takes.

    Raises:
        UsageError: As `read_config`.
        ExportError: As `read_config`.
        CheckpointError: The checkpoint cannot be read, does not fit, or has another number of classes.

    Example:
        >>> source = resolve_config("mine.py")
        >>> source.origin, source.spec.num_classes, source.weights
        ('mmseg_bisenetv2', 5, 'random (seed 0)')
    """
    found = _read(path, trust, num_classes)
    try:
        source = resolve_network(
            found.name, weights=weights, weights_key=weights_key, num_classes=found.num_classes, spec=found.spec
        )
    except CheckpointError as error:
        _check_classes(found, weights, weights_key, error)
        raise
    return replace(source, label_set=found.labels, notes=found.notes + source.notes)


def _check_classes(found: ConfigNetwork, weights: str | Path | None, key: str | None, error: CheckpointError) -> None:
    """Tell a checkpoint of another number of classes from one that does not fit, or cannot be read, otherwise."""
    if weights is None:
        return
    stored = stored_classes(open_checkpoint(weights, key).state, found.spec.classes_key)
    if stored not in (None, found.num_classes):
        raise CheckpointError(
            f"the checkpoint '{one_line(weights)}' has {stored} classes, and {found.file} says {found.num_classes}; "
            "give the checkpoint that was trained by this config, or --classes"
        ) from error


def _read(path: str | Path, trust: bool, num_classes: int | None) -> ConfigNetwork:
    config = read_config_file(path, trust=trust)
    file = one_line(Path(path).name)
    try:
        return _described(config, file, num_classes)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error


def _described(config: Mapping[str, Any], file: str, num_classes: int | None) -> ConfigNetwork:
    model = config.get("model")
    if not isinstance(model, Mapping):
        raise UsageError("it has no dictionary 'model'; give the config of a network, or what Config.dump writes")
    name = recognise_network(model)
    outputs, notes = _outputs(heads_of(model), num_classes)
    prepared = read_preparation(config, model_spec(name).input)
    labels, of_labels = read_labels(config, outputs.classes)
    spec = _spec(model_spec(name), prepared, outputs, labels, _align_corners(heads_of(model)[-1]))
    told = (_summary(file, spec, labels), *_from_registry(prepared, name), *notes, *prepared.notes, *of_labels)
    return ConfigNetwork(
        name=name, num_classes=outputs.channels, spec=spec, labels=labels, notes=told, file=file
    )  # fmt: skip


def _outputs(heads: list[Mapping[str, Any]], num_classes: int | None) -> tuple[Outputs, tuple[str, ...]]:
    """Return what the last head gives, and a sentence where the user gave another number of output channels."""
    own = read_outputs(heads)
    if num_classes is None or num_classes == own.channels:
        return own, ()
    if num_classes < 1:
        raise UsageError(f"num_classes is {num_classes}; it must be at least 1")
    note = f"{num_classes} output channels were given in place of the config's {own.channels}"
    return Outputs(num_classes, max(2, num_classes)), (note,)


def _align_corners(head: Mapping[str, Any]) -> bool:
    """Return whether the last resize aligns corners; K-Net's is that of the head inside it."""
    inner = head.get("kernel_generate_head")
    return bool((inner if isinstance(inner, Mapping) else head).get("align_corners", False))


def _spec(base: ModelSpec, prepared: Preparation, outputs: Outputs, labels: LabelSet, align_corners: bool) -> ModelSpec:
    return base.but(
        num_classes=outputs.channels,
        labels=labels.name,
        input=prepared.input or base.input,
        input_size=prepared.size or base.input_size,
        resize=prepared.resize or base.resize,
        postprocess=PostprocessSpec(align_corners, outputs.threshold),
    )


def _summary(file: str, spec: ModelSpec, labels: LabelSet) -> str:
    """Say in one sentence what was taken from a config."""
    size, given = spec.input_size, spec.input
    channels = f"{spec.num_classes} output channel{'s' * (spec.num_classes > 1)}"
    names = ", ".join(one_line(name, 40) for name in labels.names[:3])
    threshold = f", threshold {spec.postprocess.threshold:.4g} on the logit" if spec.num_classes == 1 else ""
    pictures = f"{size[0]}x{size[1]} (height x width, {spec.resize.mode})"
    colours = f"{given.channel_order}, mean {_numbers(given.mean)}, std {_numbers(given.std)}"
    return (
        f"{file}: network '{spec.name}', {channels}{threshold} ({names}{', …' * (len(labels.names) > 3)}), {pictures}, "
        f"{colours}, align_corners {spec.postprocess.align_corners}"
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _from_registry(prepared: Preparation, name: str) -> list[str]:
    """Say what the config leaves open, which is then the registered network's."""
    parts = (("mean, std and channel order", prepared.input), ("the size of pictures", prepared.size))
    return [f"the config says nothing of {what}: taken are those of '{name}'" for what, found in parts if found is None]
