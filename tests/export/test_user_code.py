"""Networks that decide in Python: the line is named, nothing is exported wrong, and nothing else is printed."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import ExportError
from edgeseg.export.config import ExportConfig
from edgeseg.export.inspect import inspect_network
from edgeseg.export.job import prepare_job
from edgeseg.export.network_graph import network_graph
from edgeseg.export.to_onnx import _no_prints, quiet
from edgeseg.export.user_code import Line, ReadingLines, listed, recorded_size_decisions
from edgeseg.models.source import resolve_network

SIZE = (32, 48)
CHOOSE = "compute both sides and choose with torch.where, or leave one of them"


class _Net(nn.Module):
    """A convolution, and a function of its output and the picture."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv, self.function = nn.Conv2d(3, 4, 1), function
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)

    def forward(self, image: Tensor) -> Tensor:
        return self.function(self.conv(image), image)


def _branch(logits: Tensor, _: Tensor) -> Tensor:
    if logits.amax() > -100.0:  # MARK
        return logits * 2
    return logits


def _of_an_integer(logits: Tensor, _: Tensor) -> Tensor:
    if int(logits.amax()) > -100:  # MARK
        return logits * 2
    return logits


def _while(logits: Tensor, _: Tensor) -> Tensor:
    count = torch.zeros(())
    while count < 3:  # MARK
        count, logits = count + 1, logits * 1.5
    return logits


def _item(logits: Tensor, image: Tensor) -> Tensor:
    most = image.amax().item()
    return logits * 2 if most > -100 else logits  # MARK


def _times(logits: Tensor, image: Tensor) -> Tensor:
    for _ in range(int(image.amin() > -100) + 1):  # MARK
        logits = logits + 1
    return logits


def _shape(logits: Tensor, image: Tensor) -> Tensor:
    where = torch.nonzero(image > -100)
    if where.shape[0] > 5:  # MARK
        logits = logits * 2
    return logits


def _compared(logits: Tensor, image: Tensor) -> Tensor:
    if torch.equal(image, image + 1):  # MARK
        logits = logits * 2
    return logits


class _Counted(nn.Module):
    """Decides by a buffer, the same for every picture."""

    level: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("level", torch.ones(()))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.conv(image)
        if self.level > 0:  # MARK
            logits = logits * 2
        return logits


def _marked(function: Any) -> str:
    """The place of a function's marked line, and what stands there."""
    lines, first = inspect.getsourcelines(function)
    index = next(index for index, line in enumerate(lines) if "# MARK" in line)
    return f"tests/export/test_user_code.py:{first + index} '{' '.join(lines[index].split())}"


def _graph(network: nn.Module, **options: Any) -> Any:
    return network_graph(prepare_job(resolve_network(network), ExportConfig(size=SIZE, **options)))


BRANCHES = [_branch, _of_an_integer, _while, _item, _times, _shape, _compared, _Counted]


@pytest.mark.parametrize("decides", BRANCHES)
def test_the_line_of_a_branch_is_named_and_nothing_else_said(decides: Any, capfd: pytest.CaptureFixture[str]) -> None:
    network = decides() if isinstance(decides, type) else _Net(decides)
    with pytest.raises(ExportError) as caught:
        _graph(network)
    said = str(caught.value)
    assert said.startswith(f"torch.onnx.export failed at 32x48: {_marked(getattr(decides, 'forward', decides))}")
    assert f"decides by the values of a tensor, and a graph takes no branches; {CHOOSE}" in said
    assert "\n" not in said
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_with_free_height_and_width_too() -> None:
    with pytest.raises(ExportError, match=rf"with free height and width: .*{CHOOSE} \(at a fixed --size too\)"):
        _graph(_Net(_branch), dynamic=True)


def _caught(logits: Tensor, image: Tensor) -> Tensor:
    try:
        if image.mean() > 1.5:  # MARK
            return logits * 2
    except Exception:  # noqa: S110, RUF100  # as people write it
        pass
    return logits


