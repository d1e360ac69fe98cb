"""Networks of the user's own, exported whole: programs, wrapped modules, sizes that are no stride."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg.errors import CheckpointError, UsageError
from edgeseg.export import export_model
from edgeseg.export.config import ExportConfig
from edgeseg.export.job import prepare_job
from edgeseg.export.network_graph import network_graph
from edgeseg.graph.run import run_graph
from edgeseg.models.source import resolve_network
from edgeseg.postprocess import labels_from_logits
from edgeseg.predictor import Predictor
from edgeseg.specs import PostprocessSpec
from tests.export.networks import Tiny

SIZE = (32, 48)
PICTURE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def _labels(module: nn.Module, size: tuple[int, int] = SIZE) -> Any:
    """What PyTorch's users write: normalise, run, resize, argmax."""
    image = torch.from_numpy(PICTURE).permute(2, 0, 1)[None] / 255.0
    mean, std = (torch.tensor(three)[:, None, None] for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        logits = module.eval()((image - mean) / std)
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(1)[0].numpy()


@pytest.mark.parametrize("kind", ["script", "program"])
def test_the_labels_of_a_bundle_are_those_of_the_program(tmp_path: Path, kind: str) -> None:
    network = Tiny(align_corners=False).eval()
    file = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "script":
            torch.jit.save(torch.jit.script(network), file)
        else:
            torch.export.save(torch.export.export(network, (torch.zeros(1, 3, *SIZE),)), file)
    report = export_model(str(file), size=SIZE, out=tmp_path)
    assert (report.path.name, report.parity[0].differing) == ("net.edgeseg", 0)
    assert report.bundle.manifest.network == "net.pt"
    assert report.parameters == sum(parameter.numel() for parameter in network.parameters())
    with Predictor(report.path, target="ort") as predictor:
        assert np.array_equal(predictor(PICTURE).labels, _labels(network))


def _times_three(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return 3 * output


def _hooked() -> nn.Module:
    network = Tiny()
    network.head.register_forward_hook(_times_three)
    network.register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1,))
    return network


def _parametrised(function: Callable[[nn.Module], nn.Module]) -> nn.Module:
    network = Tiny()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.head = function(network.head)  # type: ignore[assignment]
    return network


def _tied() -> nn.Module:
    first, second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second)


def _script_inside() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(Tiny(), torch.jit.script(nn.Conv2d(5, 3, 1)))


@pytest.mark.parametrize(
    "build",
    [
        _hooked,
        _tied,
        _script_inside,
        lambda: torch.fx.symbolic_trace(Tiny()),
        lambda: _parametrised(nn.utils.parametrizations.weight_norm),
        lambda: _parametrised(nn.utils.spectral_norm),
    ],
)
def test_graphs_of_modules_that_are_more_than_their_parts(build: Callable[[], nn.Module]) -> None:
    module = build().eval()
    graph = network_graph(prepare_job(resolve_network(module), ExportConfig(size=SIZE)))
    image = graph.job.reference.normalise(torch.from_numpy(graph.job.noise))
    with torch.inference_mode():
        wanted = module(image).numpy()
    got = run_graph(graph.model, {"image": graph.job.noise})[0]
    assert np.abs(got - wanted).max() <= 1e-4 * np.ptp(wanted)


def test_what_a_program_of_one_size_does_not_take(tmp_path: Path) -> None:
    source = resolve_network(torch.export.export(Tiny().eval(), (torch.zeros(1, 3, *SIZE),)))
    assert prepare_job(source, ExportConfig()).size == SIZE
    asked: tuple[dict[str, Any], ...]
    asked = ({"size": (64, 48)}, {"size": SIZE, "batch": 2}, {"size": SIZE, "dynamic": True})
    for options in asked:
        with pytest.raises(UsageError, match="was exported for"):
            prepare_job(source, ExportConfig(**options))


class _Unpadded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.body(image)
        return logits


def test_logits_of_no_stride_are_resized_as_pytorch_does(tmp_path: Path) -> None:
    report = export_model(_Unpadded(), size=SIZE, take=".", out=tmp_path, name="unpadded")
    assert report.parity[0].differing == 0
    assert any("the logits are 28x44 for a picture of 32x48" in note for note in report.notes)
    with Predictor(report.path, target="ort") as predictor:
        assert np.array_equal(predictor(PICTURE).labels, _labels(_Unpadded()))


@pytest.mark.parametrize("sides", [(28, 44), (95, 127), (31, 47), (7, 50)])
def test_any_size_is_resized_as_pytorch_does(sides: tuple[int, int]) -> None:
    logits = torch.randn(5, *sides, generator=torch.Generator().manual_seed(0))
    wanted = F.interpolate(logits[None].double(), size=SIZE, mode="bilinear", align_corners=False).argmax(1)[0]
    assert np.array_equal(labels_from_logits(logits.numpy(), SIZE, postprocess=PostprocessSpec(False)), wanted.numpy())


def test_one_set_of_weights_of_several(tmp_path: Path) -> None:
    raw, averaged = Tiny(seed=1), Tiny(seed=2)
    file = tmp_path / "run.pth"
    torch.save({"state_dict": raw.state_dict(), "state_dict_ema": averaged.state_dict()}, file)
    with pytest.raises(CheckpointError, match=r"choose one with --weights-key KEY \(in Python weights_key=KEY\)"):
        export_model(Tiny(), weights=file, size=SIZE, out=tmp_path)
    report = export_model(Tiny(), weights=file, weights_key="state_dict_ema", size=SIZE, out=tmp_path)
    assert report.bundle.manifest.facts["weights"] == "run.pth, state_dict_ema"
    with pytest.raises(UsageError, match="a resolved network has its weights"):
        export_model(resolve_network(Tiny()), weights_key="state_dict", size=SIZE, out=tmp_path)


def test_a_network_without_weights_beside_its_code_has_no_torch_target(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keeps the network's weights in a file, and this network has none"):
        export_model("tests.export.networks:pixels", size=SIZE, targets=("torch",), out=tmp_path)
    assert list(tmp_path.iterdir()) == []
