"""How a Predictor travels to another process: as what it was opened with."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeseg.bundle import Manifest
from edgeseg.errors import BundleError, UsageError
from edgeseg.predictor.config import PredictorConfig
from edgeseg.runtimes import RuntimeOptions
from edgeseg.text import first_line, one_line

if TYPE_CHECKING:
    from edgeseg.predictor.predictor import Predictor

__all__ = ["Recipe", "reopen"]

AnyPath = TypeVar("AnyPath", bound="str | Path")


@dataclass(frozen=True)
class Recipe:
    """What opens a Predictor again, wherever the other process runs: relative paths are made absolute.

    Attributes:
        path: The bundle's folder.
        target: Engine.
        settings: Keywords of `Predictor`.
    """

    path: Path
    target: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, path: Path, target: str, config: PredictorConfig) -> Recipe:
        """Note what a Predictor is opened with, while the current folder is still that of its paths."""
        settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        settings["trusted_keys"] = tuple(_absolute(key) for key in config.trusted_keys)
        settings["options"] = config.options and _absolute_options(config.options)
        return cls(path.absolute(), target, settings)

    def pickled(self, kind: type[Predictor], manifest: Manifest) -> tuple[Callable[..., Predictor], tuple[Any, ...]]:
        """Give what `Predictor.__reduce__` returns.

        Args:
            kind: The Predictor's class.
            manifest: Of its bundle.

        Raises:
            UsageError: A setting that cannot be pickled.
        """
        for name, value in self.settings.items():
            try:
                pickle.dumps(value)
            except Exception as error:  # whatever the value's class raises
                raise UsageError(
                    f"the Predictor cannot be pickled: its setting {name} holds something that cannot "
                    f"({first_line(error)}); open a Predictor in the other process instead"
                ) from error
        return reopen, (kind, self.path, self.target, self.settings, manifest.to_json()["sha256"])


def reopen(kind: type[Predictor], path: Path, target: str, settings: dict[str, Any], manifest: str) -> Predictor:
    """Open a pickled Predictor again, with every check.

    Args:
        kind: The Predictor's class.
        path: The bundle's folder.
        target: Engine.
        settings: Keywords of `Predictor`.
        manifest: SHA-256 of the manifest that the pickled Predictor had.

    Raises:
        BundleError: As `Predictor`, or another bundle lies at `path` now.
        TargetUnavailableError: As `Predictor`.
    """
    predictor = kind(path, target, **settings)
    if predictor.manifest.to_json()["sha256"] != manifest:
        predictor.close()
        raise BundleError(
            f"bundle '{one_line(path)}' is not the one that the Predictor was pickled with; open a Predictor of it anew"
        )
    return predictor


def _absolute_options(options: RuntimeOptions) -> RuntimeOptions:
    """Make the paths absolute; `weights` may also be a word."""
    weights, cache = options.weights, options.cache_dir
    return dataclasses.replace(
        options,
        weights=_absolute(weights) if weights is not None and Path(weights).exists() else weights,
        cache_dir=None if cache is None else _absolute(cache),
        provider_options=dict(options.provider_options),
    )


def _absolute(path: AnyPath) -> AnyPath:
    """Make a path absolute; one that begins with ``~`` is."""
    return path if str(path).startswith("~") else type(path)(Path(path).absolute())