def _hidden(logits: Tensor, image: Tensor) -> Tensor:
    try:
        if torch.nonzero(image > 2.2).shape[0] > 10:  # no value is read, only a size
            return logits * 2
    except Exception:  # noqa: S110, RUF100
        pass
    return logits


def test_a_side_taken_in_silence_by_a_size_is_told() -> None:
    graph = _graph(_Net(_hidden))
    assert graph.job.readings == ()
    assert "gives other logits than PyTorch on a white picture: check that _Net computes" in " ".join(graph.notes)


def _scaled(logits: Tensor, image: Tensor) -> Tensor:
    return logits * torch.ones_like(image).mean().item()  # MARK


def test_a_side_that_the_exporter_took_in_silence_is_found_out() -> None:
    """The user's own code catches the exporter's error, so that the graph holds what follows."""
    told = (
        rf"other logits than PyTorch on a white picture, since _Net decides by .*, at {_marked(_caught).split(' ')[0]}"
    )
    with pytest.raises(ExportError, match=told):
        _graph(_Net(_caught))


def test_values_that_decide_nothing_are_told_and_exported() -> None:
    graph = _graph(_Net(_scaled))
    assert graph.job.readings == (Line(__file__, _number(_scaled)),)
    assert "takes values out of tensors into Python, at tests/export/test_user_code.py:" in graph.job.notes[0]


def _number(function: Any) -> int:
    return int(_marked(function).split(":")[1].split(" ")[0])


def test_what_is_read_when_a_network_is_looked_at() -> None:
    seen = inspect_network(resolve_network(_Net(_item)), SIZE)
    assert [line.number for line in seen.readings] == [_number(_item) - 1]
    assert inspect_network(resolve_network(_Net(lambda logits, _: logits)), SIZE).readings == ()


def _whole_batch(logits: Tensor, image: Tensor) -> Tensor:
    return logits * image.mean().item()  # MARK


def test_a_value_of_a_whole_batch_is_named_as_what_mixes_its_pictures() -> None:
    with pytest.raises(ExportError, match=r"other pictures of its batch: it decides by the values of a tensor at test"):
        inspect_network(resolve_network(_Net(_whole_batch)), SIZE)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: bool(x.sum() > 0),
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.numpy().sum(),
        lambda x: float(x.sum()) + int(x.sum()),
        lambda x: torch.allclose(x, x),
        lambda x: 1.0 in x,
        lambda x: [0, 1][x.sum().int() * 0],
    ],
)
def test_every_way_to_read(read: Callable[[Tensor], object]) -> None:
    with ReadingLines() as reading:
        read(torch.ones(3))
        torch.ones(3).sum()
    assert [line.file for line in reading.lines] == [__file__]


# Sizes


def _loop(logits: Tensor, image: Tensor) -> Tensor:
    for _ in range(image.shape[2] // 16):  # MARK
        logits = logits + 1
    return logits


def _wide(logits: Tensor, image: Tensor) -> Tensor:
    if image.shape[3] > 41:  # MARK
        logits = logits * 2
    return logits


def _constant(logits: Tensor, image: Tensor) -> Tensor:
    return logits + torch.tensor([float(image.shape[3])])  # MARK


@pytest.mark.parametrize("decides", [_loop, _wide, _constant])
def test_a_graph_that_is_right_at_some_sizes_only(decides: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError) as caught:
        _graph(_Net(decides), dynamic=True)
    said = str(caught.value)
    assert f"(_Net decides by its picture's size at {_marked(decides)}" in said
    assert said.endswith("export _Net at a fixed --size instead")
    assert capfd.readouterr().err == ""


def test_a_size_that_decides_nothing() -> None:
    with recorded_size_decisions() as decisions:
        graph = _graph(_Net(lambda logits, image: logits[..., : image.shape[3]]), dynamic=True)
    assert decisions == []
    assert [dim.dim_param != "" for dim in graph.model.graph.input[0].type.tensor_type.shape.dim[1:3]] == [True, True]


# Operators


@torch.library.custom_op("edgeseg_test::twice", mutates_args=())
def _twice(logits: Tensor) -> Tensor:
    return logits * 2


@_twice.register_fake
def _(logits: Tensor) -> Tensor:
    return torch.empty_like(logits)


@torch.library.custom_op("edgeseg_test::thrice", mutates_args=())
def _thrice(logits: Tensor) -> Tensor:
    return logits * 3


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)


