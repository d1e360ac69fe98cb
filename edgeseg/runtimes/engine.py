"""What an engine is: one record, which each engine's folder gives in its ``engine.py``.

Everything that edgeseg does with an engine goes through this record: the command line, the export, the proof, the
Predictor, the benchmark, ``edgeseg doctor`` and the README's table. A package of somebody else's adds an engine by an
entry point in the group ``edgeseg.runtimes``: its name is the target, its object an `Engine` of that name (or a
callable that returns one). See `edgeseg.runtimes.registry`.

A record imports nothing heavy: its functions import what they need when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.errors import EdgesegError, UsageError
from edgeseg.runtimes._base import RuntimeOptions, refuse_unused
from edgeseg.text import first_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from edgeseg.bundle import Bundle
    from edgeseg.graph.passes import Pass
    from edgeseg.manifest import Manifest
    from edgeseg.runtimes._base import Session

__all__ = ["BuildRequest", "Engine", "Probe", "Standalone"]


@dataclass(frozen=True)
class Probe:
    """What is here of an engine.

    Attributes:
        usable: Whether a session could be opened.
        engine: Engine and version, empty where it is not installed.
        devices: Providers or devices it could run on.
        reason: Why it is not usable, in a sentence; empty where it is.
        advice: What to do about it; empty where there is nothing to do.
        device_words: What the option ``device`` takes for each of `devices`; empty where it takes their names.
    """

    usable: bool
    engine: str = ""
    devices: tuple[str, ...] = ()
    reason: str = ""
    advice: str = ""
    device_words: tuple[str, ...] = ()

    @classmethod
    def of_error(cls, error: EdgesegError, engine: str = "") -> Probe:
        """Make a probe of an error: edgeseg's read ``what is wrong; what to do``."""
        reason, _, advice = str(error).partition("; ")
        return cls(False, engine=engine, reason=reason, advice=advice)


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What an engine's files are built from at export.

    Attributes:
        folder: The bundle's folder. The engine writes below a folder of its own in it, such as ``toy/graph.onnx``. Its
            ``.onnx`` and ``.xml`` files keep the metadata of the graph they are made of.
        graph: ONNX file to build from: the network in the precision and form that the target has in this bundle. It
            may lie outside of `folder`, and goes after the build.
        manifest: Of the bundle; its list of files is made later.
        network: The fp32 module as PyTorch runs it.
        folded: The fp32 module that the graph was made of: batch norms folded, normalised float (N, C, H, W) in, logits
            alone out. It still ends in the resize that the export peels off a graph.
    """

    folder: Path
    graph: Path
    manifest: Manifest
    network: nn.Module
    folded: nn.Module


@dataclass(frozen=True, kw_only=True)
class Standalone:
    """How an engine with a format of its own takes a graph from picture to labels alone (``--output labels``).

    Attributes:
        file: Where it lies in the bundle, such as ``labels/openvino.xml``.
        convert: Writes an ONNX file (first) in the engine's format (second).
        runner: Opens the written file; returns a function from uint8 (N, H, W, C) to labels (N, H, W).
    """

    file: str
    convert: Callable[[Path, Path], None]
    runner: Callable[[Path], Callable[[NDArray[np.uint8]], NDArray[Any]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Engine:
    """One target: what it is, what it needs, and how it is built, opened and looked at.

    Attributes:
        name: The target's name.
        description: What it is, in words.
        open: Opens a bundle; called with options that `options` names only.
        probe: Says what is here of it. An `EdgesegError` that it raises is an answer too.
        aliases: Other words for the target, in lower case.
        needs: What must be installed, in words (Markdown).
        extra: Extra of edgeseg that installs it; empty where there is none.
        options: Field of `RuntimeOptions` that it takes -> what that may be, in words.
        files: What it opens in a bundle: file names, patterns of them (``toy/*.plan``), or folders ending in ``/``; the
            first that the bundle holds.
        graph: Where its graph lies in a bundle, such as ``ort/model.onnx``, where `passes` or `signed_int8` make it
            another than ``model.onnx``. Engines that name the same file share the graph, and with it the precision.
            Empty for one that opens nothing but ``model.onnx`` or what `build` made.
        packages: Distributions whose versions go into the manifest of a bundle for it.
        needs_gpu: Whether it runs on a GPU alone, which the machine that exports may lack. Without one, the proof is
            that its graph gives the network's masks in ONNX Runtime.
        lowers_to: Precisions that it gains from: of ``int8``, ``fp16``, ``bf16``. Empty for one that always runs fp32.
        one_size: Why its graph cannot leave height and width free, in words; empty where it can.
        fp32_reason: Why an engine that is no reference always has fp32 in a bundle, in words.
        requires: Raises `TargetUnavailableError` before an export starts where what it builds with is not installed.
        build: Writes its files of a bundle; None where the graphs that every bundle holds are enough.
        standalone: Its form of graphs that end in labels alone; None where it reads the ONNX file.
        signed_int8: Whether it reads quantised activations as int8 only; its int8 graphs are then written so.
        passes: Given the precision of the numbers in a graph (``fp32``, ``fp16``, ``int8``), returns the classes of the
            passes that write the graph as its kernels want it. None where ``model.onnx`` is right as it is.
    """

    name: str
    description: str
    open: Callable[[Bundle, RuntimeOptions], Session]
    probe: Callable[[], Probe]
    aliases: tuple[str, ...] = ()
    needs: str = ""
    extra: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ("model.onnx",)
    graph: str = ""
    packages: tuple[str, ...] = ()
    needs_gpu: bool = False
    lowers_to: tuple[str, ...] = ("int8",)
    one_size: str = ""
    fp32_reason: str = ""
    requires: Callable[[], None] | None = None
    build: Callable[[BuildRequest], None] | None = None
    standalone: Standalone | None = None
    signed_int8: bool = False
    passes: Callable[[str], tuple[type[Pass], ...]] | None = None

    def __post_init__(self) -> None:
        unknown = set(self.options) - {option.name for option in fields(RuntimeOptions)}
        if unknown:
            raise UsageError(f"engine '{self.name}' takes options that RuntimeOptions lacks: {', '.join(unknown)}")
        if (self.passes is not None or self.signed_int8) and not self.graph and self.build is None:
            raise UsageError(f"engine '{self.name}' has a graph of its own, but its record does not say where it lies")

    @property
    def words(self) -> tuple[str, ...]:
        """Every word for the target, its name first."""
        return self.name, *self.aliases

    def session(self, bundle: Bundle, options: RuntimeOptions) -> Session:
        """Open a bundle after its options were checked.

        Raises:
            UsageError: An option is set that the engine has no use for.
            EdgesegError: As `edgeseg.runtimes.open_session`.
        """
        refuse_unused(options, self.name, *self.options)
        return self.open(bundle, options)

    def files_in(self, bundle: Bundle) -> tuple[str, ...]:
        """List the files that the engine opens in a bundle."""
        for wanted in self.files:
            pattern = f"{wanted}*" if wanted.endswith("/") else wanted
            found = tuple(name for name in bundle.manifest.files if fnmatchcase(name, pattern))
            if found:
                return found
        return ()

    def size_in(self, bundle: Bundle) -> int:
        """Count the bytes of the files that the engine opens in a bundle."""
        return sum((bundle.path / name).stat().st_size for name in self.files_in(bundle))

    def look(self) -> Probe:
        """Say what is here of the engine; a probe that fails is an answer too."""
        try:
            found: object = self.probe()
        except EdgesegError as error:
            return Probe.of_error(error)
        except Exception as error:  # an engine that breaks while it is looked at
            return Probe(False, reason=f"looking at it failed: {type(error).__name__}: {first_line(error)}")
        if not isinstance(found, Probe):  # of a package that mypy never saw
            return Probe(False, reason=f"looking at it gave {type(found).__name__}, expected edgeseg's Probe")
        return found
