"""Programs in files: which kinds are opened, what they give, and what is said of the rest."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from edgeseg.errors import CheckpointError, UsageError
from edgeseg.models.programs import Program, is_program, names_file, open_program, without_scripts
from edgeseg.models.source import resolve_network
from tests.export.networks import Tiny

IMAGE = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
NETWORK = Tiny(align_corners=False).eval()


def _exported(batch: int = 1, **how: Any) -> ExportedProgram:
    return export(NETWORK, (IMAGE.expand(batch, -1, -1, -1).clone(),), **how)


def _scripted() -> Any:
    return torch.jit.script(NETWORK)


def _traced() -> Any:
    return torch.jit.trace(NETWORK, IMAGE)  # type: ignore[no-untyped-call]


def _frozen() -> Any:
    return torch.jit.freeze(torch.jit.script(NETWORK), optimize_numerics=False)


SCRIPTS = [_scripted, _traced, _frozen]


@pytest.fixture(autouse=True)
def _no_deprecations() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _free() -> ExportedProgram:
    return _exported(2, dynamic_shapes=({0: Dim("n"), 2: 4 * Dim("h", min=2), 3: 4 * Dim("w", min=2)},))


@pytest.mark.parametrize("build", SCRIPTS)
def test_a_torchscript_archive(build: Callable[[], Any], tmp_path: Path) -> None:
    torch.jit.save(build(), tmp_path / "net.ts")
    source = resolve_network(str(tmp_path / "net.ts"))
    assert (source.origin, source.spec.name, source.by_name) == ("net.ts", "net", False)
    assert isinstance(source.module, torch.jit.ScriptModule)
    torch.testing.assert_close(source.module(IMAGE), NETWORK(IMAGE))


def test_an_exported_program(tmp_path: Path) -> None:
    torch.export.save(_exported(), tmp_path / "net.pt2")
    source = resolve_network(str(tmp_path / "net.pt2"))
    assert (source.origin, source.spec.name, source.spec.input_size) == ("net.pt2", "net", (32, 48))
    assert torch.equal(source.module(IMAGE), NETWORK(IMAGE))
    assert not source.module.train().training


def test_a_program_handed_in_or_of_a_factory() -> None:
    assert resolve_network(_exported()).origin == "Program"
    assert (resolve_network(_scripted()).origin, resolve_network(_traced()).origin) == ("Tiny", "Tiny")
    made = resolve_network(f"{__name__}:_exported")
    assert (made.origin, made.spec.input_size) == (f"{__name__}:_exported", (32, 48))
    assert torch.equal(made.module(IMAGE), NETWORK(IMAGE))
    scripted = resolve_network(f"{__name__}:_scripted")
    torch.testing.assert_close(scripted.module(IMAGE), NETWORK(IMAGE))


def test_weights_for_a_script_of_a_factory(tmp_path: Path) -> None:
    other = Tiny(align_corners=False, seed=3).eval()
    torch.save(other.state_dict(), tmp_path / "w.pth")
    source = resolve_network(f"{__name__}:_scripted", weights=tmp_path / "w.pth")
    torch.testing.assert_close(source.module(IMAGE), other(IMAGE))


def test_what_a_program_takes() -> None:
    fixed, free = Program(_exported()), Program(_free())
    assert (fixed.shape, fixed.size) == ((1, 3, 32, 48), (32, 48))
    assert (free.shape, free.size) == ((None, 3, None, None), None)
    free.check_takes("net", (64, 96), batch=3, dynamic=True)
    fixed.check_takes("net", (32, 48))
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        (r"images of 32 x 48 \(height x width\) alone, and 64x48 was asked for", {"size": (64, 48)}),
        ("batch of 1 alone, and --fixed-batch 2 was asked for", {"size": (32, 48), "batch": 2}),
        ("leave --dynamic out", {"size": (32, 48), "dynamic": True}),
    )
    for told, asked in cases:
        with pytest.raises(UsageError, match=told):
            fixed.check_takes("net", **asked)


class _Two(nn.Module):
    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        return image + other


class _Flat(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.mean(0)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (lambda: _exported(4), "takes a batch of 4 alone"),
        (lambda: export(_Two(), (IMAGE, IMAGE)), "expected images .* alone"),
        (lambda: export(_Flat(), (IMAGE[0],)), r"takes \[\(3, 32, 48\)\]; expected images"),
        (lambda: export(Tiny().half().eval(), (IMAGE.half(),)), "takes float16 images; export it again for float32"),
        (lambda: export(Tiny().train(), (IMAGE,)), r"training mode \(aten.batch_norm.default\); call eval\(\)"),
        (lambda: export(nn.Dropout(0.5).train(), (IMAGE,)), r"training mode \(aten.dropout.default\)"),
    ],
)
def test_programs_that_are_no_network(program: Callable[[], ExportedProgram], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Program(program())


def test_files_that_are_no_programs(tmp_path: Path) -> None:
    state, script = tmp_path / "w.pth", tmp_path / "net.pt"
    torch.save(NETWORK.state_dict(), state)
    torch.jit.save(_scripted(), script)
    (tmp_path / "half.pt").write_bytes(script.read_bytes()[: script.stat().st_size // 2])
    (tmp_path / "text.pt").write_text("no program\n")
    (tmp_path / "graph.onnx").write_bytes(b"\x08\x0a")
    torch.save(NETWORK, tmp_path / "whole.pt")
    (tmp_path / "made.edgeseg").mkdir()
    for name, kind, told in (
        ("w.pth", UsageError, "holds 9 tensors and no program; give the network's name"),
        ("missing.pt2", UsageError, "is not there; give a TorchScript archive"),
        (".", UsageError, "is a folder"),
        ("made.edgeseg", UsageError, "is a bundle, exported already"),
        ("graph.onnx", UsageError, "is a graph already; give the network of PyTorch"),
        ("half.pt", CheckpointError, "is not a TorchScript archive .* damaged or truncated"),
        ("text.pt", CheckpointError, "is a text"),
        ("whole.pt", CheckpointError, "pickled"),
    ):
        with pytest.raises(kind, match=told) as caught:
            open_program(tmp_path / name)
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="is a program and holds its weights"):
        resolve_network(str(script), weights=state)
    with pytest.raises(UsageError, match="num_classes"):
        resolve_network(str(script), num_classes=3)


def test_an_archive_whose_program_is_damaged(tmp_path: Path) -> None:
    import zipfile

    torch.jit.save(_scripted(), tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt") as whole, zipfile.ZipFile(tmp_path / "less.pt", "w") as less:
        for name in whole.namelist():
            if "code/" not in name:
                less.writestr(name, whole.read(name))
    with pytest.raises(CheckpointError, match=r"cannot be opened as a program .* save it again with the PyTorch"):
        open_program(tmp_path / "less.pt")


@pytest.mark.parametrize(
    ("word", "is_file"),
    [
        ("regseg", False),
        ("package.module:factory", False),
        ("net.pt", True),
        ("a/b.TS", True),
        ("x.onnx", True),
        ("b.edgeseg", True),
    ],
)
def test_words_that_name_files(word: str, is_file: bool) -> None:
    assert names_file(word) is is_file


@pytest.mark.parametrize("build", SCRIPTS)
def test_scripts_are_put_in_a_form_that_the_exporter_records(build: Callable[[], Any]) -> None:
    script = build()
    recorded = without_scripts(script)
    assert is_program(script)
    assert not is_program(recorded)
    torch.testing.assert_close(recorded(IMAGE), NETWORK(IMAGE))
    graph = export(recorded, (IMAGE,), strict=False).graph
    assert "aten._convolution.default" not in {str(node.target) for node in graph.nodes}


def test_a_script_inside_of_a_module() -> None:
    mine = nn.Sequential(NETWORK, torch.jit.script(nn.Conv2d(5, 2, 1))).eval()
    recorded = without_scripts(mine)
    assert isinstance(mine[1], torch.jit.ScriptModule)
    assert not is_program(recorded)
    assert without_scripts(NETWORK) is NETWORK
    torch.testing.assert_close(recorded(IMAGE), mine(IMAGE))