class _WithoutForm(_Head):
    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.conv(image)
        spread: Tensor = torch.linalg.svdvals(logits[:, 0]).amax(1)  # MARK
        return logits * spread[:, None, None, None]


class _OwnOperator(_Head):
    def forward(self, image: Tensor) -> Tensor:
        doubled: Tensor = torch.ops.edgeseg_test.twice(self.conv(image))  # MARK
        return doubled


class _UnknownShape(_Head):
    def forward(self, image: Tensor) -> Tensor:
        tripled: Tensor = torch.ops.edgeseg_test.thrice(self.conv(image))  # MARK
        return tripled


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (_WithoutForm, "the operator aten._linalg_svd of {}' has no ONNX form"),
        (_OwnOperator, "the operator edgeseg_test.twice of {}' has no ONNX form"),
        (
            _UnknownShape,
            "{}' cannot be exported: There was no fake impl registered for <CustomOpDef(edgeseg_test::thrice",
        ),
    ],
)
def test_an_operator_without_a_form(network: type[nn.Module], told: str) -> None:
    with pytest.raises(ExportError) as caught:
        _graph(network())
    assert told.replace("{}", _marked(network.forward)) in str(caught.value)


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        return logits * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 2


@pytest.mark.parametrize(
    "function",
    [
        lambda logits, _: _Double.apply(logits),  # type: ignore[no-untyped-call]
        lambda logits, _: torch.fft.irfft2(torch.fft.rfft2(logits), s=logits.shape[-2:]),
        lambda logits, _: torch.where(logits.mean((1, 2, 3), keepdim=True) > 0, logits * 2, logits),
    ],
)
def test_what_only_looks_hard(function: Any) -> None:
    from edgeseg.graph.run import run_graph

    graph = _graph(_Net(function))
    with torch.inference_mode():
        wanted = graph.job.reference(torch.from_numpy(graph.job.noise)).numpy()
    got = run_graph(graph.model, {"image": graph.job.noise})[0]
    assert abs(got - wanted).max() <= 1e-4 * wanted.std()


def test_torchscript_that_branches() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(_Scripted())
    with pytest.raises(ExportError, match=rf"{_marked(_Scripted.forward).split(' ')[0]} '.* decides by the values"):
        _graph(script)


class _Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.conv(image)
        if bool(logits.amax() > -100.0):  # MARK
            logits = logits * 2
        return logits


# Words


def test_few_lines_of_many_are_listed() -> None:
    lines = [Line("nowhere.py", number) for number in range(1, 6)]
    assert listed(lines) == "nowhere.py:1, nowhere.py:2, nowhere.py:3 and 2 more"
    assert str(Line("nowhere.py", 1, "  x = 1\n")) == "nowhere.py:1 'x = 1'"


def test_loggers_are_as_they_were(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.export import _trace

    monkeypatch.delenv("TORCH_LOGS", raising=False)
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before = logger.handlers, logger.propagate
    with quiet(), quiet():
        logger.warning("not this")
    assert capfd.readouterr().err == ""
    assert (logger.handlers, logger.propagate) == before
    with _no_prints():
        assert "print" in vars(_trace)
    assert "print" not in vars(_trace)
    monkeypatch.setenv("TORCH_LOGS", "dynamic")
    with quiet():
        assert "print" not in vars(_trace)
