"""Reading published checkpoints, translating them, and saying what does not fit."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeseg.errors import CheckpointError
from edgeseg.export.fusion import fuse
from edgeseg.models import create_model, list_models, model_spec
from edgeseg.models.checkpoints import load_state, read_checkpoint, state_from_arrays, stored_classes
from edgeseg.models.families.pphumanseg import PPHumanSegLite

NAME = "extremec3net"  # the smallest


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return dict(create_model(NAME).state_dict())


def _same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return got.keys() == wanted.keys() and all(torch.equal(got[key], wanted[key]) for key in wanted)


def _arrays(state: dict[str, Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    return {key: value.numpy() for key, value in state.items()}


# --- formats and wrappers


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_wrapped_states(tmp_path: Path, state: dict[str, Tensor], key: str) -> None:
    torch.save({"epoch": 3, key: state, "optimizer": {"lr": 0.1}}, tmp_path / "w.pth")
    assert _same(read_checkpoint(tmp_path / "w.pth"), state)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.model.", "_orig_mod.module."])
def test_prefixes(tmp_path: Path, state: dict[str, Tensor], prefix: str) -> None:
    wrapped = {f"{prefix}{key}": value for key, value in state.items()}
    torch.save(wrapped, tmp_path / "w.pth")
    assert _same(read_checkpoint(tmp_path / "w.pth"), wrapped)
    assert _same(dict(create_model(NAME, weights=tmp_path / "w.pth").state_dict()), state)


def test_a_training_wrapper_and_its_loss_constants(tmp_path: Path, state: dict[str, Tensor]) -> None:
    wrapped = {f"model.{key}": value for key, value in state.items()}
    torch.save({**wrapped, "sem_loss.criterion.weight": torch.ones(19)}, tmp_path / "w.pt")
    assert _same(dict(create_model(NAME, weights=tmp_path / "w.pt").state_dict()), state)


def test_the_number_of_classes_is_read_below_a_prefix(tmp_path: Path) -> None:
    state = create_model("fast_scnn", num_classes=5).state_dict()
    torch.save({f"module.model.{key}": value for key, value in state.items()}, tmp_path / "w.pth")
    assert _same(dict(create_model("fast_scnn", weights=tmp_path / "w.pth").state_dict()), dict(state))
    with pytest.raises(CheckpointError, match="it fits 'fast_scnn' with 5 classes: pass num_classes=5"):
        create_model("fast_scnn", num_classes=4, weights=tmp_path / "w.pth")


def test_a_prefix_that_not_every_key_has_stays(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "w.pth")
    assert _same(read_checkpoint(tmp_path / "w.pth"), state)


def test_legacy_format(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(OrderedDict(state), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert _same(read_checkpoint(tmp_path / "w.pth"), state)


def test_safetensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "w.safetensors")
    assert _same(read_checkpoint(tmp_path / "w.safetensors"), state)
    network = create_model(NAME, weights=tmp_path / "w.safetensors")
    assert _same(dict(network.state_dict()), state)


def test_arrays_keep_their_precision() -> None:
    value = np.array([1.0 + 1e-12])
    assert state_from_arrays({"x": value})["x"].numpy().tobytes() == value.tobytes()


# --- Paddle


class _Paddled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.square, self.wide = nn.Linear(3, 3), nn.Linear(3, 5, bias=False)
        self.bn, self.act = nn.BatchNorm1d(5), nn.PReLU(1)


def _paddle_state() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {
        "square.weight": (3, 3),
        "square.bias": (3,),
        "wide.weight": (3, 5),  # Paddle keeps [in, out]
        "bn.weight": (5,),
        "bn.bias": (5,),
        "bn._mean": (5,),
        "bn._variance": (5,),
        "act._weight": (1,),
    }
    return {key: rng.random(shape).astype(np.float32) for key, shape in shapes.items()}


def test_paddle_names_and_linear_layouts(tmp_path: Path) -> None:
    arrays = _paddle_state()
    file = tmp_path / "model.pdparams"
    file.write_bytes(pickle.dumps({**arrays, "StructuredToParameterName@@": {"bn._mean": "batch_norm_0.w_1"}}, 4))
    network = _Paddled()
    load_state(network, read_checkpoint(file), what="a Paddle network")
    loaded = {key: value.numpy() for key, value in network.state_dict().items()}
    np.testing.assert_array_equal(loaded["square.weight"], arrays["square.weight"].T)
    np.testing.assert_array_equal(loaded["wide.weight"], arrays["wide.weight"].T)
    np.testing.assert_array_equal(loaded["bn.running_mean"], arrays["bn._mean"])
    np.testing.assert_array_equal(loaded["bn.running_var"], arrays["bn._variance"])
    np.testing.assert_array_equal(loaded["act.weight"], arrays["act._weight"])


@pytest.mark.parametrize("name", ["w.pdparams", "w.ckpt"])
def test_a_square_linear_of_a_paddle_file_without_batch_norms_is_transposed(tmp_path: Path, name: str) -> None:
    """Nothing in the keys or shapes tells; who wrote the file does."""
    arrays = {key: value for key, value in _paddle_state().items() if key.startswith("square.")}
    names: dict[str, Any] = {"StructuredToParameterName@@": {}} if name.endswith("ckpt") else {}
    (tmp_path / name).write_bytes(pickle.dumps({**arrays, **names}, 4))
    network = nn.ModuleDict({"square": nn.Linear(3, 3)})
    load_state(network, read_checkpoint(tmp_path / name), what="a Paddle network")
    np.testing.assert_array_equal(network.state_dict()["square.weight"].numpy(), arrays["square.weight"].T)


def test_pytorch_linear_weights_are_not_transposed() -> None:
    state = dict(_Paddled().state_dict())
    network = _Paddled()
    load_state(network, state, what="a network")
    assert torch.equal(network.square.weight, state["square.weight"])


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must never run",))


@pytest.mark.parametrize("name", ["w.pth", "w.pdparams"])
def test_pickles_that_could_run_code_are_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], state: dict[str, Tensor]
) -> None:
    file = tmp_path / name
    content = {**_arrays(state), "x": _Evil()} if name.endswith("pdparams") else {**state, "x": _Evil()}
    if name.endswith("pdparams"):
        file.write_bytes(pickle.dumps(content, 4))
    else:
        torch.save(content, file)
    with pytest.raises(CheckpointError, match=r"could run code and (is|are) not loaded"):
        read_checkpoint(file)
    assert capsys.readouterr().out == ""


# --- damaged files


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pdparams", ".onnx"])
def test_missing_and_empty_files(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"w{suffix}"
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        read_checkpoint(file)
    file.touch()
    with pytest.raises(CheckpointError, match="is empty"):
        read_checkpoint(file)


@pytest.mark.parametrize("suffix", [".pth", ".legacy.pth", ".safetensors", ".pdparams"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, state: dict[str, Tensor], suffix: str, kept: float) -> None:
    file = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(state, file)
    elif suffix == ".pdparams":
        file.write_bytes(pickle.dumps(_arrays(state), 4))
    else:
        torch.save(state, file, _use_new_zipfile_serialization=suffix == ".pth")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CheckpointError, match=r"damaged or|not a whole"):
        read_checkpoint(file)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pdparams", ".onnx"])
def test_files_of_another_kind(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"w{suffix}"
    file.write_text("<html>404: not found</html>" * 20)
    with pytest.raises(CheckpointError, match="copy it again"):
        read_checkpoint(file)


def test_a_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_checkpoint(tmp_path / "w.pth")


# --- what fits and what does not


def test_number_of_classes_comes_from_the_file(tmp_path: Path) -> None:
    torch.save(create_model("fast_scnn", num_classes=5).state_dict(), tmp_path / "w.pth")
    network = create_model("fast_scnn", weights=tmp_path / "w.pth")
    assert stored_classes(network.state_dict(), model_spec("fast_scnn").classes_key) == 5
    with pytest.raises(CheckpointError, match="with 5 classes: pass num_classes=5"):
        create_model("fast_scnn", num_classes=19, weights=tmp_path / "w.pth")


def test_misfit_lists_missing_unexpected_and_shapes(state: dict[str, Tensor]) -> None:
    broken = {key: value for key, value in state.items() if key != "upsample.0.weight"}
    broken["surprise.weight"] = torch.ones(2)
    broken["Fine.0.conv.weight"] = torch.ones(24, 3, 5, 5)
    with pytest.raises(CheckpointError) as caught:
        load_state(create_model(NAME), broken, what="the network")
    text = str(caught.value)
    assert "does not fit the network" in text
    assert "1 missing (upsample.0.weight)" in text
    assert "1 unexpected (surprise.weight)" in text
    assert "Fine.0.conv.weight: got [24, 3, 5, 5], expected [24, 3, 3, 3]" in text


@pytest.mark.parametrize(
    ("saved", "asked"),
    [
        ("espnet_p2_q5", "espnet_p2_q8"),
        ("espnet_c_p2_q8", "espnet_p2_q8"),
        ("espnet_p2_q3_trainvariant", "espnet_p2_q3"),
        ("sinet", "extremec3net"),
    ],
)
def test_a_wrong_checkpoint_is_told_which_network_it_fits(tmp_path: Path, saved: str, asked: str) -> None:
    torch.save(create_model(saved).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"it fits '{saved}': use that name"):
        create_model(asked, weights=tmp_path / "w.pth")


def test_a_nearly_right_checkpoint_names_the_nearest_network(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({**state, "extra.weight": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"the nearest network is '{NAME}'"):
        create_model(NAME, weights=tmp_path / "w.pth")


def test_a_foreign_checkpoint(tmp_path: Path) -> None:
    torch.save({"backbone.weight": torch.ones(3)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no registered network has these tensors"):
        create_model(NAME, weights=tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "extra"),
    [("fast_scnn", "auxlayer.0.weight"), ("pidnet_s", "seghead_p.conv1.weight"), ("pidnet_s", "seghead_d.bn1.weight")],
)
def test_training_heads_of_published_checkpoints_are_dropped(tmp_path: Path, name: str, extra: str) -> None:
    state = create_model(name).state_dict()
    torch.save({**state, extra: torch.ones(3)}, tmp_path / "w.pth")
    assert _same(dict(create_model(name, weights=tmp_path / "w.pth").state_dict()), dict(state))
    with pytest.raises(CheckpointError, match=f"it fits '{name}'"):
        create_model(NAME, weights=tmp_path / "w.pth")


def test_counters_may_be_absent(state: dict[str, Tensor]) -> None:
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    load_state(create_model(NAME), old, what="the network")


class _Shared(nn.Module):
    checkpoint_optional = (r"^mean$",)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = self.first
        self.mean: Tensor
        self.register_buffer("mean", torch.full((3,), 7.0))


def test_shared_tensors_need_one_name_and_constants_none() -> None:
    network = _Shared()
    weights = {"second.weight": torch.eye(2), "second.bias": torch.ones(2)}
    load_state(network, weights, what="the network")
    assert torch.equal(network.first.weight, torch.eye(2))
    assert network.mean.tolist() == [7.0, 7.0, 7.0]
    load_state(network, {**weights, "mean": torch.zeros(3)}, what="the network")
    assert network.mean.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(CheckpointError, match="2 missing"):
        load_state(network, {"mean": torch.zeros(3), "first.bias": torch.ones(2)}, what="the network")


# --- published weights

REAL = {
    **{f"decoder_espnet_p_2_q_{q}.pth": (f"espnet_p2_q{q}", 20) for q in (3, 5, 8)},
    **{f"encoder_espnet_p_2_q_{q}.pth": (f"espnet_c_p2_q{q}", 20) for q in (3, 5, 8)},
    "decoder_espnet_p_2_q_8_camvid.pth": ("espnet_p2_q8_trainvariant", 12),
    "SINet.pth": ("sinet", 2),
    "ExtremeC3.pth": ("extremec3net", 1),
}


@pytest.mark.real
@pytest.mark.parametrize("file", REAL)
def test_published_weights_load_strictly(real_weights: Path, file: str) -> None:
    name, classes = REAL[file]
    network = create_model(name, weights=real_weights / file)
    stored = read_checkpoint(real_weights / file)
    assert stored_classes(stored, model_spec(name).classes_key) == classes
    assert all(torch.equal(network.state_dict()[key], value) for key, value in stored.items())


@pytest.mark.real
@pytest.mark.parametrize("file", REAL)
def test_published_weights_are_recognised_under_a_wrong_name(real_weights: Path, file: str) -> None:
    asked = next(name for name in list_models("p*net*") if name != REAL[file][0])
    with pytest.raises(CheckpointError, match=f"it fits '{REAL[file][0]}': use that name"):
        create_model(asked, weights=real_weights / file)


def _load_by_order(network: nn.Module, file: Path, image: Tensor) -> None:
    """Put the folded convolutions of a nameless ONNX file into a fused network, in the order in which they run."""
    import onnx
    from onnx import numpy_helper

    order: list[nn.Conv2d] = []
    convs = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    hooks = [conv.register_forward_hook(lambda *_, conv=conv: order.append(conv)) for conv in convs]
    network(image)
    for hook in hooks:
        hook.remove()
    graph = onnx.load(file).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = sorted((n for n in graph.node if n.op_type == "Conv"), key=lambda n: int(n.name.split("_")[1]))
    for conv, node in zip(order, nodes, strict=True):
        assert conv.bias is not None
        conv.weight.data.copy_(torch.from_numpy(arrays[node.input[1]].copy()))
        conv.bias.data.copy_(torch.from_numpy(arrays[node.input[2]].copy()))


@pytest.mark.real
def test_official_portrait_network_agrees(real_weights: Path) -> None:
    """The official ONNX file has no published names and its BNs are folded, so its weights go in by order."""
    file = real_weights / "ppseg_lite_portrait_398x224_softmax.onnx"
    image = torch.randn(1, 3, 224, 398, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    network = fuse(PPHumanSegLite(), image)[0]
    with torch.no_grad():
        _load_by_order(network, file, image)
        logits = nn.functional.interpolate(network(image), size=(224, 398), mode="bilinear", align_corners=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    wanted = np.asarray(session.run(None, {"x": image.numpy()})[0])
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), wanted, rtol=0, atol=1e-5)
